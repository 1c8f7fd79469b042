"""Whom to ask, and why: a value that explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..capability import PeerId
from ..peers import Candidate
from ._filters import Filter
from ._request import RouteRequest
from .kinds._kind import Kind, kind_of, word_of
from .starts import NO_STARTS, Startable


@attrs.frozen(kw_only=True)
class Assessment:
    """What a decision found of one candidate."""

    peer_id: PeerId
    """Which peer."""

    backend: str
    """What would answer."""

    offer: str | None = None
    """The id of the offer, where its peer has several lanes."""

    lane: str | None = None
    """The id of the lane that would answer, where its peer has several."""

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

    start: Startable | None = None
    """What would have to be started for it, if it does not run."""

    kind: Kind | None = None
    """Where its model would run, whole or split; `None` if it offers nothing that was asked for."""


@attrs.frozen(kw_only=True)
class Prediction:
    """How long one candidate is expected to take, in seconds; `None` for what is not predicted."""

    first_text: float | None = None
    """To its first text, without any penalty."""

    uncached: float | None = None
    """The same if nothing is in its cache after all: what patience must allow for."""

    prefill: float | None = None
    """For the prompt alone."""

    decode: float | None = None
    """From its first text to its last."""


NO_PREDICTION = Prediction()


@attrs.frozen(kw_only=True)
class Decision:
    """The outcome of `Policy.decide`. Holds the snapshot; says what it means when asked."""

    policy: str
    """Name of the policy."""

    order: tuple[Candidate, ...] = attrs.field(repr=False)
    """Candidates that may be asked, best first."""

    terms: tuple[tuple[float, ...], ...] = attrs.field(repr=False)
    """The terms of their scores, in the same order, in `unit`."""

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

    removed: tuple[tuple[Candidate, Filter], ...] = attrs.field(repr=False, default=())
    """Candidates that may not, with the filter that removed each."""

    hot: frozenset[str] = frozenset()
    """Ids of those that may be asked and gave way for their long queues: see `Policy.gate`."""

    explored: bool = False
    """The first was taken to learn its speed, not for its score: see `Policy.explore`."""

    reason: str = "first"
    """Why it was needed, see `Reason`."""

    starts: Mapping[str, Startable] = NO_STARTS
    """Of the candidates that would have to be started: what, by the id of the candidate."""

    @property
    def chosen(self) -> Candidate | None:
        """The best candidate, if there is one."""
        return self.order[0] if self.order else None

    @property
    def chosen_peer(self) -> PeerId | None:
        """The peer of the best candidate, if there is one."""
        return self.order[0].peer_id if self.order else None

    def start_of(self, candidate: Candidate) -> Startable | None:
        """What would have to be started for a candidate; `None` for one that runs."""
        return self.starts.get(candidate.id)

    def best_of(self, peer_id: PeerId | None) -> Candidate | None:
        """The best of a peer's candidates that may be asked, if it has any."""
        return next((one for one in self.order if one.peer_id == peer_id), None)

    def score(self, candidate: Candidate) -> float:
        """The score of one that may be asked, in `unit`."""
        return sum(self.terms[self.order.index(candidate)])

    def term(self, candidate: Candidate, name: str) -> float | None:
        """One term of the score of one that may be asked, if this policy has it."""
        if name not in self.term_names:
            return None
        return self.terms[self.order.index(candidate)][self.term_names.index(name)]

    def predicted(self, candidate: Candidate) -> Prediction:
        """How long one that may be asked is expected to take."""
        terms = self.terms[self.order.index(candidate)]
        named = dict(zip(self.term_names, terms, strict=True))
        decode = named.get("decode")
        if self.unit != "s" or decode is None:
            return NO_PREDICTION
        first = sum(terms) - decode - named.get("penalty", 0.0)
        return Prediction(
            first_text=first,
            uncached=first - named.get("cached", 0.0),
            prefill=named.get("prefill"),
            decode=decode,
        )

    def candidates(self) -> tuple[Assessment, ...]:
        """Every candidate that was looked at: the ones that may be asked first, best first."""
        return (
            *map(self._kept, self.order, self.terms),
            *(self._lost(candidate, by) for candidate, by in self.removed),
        )

    def best_of_kinds(self) -> Mapping[str, Assessment]:
        """The best candidate of each kind, by its word; the chosen one is the best of its own.

        Worked out for these few alone: a decision may have looked at a thousand.
        """
        found: dict[str, Assessment] = {}
        for candidate, terms in zip(self.order, self.terms, strict=True):
            kind = kind_of(candidate, self.starts.get(candidate.id))
            if kind is not None and kind.word not in found:
                found[kind.word] = self._kept(candidate, terms)
        for candidate, by in self.removed:
            kind = kind_of(candidate, self.starts.get(candidate.id))
            if kind is not None and kind.word not in found:
                found[kind.word] = self._lost(candidate, by)
        return found

    def as_dict(self, *, candidates: int = 8) -> dict[str, Any]:
        """Plain data for logs and JSON, with at most *candidates* of them spelled out."""
        order, removed = self.order[:candidates], self.removed
        return {
            "policy": self.policy,
            "unit": self.unit,
            "peers": len(self.order) + len(removed),
            "explored": self.explored,
            "candidates": [
                {
                    **self._spelled(one),
                    "score": sum(terms),
                    "terms": dict(zip(self.term_names, terms, strict=True)),
                    "hot": one.id in self.hot,
                    "cached_tokens": self.request.cached_tokens.get(one.id, 0),
                }
                for one, terms in zip(order, self.terms, strict=False)
            ]
            + [
                {
                    **self._spelled(one),
                    "removed_by": by.name,
                    "reason": by.why(self.request, one, self.now),
                }
                for one, by in removed[: candidates - len(order)]
            ],
        }

    def _spelled(self, candidate: Candidate) -> dict[str, Any]:
        start = self.starts.get(candidate.id)
        found: dict[str, Any] = {"peer_id": candidate.peer_id, "backend": candidate.lane.backend}
        if (word := word_of(candidate, start)) is not None:
            found["kind"] = word
        if start is not None or candidate.is_one_of_several:
            found |= {"offer": candidate.offer.id, "lane": candidate.lane.id}
        if start is not None:
            found["start"] = {
                "seconds": start.seconds,
                "under_way": start.is_under_way,
                "waiting": start.waiting,
                "workers": start.offer.workers,
                "owners": list(start.offer.owners),
                "plan": start.offer.plan,
            }
        return found

    def _kept(self, candidate: Candidate, terms: tuple[float, ...]) -> Assessment:
        return Assessment(
            **self._named(candidate),
            score=sum(terms),
            terms=dict(zip(self.term_names, terms, strict=True)),
            hot=candidate.id in self.hot,
            cached_tokens=self.request.cached_tokens.get(candidate.id, 0),
        )

    def _lost(self, candidate: Candidate, by: Filter) -> Assessment:
        return Assessment(
            **self._named(candidate),
            removed_by=by.name,
            reason=by.why(self.request, candidate, self.now),
        )

    def _named(self, candidate: Candidate) -> dict[str, Any]:
        start = self.starts.get(candidate.id)
        named: dict[str, Any] = {"peer_id": candidate.peer_id, "backend": candidate.lane.backend}
        named["kind"] = kind_of(candidate, start)
        if start is not None or candidate.is_one_of_several:
            named |= {"offer": candidate.offer.id, "lane": candidate.lane.id, "start": start}
        return named
