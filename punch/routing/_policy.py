"""Filter, score, pick: the whole routing decision, without any I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import Protocol

import attrs

from ..peers import Candidate, PeerRecord, candidates_of
from ._completion_time import SECONDS_PER_FAILURE
from ._decision import Decision
from ._filters import STANDARD_FILTERS, Filter
from ._request import RouteRequest
from .starts import (
    NO_STARTS,
    PREDICTED,
    Startable,
    apart,
    records_of,
    together,
    with_start_filters,
    with_start_terms,
)

# Candidates this close to the best are equal as far as anybody can tell; taking one of them
# at random keeps many dialers from choosing the same one at the same moment.
NEAR = 0.10

# Where a tenth is a difference that somebody waits for, in seconds: from there the best is best.
NEAR_SECONDS = 1.0

# Of the requests present per slot in the pool, the quantile above which a peer is hot: Prequal's
# (NSDI'24), 2**-0.25.
HOT_QUANTILE = 0.84

# A hot peer gives way to a cold one that is predicted to take up to so many times as long.
# Prequal's peers are alike; among ours one may be worth any queue of the others. Predictions
# are seldom wrong by more.
HOT_HANDICAP = 2.0

# One in so many decisions may go to a peer that nobody has measured yet: three answers, which
# are enough to know it, take 60 requests, and no answer is later than the next rule allows.
EXPLORE = 1 / 20

# An unmeasured peer is not explored if it is predicted to take longer than so many times the
# best: the request of somebody who waits for it is a high price.
EXPLORE_REACH = 2.0

# A peer whose engine died lately gets a request after this long without any, as does one whose
# breaker is open for its longest, if that is predicted to take little more than the best.
AGAIN_SECONDS = 30.0
ENOUGH_DEATHS = 0.5
MAX_DEARER_SECONDS = 1.0

# Requests of ours at a time that an unmeasured offer gets, whatever number of slots it claims.
MAX_TRUSTED = 4

_NONE_HOT: frozenset[str] = frozenset()

# Places of candidates, best first, and by the place of each what it is ordered by.
_Order = Sequence[int]
_Ranks = Sequence[float]


class Scorer(Protocol):
    """Gives each candidate the terms of its score. Knows no clock and no chance of its own."""

    @property
    def term_names(self) -> tuple[str, ...]:
        """What the terms are called."""
        ...

    @property
    def unit(self) -> str:
        """Their unit, such as ``s``."""
        ...

    @property
    def lowest_is_best(self) -> bool:
        """How their sums compare."""
        ...

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """One tuple a candidate, in the order of *candidates*, in `unit`."""
        ...


@attrs.frozen(kw_only=True)
class Policy:
    """How to choose. Pass your own scorer, or your own filters, to choose otherwise."""

    name: str
    """One word."""

    scorer: Scorer
    """What makes a candidate better than another."""

    filters: tuple[Filter, ...] = STANDARD_FILTERS
    """Which may be asked at all."""

    near: float = NEAR
    """Share of the best score within which the best is drawn by lot; 0 for never."""

    near_most: float = math.inf
    """However good the best is, no more than this is near, in the unit of the scorer."""

    gate: float | None = None
    """Prequal's gate: a peer with a queue, and with more requests per slot than this quantile of
    the pool, is hot and gives way to cold ones; `None` for none. Only for scores in seconds."""

    explore: float = 0.0
    """Share of decisions that may go to a peer with fewer than three measured answers, if none
    of our requests is there, to learn its speed. Only for scores in seconds."""

    def decide(
        self,
        request: RouteRequest,
        peers: Sequence[PeerRecord],
        *,
        now: float,
        rng: Random,
        reason: str = "first",
        startable: Sequence[Startable] = (),
    ) -> Decision:
        """Order the offers of *peers* that may be asked.

        Args:
          request: What is asked for.
          peers: A snapshot of the peer table.
          now: The current time of the clock behind `PeerRecord.seen_at`, in seconds.
          rng: Draws among equals. Pass a seeded one to repeat a decision.
          reason: Why a peer is asked, see `Reason`.
          startable: What could be started: candidates beside the others, with the seconds of that
            as the term ``start`` where scores are in seconds.

        """
        filters, starts = self.filters, NO_STARTS
        if request.is_usual:
            filters = self._usual_filters
        scorer = self.scorer
        if startable:
            could_be, starts = records_of(startable, now=now)
            peers = [*peers, *could_be]
            filters = with_start_filters(filters, starts, policy=self.name, unit=scorer.unit)
        kept: Sequence[Candidate] = candidates_of(
            peers, request.model, request.model_digest, request.offer, request.alike
        )
        removed: list[tuple[Candidate, Filter]] = []
        odd = [candidate for candidate in kept if not candidate.is_plain]
        for step in filters:
            if step.passes_plain and not odd:
                continue
            passed = step.keep(request, kept, now)
            if passed is not kept and len(passed) != len(kept):
                passing = set(passed)
                removed += [(candidate, step) for candidate in kept if candidate not in passing]
                kept = passed

        terms, term_names = scorer.terms(request, kept, rng), scorer.term_names
        if starts and scorer.unit == PREDICTED:
            term_names, terms = with_start_terms(term_names, terms, kept, starts)
        ranks = list(map(sum, terms))
        hot: Sequence[int] = () if self.gate is None else _hot(kept, self.gate)
        for place in hot:
            ranks[place] *= HOT_HANDICAP
        order = sorted(range(len(kept)), key=ranks.__getitem__, reverse=not scorer.lowest_is_best)
        whole, to_start = order, list[int]()
        if starts:
            order, to_start = apart(order, kept, starts)
        explored = is_full = False
        if len(order) > 1:
            first = self._among_equals(order, ranks, rng)
            again = None
            if self.explore and reason == "first":
                again = _to_try_again(kept, order, ranks, now)
            if again is not None:
                first, explored = again, True
            elif self.explore:
                chance = rng.random()
                if chance < self.explore:
                    found = _unmeasured(kept, order, ranks, rng)
                    explored = found is not None
                    first = first if found is None else found
                if not explored:
                    before, first = first, _with_room_to_learn(kept, order, first)
                    is_full = before != first
            order.insert(0, order.pop(first))
        if to_start:
            order = together(
                order,
                to_start,
                seconds=list(map(sum, terms)),
                starts={place: starts[kept[place].id] for place in to_start},
                is_full=is_full,
                reach=self._reach,
                order=whole,
            )
        return Decision(
            policy=self.name,
            order=tuple([kept[place] for place in order]),
            terms=tuple([terms[place] for place in order]),
            unit=scorer.unit,
            lowest_is_best=scorer.lowest_is_best,
            request=request,
            now=now,
            term_names=term_names,
            removed=tuple(removed),
            hot=frozenset([kept[place].id for place in hot]) if hot else _NONE_HOT,
            explored=explored,
            reason=reason,
            starts=starts,
        )

    @cached_property
    def _usual_filters(self) -> tuple[Filter, ...]:
        """Those that look at each `RouteRequest.is_usual`."""
        return tuple([step for step in self.filters if not step.passes_usual])

    def _reach(self, best: float) -> float:
        """How far from the *best* score others are as good as that."""
        return min(self.near * abs(best), self.near_most)

    def _among_equals(self, order: _Order, ranks: _Ranks, rng: Random) -> int:
        """The place in *order* of one that is as good as the best, as far as anybody can tell."""
        if not self.near:
            return 0
        best = ranks[order[0]]
        reach = self._reach(best)
        equals = 1
        # They are sorted: those that are near come first.
        while equals < len(order) and abs(ranks[order[equals]] - best) <= reach:
            equals += 1
        return rng.randrange(equals) if equals > 1 else 0


def _hot(candidates: Sequence[Candidate], quantile: float) -> Sequence[int]:
    """Places of those with more requests per slot than the quantile of all, and with a queue."""
    ratios = [candidate.per_slot for candidate in candidates]
    if not ratios or max(ratios) < 1.0:
        return ()
    # The nearest rank: of up to six candidates none is hot, since too few are there to be usual.
    edge = sorted(ratios)[math.ceil(quantile * len(ratios)) - 1]
    return [place for place, ratio in enumerate(ratios) if ratio > edge and ratio >= 1.0]


def _to_try_again(
    kept: Sequence[Candidate], order: _Order, ranks: _Ranks, now: float
) -> int | None:
    """The place in *order* of one whose engine died, if no request of ours was there for long.

    Its penalty says that others are better: no request would go there by itself, and nobody would
    find out that its engine lives. One that is slow in itself is not worth a caller's time.
    """
    if not [candidate for candidate in kept if candidate.is_troubled]:
        return None
    for place, which in enumerate(order):
        candidate = kept[which]
        peer = candidate.peer
        if peer.engine_deaths < ENOUGH_DEATHS or peer.breakers or candidate.ours.in_flight:
            continue
        dearer = ranks[which] - SECONDS_PER_FAILURE * peer.engine_deaths - ranks[order[0]]
        if peer.asked_at + AGAIN_SECONDS <= now and dearer <= MAX_DEARER_SECONDS:
            return place
    return None


def _unmeasured(kept: Sequence[Candidate], order: _Order, ranks: _Ranks, rng: Random) -> int | None:
    """The place in *order* of one to explore: at most one request of ours is there at a time."""
    reach = EXPLORE_REACH * ranks[order[0]]
    found = [
        place
        for place, which in enumerate(order)
        if not (candidate := kept[which]).ours.in_flight
        and ranks[which] <= reach
        and not candidate.rates.enough
    ]
    return rng.choice(found) if found else None


def _with_room_to_learn(kept: Sequence[Candidate], order: _Order, first: int) -> int:
    """*first*, or the best that is not full of requests of ours that were sent on trust.

    The claim of a peer may be a lie or a mistake: until it is measured it gets as many
    requests of ours as it has slots and no more, if there is another.
    """
    places: tuple[int, ...] = (first, *range(len(order)))
    for place in places:
        candidate = kept[order[place]]
        trusted = min(candidate.load.slots, MAX_TRUSTED)
        if candidate.ours.in_flight < trusted or candidate.rates.enough:
            return place
    return first
