"""Filter, score, pick: the whole routing decision, without any I/O."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

import attrs

from ..peers import PeerRecord
from ._decision import Decision
from ._filters import STANDARD_FILTERS, Filter
from ._request import RouteRequest

# Candidates this close to the best are equal as far as anybody can tell; taking one of them
# at random keeps many dialers from choosing the same one at the same moment.
NEAR = 0.10


class Scorer(Protocol):
    """Gives each peer the terms of its score. Knows no clock and no chance of its own."""

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
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """One tuple a peer, in the order of *peers*, in `unit`."""
        ...


@attrs.frozen(kw_only=True)
class Policy:
    """How to choose. Pass your own scorer, or your own filters, to choose otherwise."""

    name: str
    """One word."""

    scorer: Scorer
    """What makes a peer better than another."""

    filters: tuple[Filter, ...] = STANDARD_FILTERS
    """Who may be asked at all."""

    near: float = NEAR
    """Share of the best score within which the best is drawn by lot; 0 for never."""

    def decide(
        self, request: RouteRequest, peers: Sequence[PeerRecord], *, now: float, rng: Random
    ) -> Decision:
        """Order the peers that may be asked.

        Args:
          request: What is asked for.
          peers: A snapshot of the peer table.
          now: The current time of the clock behind `PeerRecord.seen_at`, in seconds.
          rng: Draws among equals. Pass a seeded one to repeat a decision.

        """
        kept = peers
        removed: list[tuple[PeerRecord, Filter]] = []
        for step in self.filters:
            passed = step.keep(request, kept, now)
            if len(passed) != len(kept):
                passing = {peer.peer_id for peer in passed}
                removed += [(peer, step) for peer in kept if peer.peer_id not in passing]
            kept = passed

        scorer = self.scorer
        terms = scorer.terms(request, kept, rng)
        ids = [peer.peer_id for peer in kept]
        totals = dict(zip(ids, map(sum, terms), strict=True))
        order = sorted(ids, key=totals.__getitem__, reverse=not scorer.lowest_is_best)
        if self.near and len(order) > 1:
            edge = totals[order[0]] * (1 + self.near if scorer.lowest_is_best else 1 - self.near)
            equals = [
                peer
                for peer in order
                if (totals[peer] <= edge if scorer.lowest_is_best else totals[peer] >= edge)
            ]
            if len(equals) > 1:
                lucky = order.index(equals[rng.randrange(len(equals))])
                order.insert(0, order.pop(lucky))
        return Decision(
            policy=self.name,
            order=tuple(order),
            unit=scorer.unit,
            lowest_is_best=scorer.lowest_is_best,
            request=request,
            now=now,
            term_names=scorer.term_names,
            scored=dict(zip(ids, zip(kept, terms, strict=True), strict=True)),
            removed=tuple(removed),
        )
