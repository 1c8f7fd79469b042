"""Makes the entries of the decision log from events. No I/O; the room's index has the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ..capability import ModelOffer, PeerId
from ..events import Answered, Event
from ..events import Attempted as AttemptedEvent
from ..events import Decided as DecidedEvent
from ..exceptions import CODES, CONNECTION_LOST
from ..peers import Candidate, PeerRecord
from ..routing import Decision, RouteRequest, Startable
from ..routing.kinds import Kind, best_of_kinds, kind_of, why_taken
from ..wire import Segment, Timings, Usage, bounded, short_word

LOG_VERSION = 1

# Peers of one decision that are written down: a screen of them, and a line of some 40 KB.
MAX_PEERS = 64

# A peer may claim thousands of models and GPUs; the one that is asked for is always kept.
MAX_MODELS = 4
MAX_GPUS = 8

# Parts of one answer that are written down; a request is tried fewer times than that.
MAX_SEGMENTS = 64


@attrs.frozen(kw_only=True)
class ScoredCandidate:
    """A candidate, as a decision saw it."""

    peer: PeerRecord
    """The snapshot; at most 4 of its models (those that were asked for among them) and 8 GPUs."""

    offer: str | None = None
    """The id of the offer, where its peer has several lanes."""

    lane: str | None = None
    """The id of the lane, where its peer has several."""

    terms: tuple[float, ...] = ()
    """The terms of its score, in the decision's unit, in the order of `Decided.term_names`."""

    hot: bool = False
    """The candidate was too busy to be preferred."""

    removed_by: str | None = None
    """Name of the filter that removed it, or `None` if it could be asked."""

    reason: str | None = None
    """That filter's reason, in a sentence."""

    start: Startable | None = None
    """What would have to be started for it, if it does not run."""

    kind: Kind | None = None
    """Where its model would run, whole or split; `None` if it offers nothing that was asked for,
    and in lines of before."""

    @property
    def score(self) -> float | None:
        """The sum of its terms; `None` if it was removed."""
        return sum(self.terms) if self.removed_by is None else None


@attrs.frozen(kw_only=True)
class Decided:
    """A peer was chosen, or none could be."""

    request_id: str
    """The request."""

    reason: str
    """Why a decision was needed: ``first``, ``failover``, ``continuation``, ``hedge`` or
    ``move``."""

    policy: str
    """Name of the policy."""

    unit: str
    """Unit of the terms, such as ``s``."""

    lowest_is_best: bool
    """How scores compare."""

    now: float
    """When it was decided, in seconds of the router's clock."""

    request: RouteRequest
    """The request as the policy saw it; `cached_tokens` of the peers below only."""

    term_names: tuple[str, ...] = ()
    """Names of the terms of a score."""

    chosen: PeerId | None = None
    """The best peer, if there was one."""

    chosen_lane: str | None = None
    """The id of its lane, where it has several."""

    weighed: tuple[ScoredCandidate, ...] = ()
    """The peers that were looked at: those that could be asked first, best first; at most 64."""

    left_out: int = 0
    """How many more peers were looked at."""

    explored: bool = False
    """The chosen one was not the best: it was asked in order to measure it."""

    taken: str = ""
    """Why the chosen one was taken and none of another kind, in a few words; empty where there is
    one kind only, and in lines of before."""

    def score_of(self, peer_id: PeerId | None) -> float | None:
        """The score of a peer, if it has one."""
        return next((w.score for w in self.weighed if w.peer.peer_id == peer_id), None)

    def term_of(self, peer_id: PeerId | None, name: str) -> float | None:
        """A term of a peer's score, if the policy and the peer have it."""
        if name not in self.term_names or self.score_of(peer_id) is None:
            return None
        terms = next(w.terms for w in self.weighed if w.peer.peer_id == peer_id)
        return terms[self.term_names.index(name)]


