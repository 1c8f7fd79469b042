"""Whom to ask, and why: a value that explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..capability import PeerId
from ..peers import PeerRecord
from ._filters import Filter
from ._request import RouteRequest


@attrs.frozen(kw_only=True)
class Candidate:
    """One peer in a decision."""

    peer_id: PeerId
    """Who."""

    backend: str
    """What would answer."""

    removed_by: str | None = None
    """Name of the filter that removed it, or `None` if it could be asked."""

    reason: str | None = None
    """That filter's reason, in a sentence."""

    score: float | None = None
    """Sum of its terms, in the decision's unit."""

    terms: Mapping[str, float] = attrs.field(factory=dict)
    """Term to its value, in the decision's unit."""

    hot: bool = False
    """It has a longer queue than most, and gave way: see `Policy.gate`."""

    cached_tokens: int = 0
    """Prompt tokens that it probably has in its cache (expected)."""


@attrs.frozen(kw_only=True)
class Decision:
    """The outcome of `Policy.decide`. Holds the snapshot; says what it means when asked."""

    policy: str
    """Name of the policy."""

    order: tuple[PeerId, ...]
    """Peers that may be asked, best first."""

    unit: str
    """Unit of scores and terms, such as ``s``."""

    lowest_is_best: bool
    """How scores compare."""

    request: RouteRequest
    """What was to be routed."""

    now: float
    """When, in seconds of the router's clock."""

    term_names: tuple[str, ...] = ()
    """What the terms of a score are called."""

    scored: Mapping[PeerId, tuple[PeerRecord, tuple[float, ...]]] = attrs.field(repr=False)
    """Peers that passed every filter, with the terms of their scores."""

    removed: tuple[tuple[PeerRecord, Filter], ...] = attrs.field(repr=False, default=())
    """Peers that did not, with the filter that removed each."""

    hot: frozenset[PeerId] = frozenset()
    """Peers that passed and gave way for their long queues: see `Policy.gate`."""

    explored: bool = False
    """The first was taken to learn its speed, not for its score: see `Policy.explore`."""

    reason: str = "first"
    """Why it was needed, see `Reason`."""

    @property
    def chosen(self) -> PeerId | None:
        """The best peer, if there is one."""
        return self.order[0] if self.order else None

    def score(self, peer_id: PeerId) -> float:
        """The score of a peer that passed, in `unit`."""
        return sum(self.scored[peer_id][1])

    def term(self, peer_id: PeerId, name: str) -> float | None:
        """One term of a peer's score, if this policy has it."""
        if name not in self.term_names:
            return None
        return self.scored[peer_id][1][self.term_names.index(name)]

    def seconds_to_first_text(self, peer_id: PeerId) -> float | None:
        """What is predicted without the answer itself and without any penalty."""
        decode = self.term(peer_id, "decode")
        if self.unit != "s" or decode is None:
            return None
        return self.score(peer_id) - decode - (self.term(peer_id, "penalty") or 0.0)

    def candidates(self) -> tuple[Candidate, ...]:
        """Every peer that was looked at: the ones that may be asked first, best first."""
        return (
            *(self._kept(peer_id) for peer_id in self.order),
            *(self._lost(peer, by) for peer, by in self.removed),
        )

    def as_dict(self, *, candidates: int = 8) -> dict[str, Any]:
        """Plain data for logs and JSON, with at most *candidates* peers spelled out."""
        kept = [self._kept(peer_id) for peer_id in self.order[:candidates]]
        lost = [self._lost(peer, by) for peer, by in self.removed[: candidates - len(kept)]]
        return {
            "policy": self.policy,
            "unit": self.unit,
            "peers": len(self.order) + len(self.removed),
            "explored": self.explored,
            "candidates": [
                {
                    "peer_id": c.peer_id,
                    "backend": c.backend,
                    "score": c.score,
                    "terms": c.terms,
                    "hot": c.hot,
                    "cached_tokens": c.cached_tokens,
                }
                for c in kept
            ]
            + [
                {
                    "peer_id": c.peer_id,
                    "backend": c.backend,
                    "removed_by": c.removed_by,
                    "reason": c.reason,
                }
                for c in lost
            ],
        }

    def _kept(self, peer_id: PeerId) -> Candidate:
        record, terms = self.scored[peer_id]
        return Candidate(
            peer_id=peer_id,
            backend=record.capability.backend,
            score=sum(terms),
            terms=dict(zip(self.term_names, terms, strict=True)),
            hot=peer_id in self.hot,
            cached_tokens=self.request.cached_tokens.get(peer_id, 0),
        )

    def _lost(self, peer: PeerRecord, by: Filter) -> Candidate:
        return Candidate(
            peer_id=peer.peer_id,
            backend=peer.capability.backend,
            removed_by=by.name,
            reason=by.why(self.request, peer, self.now),
        )
