"""Policies that everybody has, to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs

from ..peers import Candidate
from ._request import RouteRequest


@attrs.frozen
class LeastRequests:
    """The fewest requests per slot, queued ones and our own unreported ones included."""

    term_names: tuple[str, ...] = ("requests",)
    unit: str = "requests per slot"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """``Candidate.per_slot``."""
        return [(one.per_slot,) for one in candidates]


@attrs.frozen
class TwoChoices:
    """Two peers drawn by lot, and of them the one with the fewer requests per slot.

    The power of two choices (M. Mitzenmacher, 2001), as in Finagle, Envoy and nginx. The
    others follow behind, for when both fail.
    """

    term_names: tuple[str, ...] = ("requests", "undrawn")
    unit: str = "requests per slot"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """``Candidate.per_slot``, and for those that were not drawn one over the most."""
        ratios = [one.per_slot for one in candidates]
        drawn = set(rng.sample(range(len(candidates)), min(2, len(candidates))))
        behind = 1.0 + max(ratios, default=0.0)
        return [(ratio, 0.0 if i in drawn else behind) for i, ratio in enumerate(ratios)]


# The rule says that there are four classes and that a node's report of its load gives one, and not
# where they begin: half of a machine in use is no pressure here.
PRESSURE_CLASSES = (0.5, 0.75, 0.9)


@attrs.frozen
class PendingAndPressure:
    """The fewest pending jobs plus a class of pressure from 0 to 3; of equals the smaller id.

    The published rule of NVIDIA PAIR. It knows neither speed nor slots, neither latency nor what is
    in memory, and each job counts as one, whatever its size.
    """

    term_names: tuple[str, ...] = ("pending", "pressure", "id")
    unit: str = "jobs"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """``Candidate.present``, the class of the machine, and less than one for the rest."""
        if not candidates:
            return []
        rank = {name: i for i, name in enumerate(sorted(one.id for one in candidates))}
        return [
            (float(one.present), float(pressure_of(one)), rank[one.id] / len(rank))
            for one in candidates
        ]


def pressure_of(candidate: Candidate) -> int:
    """How many of `PRESSURE_CLASSES` the busiest part of the candidate's machine is beyond."""
    claim = candidate.peer.capability
    shares = [claim.cpu_usage, *(gpu.usage for gpu in claim.gpus)]
    busiest = max((share for share in shares if share is not None), default=0.0)
    return sum(busiest >= least for least in PRESSURE_CLASSES)


# Where the load of the pool is this uneven, in requests and as a ratio, the cache is ignored.
# The ratio is that of SGLang's cache-aware router; its 64 requests are for servers that batch
# hundreds, ours batch one to eight.
UNEVEN_REQUESTS = 4
UNEVEN_RATIO = 1.5

# A cached prefix counts if it is at least this share of the prompt; SGLang's threshold.
MIN_MATCH = 0.5


@attrs.frozen
class PrefixAffinity:
    """The longest cached prefix, unless the load is uneven; then the fewest requests per slot.

    As SGLang's cache-aware router: if the most and the fewest requests at a peer differ by more
    than a threshold and by more than a ratio, or if no cached prefix covers half of the prompt,
    the least busy peer is taken.
    """

    term_names: tuple[str, ...] = ("requests", "elsewhere")
    unit: str = "requests per slot"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """``Candidate.per_slot``, and one over the most for those without the prefix."""
        if not candidates:
            return []
        ratios = [one.per_slot for one in candidates]
        cached = request.cached_tokens
        longest = max(cached.get(one.id, 0) for one in candidates)
        most = max(one.present for one in candidates)
        fewest = min(one.present for one in candidates)
        uneven = most - fewest > UNEVEN_REQUESTS and most > UNEVEN_RATIO * fewest
        if uneven or not longest or longest < MIN_MATCH * request.prompt_tokens:
            return [(ratio, 0.0) for ratio in ratios]
        behind = 1.0 + max(ratios)
        return [
            (ratio, 0.0 if cached.get(one.id, 0) == longest else behind)
            for one, ratio in zip(candidates, ratios, strict=True)
        ]


@attrs.frozen
class RoundRobin:
    """Each candidate in turn, by its id."""

    term_names: tuple[str, ...] = ("turns",)
    unit: str = "turns to wait"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """How many turns a candidate's own turn is away from that of this request."""
        if not candidates:
            return []
        turn = {name: i for i, name in enumerate(sorted(one.id for one in candidates))}
        count = len(candidates)
        return [(float((turn[one.id] - request.serial) % count),) for one in candidates]


@attrs.frozen
class Chance:
    """Anybody."""

    term_names: tuple[str, ...] = ("lot",)
    unit: str = "lot"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """A number drawn for each candidate."""
        return [(rng.random(),) for _ in candidates]