@attrs.frozen(kw_only=True)
class Attempted:
    """An attempt at one peer is over."""

    request_id: str
    """The request."""

    peer_id: PeerId
    """The peer that was asked."""

    lane: str | None = None
    """The id of its lane, where it has several."""

    reason: str
    """Why: see `Decided.reason`; or ``start``, if the request only waited for it to be started."""

    outcome: str
    """``success``, ``cancelled``, or the code of the error."""

    error: str | None = None
    """What went wrong, at most 300 characters."""

    seconds: float = 0.0
    """From asking it to its last word."""

    first_text: float | None = None
    """From asking it to its first text, in seconds; `None` if there was none."""

    tokens: int = 0
    """Tokens that it delivered."""

    characters: int = 0
    """Characters that it delivered."""


@attrs.frozen(kw_only=True)
class Ended:
    """The request is over."""

    request_id: str
    """The request."""

    status: str
    """See `CommandResponse.status`; ``error`` if there was no response."""

    error: str | None = None
    """What went wrong, at most 300 characters."""

    seconds: float = 0.0
    """From the question to the end."""

    first_text: float | None = None
    """From the question to the first text, in seconds; `None` if there was none."""

    executor: PeerId | None = None
    """The peer that ended the answer."""

    backend: str | None = None
    """Name of the backend that made the answer."""

    model: str | None = None
    """Name of the model that made the answer."""

    simulated: bool = False
    """A simulation made the answer, not a model."""

    finish_reason: str | None = None
    """See `Completion.finish_reason`."""

    usage: Usage = attrs.field(factory=Usage)
    """Tokens counted by the backend that ended it."""

    timings: Timings = attrs.field(factory=Timings)
    """Seconds spent by that backend."""

    segments: tuple[Segment, ...] = ()
    """Which peer delivered which part; at most 64."""

    key_id: str | None = None
    """Public id of the gateway's key that pays; `None` if there is none."""

    machine: PeerId | None = None
    """The machine whose grant the listeners saw, in a closed namespace."""


@attrs.frozen(kw_only=True)
class Dropped:
    """Lines are missing before this one: the disk was too slow, or did not take them."""

    count: int
    """Number of missing lines."""


# What was learned of a peer goes by the key of an offer, or by `None` for all of it: every mapping
# of a record but that of its lanes.
_LEARNED = tuple(
    field.name
    for field in attrs.fields(PeerRecord)
    if field.init and field.name != "lanes" and str(field.type).startswith("Mapping[")
)

Entry = Decided | Attempted | Ended | Dropped

KINDS: Mapping[str, type[Entry]] = {
    "decided": Decided,
    "attempted": Attempted,
    "ended": Ended,
    "dropped": Dropped,
}
KIND_OF = {kind: name for name, kind in KINDS.items()}


def decided(
    request_id: str, decision: Decision, *, reason: str, most_peers: int = MAX_PEERS
) -> Decided:
    """The entry for *decision*."""
    request = decision.request
    best = decision.order[:most_peers]
    others = decision.removed[: most_peers - len(best)]
    wanted: dict[PeerId, list[ModelOffer]] = {}
    for candidate in (*best, *(candidate for candidate, _ in others)):
        if candidate.is_offered:
            wanted.setdefault(candidate.peer_id, []).append(candidate.offer)

    def named(candidate: Candidate) -> dict[str, Any]:
        start = decision.start_of(candidate)
        several = start is not None or candidate.is_one_of_several
        return {
            "start": start,
            "kind": kind_of(candidate, start),
            "peer": _trimmed(candidate.peer, wanted.get(candidate.peer_id, ())),
            "offer": candidate.offer.id if several else None,
            "lane": candidate.lane.id if several else None,
        }

    kept = [
        ScoredCandidate(
            **named(candidate),
            terms=tuple(float(term) for term in terms),
            hot=candidate.id in decision.hot,
        )
        for candidate, terms in zip(best, decision.terms, strict=False)
    ]
    lost = [
        ScoredCandidate(
            **named(candidate),
            removed_by=by.name,
            reason=bounded(by.why(request, candidate, decision.now)),
        )
        for candidate, by in others
    ]
    weighed = (*kept, *lost)
    seen = {candidate.id for candidate in (*best, *(candidate for candidate, _ in others))}
    chosen = decision.chosen
    ways = best_of_kinds(weighed)
    taken = ""
    if chosen is not None and len(ways) > 1:
        start = kept[0].start
        taken = why_taken(
            kept[0],
            ways,
            unit=decision.unit,
            lowest_is_best=decision.lowest_is_best,
            explored=decision.explored,
            is_forced=start is not None and start.offer.is_forced,
        )
    return Decided(
        request_id=request_id,
        reason=reason,
        policy=decision.policy,
        unit=decision.unit,
        lowest_is_best=decision.lowest_is_best,
        now=decision.now,
        request=attrs.evolve(
            request,
            cached_tokens={p: n for p, n in request.cached_tokens.items() if p in seen},
        ),
        term_names=tuple(decision.term_names),
        chosen=None if chosen is None else chosen.peer_id,
        chosen_lane=None if not kept else kept[0].lane,
        weighed=weighed,
        left_out=len(decision.order) + len(decision.removed) - len(weighed),
        explored=decision.explored,
        taken=taken,
    )


