"""Policies that everybody has, to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs

from ..peers import PeerRecord
from ._request import RouteRequest


@attrs.frozen
class LeastRequests:
    """The fewest requests per slot, queued ones and our own unreported ones included."""

    term_names: tuple[str, ...] = ("requests",)
    unit: str = "requests per slot"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """``PeerRecord.present / slots``."""
        return [(peer.present / peer.capability.load.slots,) for peer in peers]


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
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """``PeerRecord.present / slots``, and for those that were not drawn one over the most."""
        ratios = [peer.present / peer.capability.load.slots for peer in peers]
        drawn = set(rng.sample(range(len(peers)), min(2, len(peers))))
        behind = 1.0 + max(ratios, default=0.0)
        return [(ratio, 0.0 if i in drawn else behind) for i, ratio in enumerate(ratios)]


# Where the load of the pool is this uneven, in requests and as a ratio, the cache is ignored.
# The ratio is that of SGLang's cache-aware router; its 64 requests are for servers that batch
# hundreds, ours batch one to eight.
UNEVEN_REQUESTS = 4
UNEVEN_RATIO = 1.5

# A cached prefix counts if it is at least this share of the prompt; SGLang's threshold.
LEAST_MATCH = 0.5


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
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """``PeerRecord.present / slots``, and one over the most for those without the prefix."""
        if not peers:
            return []
        ratios = [peer.present / peer.capability.load.slots for peer in peers]
        cached = request.cached_tokens
        longest = max(cached.get(peer.peer_id, 0) for peer in peers)
        most = max(peer.present for peer in peers)
        fewest = min(peer.present for peer in peers)
        uneven = most - fewest > UNEVEN_REQUESTS and most > UNEVEN_RATIO * fewest
        if uneven or not longest or longest < LEAST_MATCH * request.prompt_tokens:
            return [(ratio, 0.0) for ratio in ratios]
        behind = 1.0 + max(ratios)
        return [
            (ratio, 0.0 if cached.get(peer.peer_id, 0) == longest else behind)
            for peer, ratio in zip(peers, ratios, strict=True)
        ]


@attrs.frozen
class RoundRobin:
    """Each peer in turn, by peer id."""

    term_names: tuple[str, ...] = ("turns",)
    unit: str = "turns to wait"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """How many turns the peer's own turn is away from that of this request."""
        if not peers:
            return []
        turn = {peer_id: i for i, peer_id in enumerate(sorted(p.peer_id for p in peers))}
        count = len(peers)
        return [(float((turn[peer.peer_id] - request.serial) % count),) for peer in peers]


@attrs.frozen
class Chance:
    """Anybody."""

    term_names: tuple[str, ...] = ("lot",)
    unit: str = "lot"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """A number drawn for each peer."""
        return [(rng.random(),) for _ in peers]