def ended(event: Answered) -> Ended:
    """The entry for the end of a request: everything but the text."""
    made_by = event.provenance
    return Ended(
        request_id=event.request_id,
        status=event.status,
        error=_kept(event),
        seconds=event.seconds,
        first_text=event.first_text,
        segments=tuple(
            attrs.evolve(segment, reason=_known(segment.reason))
            for segment in event.segments[:MAX_SEGMENTS]
        ),
        executor=event.executor,
        backend=short_word(made_by.backend) if made_by else None,
        model=short_word(made_by.model) if made_by else None,
        simulated=made_by is not None and made_by.kind != "real",
        finish_reason=None if event.finish_reason is None else _known(event.finish_reason),
        usage=event.usage,
        timings=event.timings,
        key_id=event.key_id,
        machine=event.machine,
    )


def attempted(event: AttemptedEvent) -> Attempted:
    """The entry for an attempt."""
    return Attempted(
        request_id=event.request_id,
        peer_id=event.peer_id,
        lane=event.lane,
        reason=event.reason,
        outcome=event.outcome,
        error=_kept(event),
        seconds=event.seconds,
        first_text=event.first_text,
        tokens=event.tokens,
        characters=event.characters,
    )


# What a part of an answer may end with, beside the codes of errors.
_ENDS = frozenset(
    {"stop", "length", "tool_calls", "cancelled", "moved", "late", "success", CONNECTION_LOST}
)

_LEFT_OUT = "left out: it may have a peer's own words in it, which are not kept"


def _kept(event: AttemptedEvent | Answered) -> str | None:
    """What went wrong in our own words; the code beside it says what kind of error it was."""
    return _LEFT_OUT if event.quotes and event.error is not None else bounded(event.error)


def _known(reason: str) -> str:
    """A reason that we know; any other may be a peer's own words."""
    return reason if reason in _ENDS or reason in CODES else "other"


NOTED: tuple[type[Event], ...] = (DecidedEvent, AttemptedEvent, Answered)
"""The events that the decision log is made of."""


def entry_of(event: Event) -> Entry:
    """The entry for *event*, which is one of `NOTED`."""
    if isinstance(event, DecidedEvent):
        return decided(event.request_id, event.decision, reason=event.reason)
    if isinstance(event, AttemptedEvent):
        return attempted(event)
    assert isinstance(event, Answered), "the log subscribes to no other kind"
    return ended(event)


def _trimmed(peer: PeerRecord, wanted: Sequence[ModelOffer]) -> PeerRecord:
    """The same record, without models and GPUs beyond what a line can hold."""
    claim = peer.capability
    if len(claim.models) > MAX_MODELS:
        offers = claim.models[:MAX_MODELS]
        missing = [offer for offer in wanted if offer not in offers][:MAX_MODELS]
        if missing:
            offers = (*offers[: MAX_MODELS - len(missing)], *missing)
        claim = attrs.evolve(claim, models=offers)
    if len(claim.gpus) > MAX_GPUS:
        claim = attrs.evolve(claim, gpus=claim.gpus[:MAX_GPUS])
    # What was learned of models that are not written down is left out with them.
    names = {None, *(offer.key for offer in claim.models)}
    learned: dict[str, Any] = {
        name: {model: value for model, value in mapping.items() if model in names}
        for name in _LEARNED
        if not (mapping := getattr(peer, name)).keys() <= names
    }
    if claim is peer.capability and not learned:
        return peer
    return attrs.evolve(peer, capability=claim, **learned)
