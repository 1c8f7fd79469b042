# What it means that peers object to a request, without any I/O.
#
# Rule 1: an objection is a peer's word. It ends the request only if a second peer says the same, or
# if there is no other peer that could be asked, now or in a moment.
#
# Rule 2: where a prompt does not fit, a larger context is asked first; a second peer is asked only
# where there is none. So a request that really is wrong costs one try more than it has to.
#
# Rule 3: what a peer cannot do is its own limit, and each peer may have another one. The caller
# hears of limits where nobody is left, in the words of the peer with the largest context.
"""The tries of a request that failed, and whether it is the request that is at fault."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ..capability import PeerId
from ..exceptions import (
    ContextTooLong,
    InvalidRequest,
    NoPeerAvailable,
    NoRealPeer,
    PeerFailed,
    PeerRefused,
    PeerSimulated,
    PeerUnable,
    PeerUnreachable,
    PunchError,
    RequestError,
    UnknownModel,
)
from ..peers import ANSWERING, RESTS, Candidate, candidate_id
from ._decision import Decision
from ._filters import exceeded

# So many peers that say the same of a request are believed.
ENOUGH_WITNESSES = 2

# What an objection says against the peer that made it, once another peer has taken the request:
# this share of a fault. Two in a row, with no answer between them, are one. Less would let a peer
# that objects to everything have many requests; more would shut out a good one for a single
# request that only its backend does not know.
OBJECTION_DOUBT = 0.5

# The same for a limit and for a refusal, of which each peer has its own: ten in a row.
LIMIT_DOUBT = 0.1

# Models that an error names.
MAX_NAMED_MODELS = 32

# Filters that leave out peers which the caller does not want to be asked.
WISHED = frozenset({"only", "privacy"})

# Filters that say why a candidate cannot be asked now, and may be in a moment.
FOR_NOW = frozenset({"fresh", "state", "breaker", "resting", "slots"})


@attrs.frozen(kw_only=True)
class Presence:
    """One stay of a peer: who it was, and how it was reached."""

    incarnation: int
    """Grows each time the peer starts."""

    session: object
    """The session; only compared."""


@attrs.frozen(kw_only=True)
class FailedAttempt:
    """One try that failed."""

    peer_id: PeerId
    """Who was asked."""

    error: PunchError
    """What went wrong."""

    seconds: float
    """How long it took."""

    presence: Presence | None = None
    """What it was asked on."""

    offer: str | None = None
    """The id of the offer that was asked for, where it has one."""

    context_tokens: int | None = None
    """The context of that offer, in tokens, as its peer claims."""

    @property
    def engine_died(self) -> bool:
        """Whether the peer says that its engine died while it worked at the request."""
        return isinstance(self.error, PeerFailed) and self.error.engine_died

    @property
    def engine_restarts(self) -> bool:
        """Whether the peer says that its engine is being started again, and is not at fault."""
        return isinstance(self.error, PeerFailed) and self.error.engine_restarts

    @property
    def excludes(self) -> str:
        """What is not asked again for it: the offer, or the whole peer.

        A backend that fails, refuses or is silent says nothing of its peer's other lanes. A
        connection that broke does, and so does a lie; and a request that may have killed one
        engine of a machine is not tried on its others.
        """
        if self.engine_died or isinstance(self.error, PeerUnreachable | PeerSimulated):
            return self.peer_id
        return candidate_id(self.peer_id, self.offer)


def objects(error: PunchError) -> bool:
    """Whether *error* is a peer's word that it is the request that cannot be served."""
    if isinstance(error, PeerRefused):
        return isinstance(error, PeerUnable) or error.param is not None
    return isinstance(error, RequestError)


def doubt_of(error: PunchError, *, asked: Candidate, answered: Candidate) -> float:
    """What *error* says against the candidate that was *asked*, when another one *answered*.

    Returns a share of a fault; 0 for what counts by itself, such as a fault.
    """
    if isinstance(error, ContextTooLong):
        had, needed = asked.offer.context_tokens, answered.offer.context_tokens
        is_odd = had is not None and needed is not None and needed <= had
        return OBJECTION_DOUBT if is_odd else LIMIT_DOUBT
    if isinstance(error, RequestError):
        return OBJECTION_DOUBT
    if not isinstance(error, PeerRefused):
        return 0.0
    load = asked.load
    is_full = load.busy + load.queued >= load.slots + load.queue_limit
    # One that is full, and says so, has a reason.
    return 0.0 if is_full and not objects(error) else LIMIT_DOUBT


def whom_next(failed: Sequence[FailedAttempt], left: Sequence[Candidate]) -> Candidate | None:
    """Whom to ask of those that are *left*, best first; `None` if the *failed* ones suffice."""
    if not left:
        return None
    of_context = [one for one in failed if isinstance(one.error, ContextTooLong)]
    others = [one for one in failed if _says_it_is_wrong(one.error)]
    if not of_context and not others:
        return left[0]
    if others and _are_enough(others, left):
        return None
    if of_context:
        most = max(one.context_tokens or 0 for one in of_context)
        larger = [one for one in left if (one.offer.context_tokens or 0) > most]
        if larger:
            return larger[0]
        if _are_enough(of_context, left):
            return None
        left = [one for one in left if one.offer.context_tokens is None] or left
    return _witness(failed, left)


def agreed(failed: Sequence[FailedAttempt]) -> PunchError | None:
    """What two peers say of the request, in the better one's words; `None` if no two agree."""
    for kind in (_says_it_is_wrong, _is_of_context):
        said = [one for one in failed if kind(one.error)]
        if len({one.peer_id for one in said}) >= ENOUGH_WITNESSES:
            return _in_the_best_words(said)
    return None


def is_worth_a_wait(failed: Sequence[FailedAttempt], decision: Decision) -> bool:
    """Whether a peer that cannot be asked just now may do what others say cannot be done."""
    said = [one for one in failed if objects(one.error)]
    if not said:
        return False
    most = max(one.context_tokens or 0 for one in said)
    is_of_context = all(_is_of_context(one.error) for one in said)
    asked = {one.peer_id for one in said}
    for candidate, by in decision.removed:
        if by.name not in FOR_NOW or candidate.peer_id in asked or _is_out(candidate):
            continue
        context = candidate.offer.context_tokens
        if not is_of_context or context is None or context > most:
            return True
    return False


def what_it_comes_to(failed: Sequence[FailedAttempt], decision: Decision) -> PunchError | None:
    """The objection that the caller hears, now that nobody is asked any more; `None` if none."""
    if not failed:
        return None
    heard = agreed(failed)
    if heard is not None:
        return heard
    if not all(objects(one.error) for one in failed) or is_worth_a_wait(failed, decision):
        return None
    return _in_the_best_words(failed)


def words_of(failed: Sequence[FailedAttempt]) -> dict[PeerId, str]:
    """What went wrong at each peer that failed."""
    return {attempt.peer_id: attempt.error.message for attempt in failed}


def least_wait(failed: Sequence[FailedAttempt]) -> float | None:
    """Seconds after which a peer that failed may do better, where one has said so."""
    waits = [a.error.retry_after for a in failed if a.error.retry_after is not None]
    return min(waits, default=None)


def reasons_of(
    failed: Sequence[FailedAttempt], decision: Decision
) -> tuple[dict[PeerId, str], set[str | None]]:
    """Why each peer did not answer, and the filters that removed those which were not asked."""
    reasons = words_of(failed)
    candidates = [c for c in decision.candidates() if c.peer_id not in reasons]
    for candidate in candidates:
        why = candidate.reason or "was not tried"
        if candidate.lane is not None:
            why = f"{candidate.lane}: {why}"
        if candidate.peer_id in reasons:
            why = f"{reasons[candidate.peer_id]}; {why}"
        reasons[candidate.peer_id] = why
    return reasons, {candidate.removed_by for candidate in candidates}


def nobody(failed: Sequence[FailedAttempt], decision: Decision) -> PunchError:
    """The error for a request that nobody could answer, with the reason of each peer."""
    reasons, removed_by = reasons_of(failed, decision)
    failures = {type(attempt.error) for attempt in failed}
    error: NoPeerAvailable
    if not reasons:
        error = NoPeerAvailable("no listener is known in this namespace")
    elif decision.request.strict and removed_by <= {"strict"} and failures <= {PeerSimulated}:
        error = NoRealPeer("strict mode takes real inference only, and nobody offers it", reasons)
    elif "caps" in removed_by <= {"caps", "model", *WISHED} and (over := _over_caps(decision)):
        return over
    elif removed_by == {"model"} and not failures:
        error = UnknownModel(_what_is_on_offer(decision), reasons)
    else:
        error = NoPeerAvailable("no listener could answer", reasons)
    error.retry_after = least_wait(failed) or _opens_in(decision) or _starts_in(decision)
    return error


def _opens_in(decision: Decision) -> float | None:
    """Seconds until the hours begin at which one of the peers answers us, if that is all it is."""
    closed = [one.lane.closed_for for one, by in decision.removed if by.name == "state"]
    return min((seconds for seconds in closed if seconds is not None), default=None)


def _starts_in(decision: Decision) -> float | None:
    """Seconds after which something is started again that could not be."""
    waits = [start.retry_after for start in decision.starts.values()]
    return min((seconds for seconds in waits if seconds is not None), default=None)


def _over_caps(decision: Decision) -> InvalidRequest | None:
    """What the request asks for beyond the caps of all who have the model, by the first of them."""
    for candidate, by in decision.removed:
        broken = exceeded(decision.request, candidate) if by.name == "caps" else None
        if broken is not None:
            field, rule = broken
            return InvalidRequest(
                f"{field} {rule}, and nobody who has the model takes more: ask for less, or have "
                "the owner of a listener allow more",
                param=field,
            )
    return None


def _what_is_on_offer(decision: Decision) -> str:
    request = decision.request
    hindered = {key for key, start in decision.starts.items() if start.why_not is not None}
    offered = {
        offer.name
        for one, _ in decision.removed
        for offer in one.peer.capability.models
        if candidate_id(one.peer_id, offer.id) not in hindered
    }
    if request.ambiguous:
        names = ", ".join(request.ambiguous[:MAX_NAMED_MODELS])
        return f"{request.model!r} may mean several models; name one: {names}"
    wanted = "no listener offers " + (repr(request.model) if request.model else "a model")
    if request.model_digest is not None:
        wanted += f" with digest {request.model_digest}"
    return f"{wanted}; on offer: {', '.join(sorted(offered)) or 'none'}"


def _is_out(candidate: Candidate) -> bool:
    """Whether it will not be back in a moment."""
    return candidate.load.draining or candidate.lane.state not in (*ANSWERING, RESTS)


def _in_the_best_words(said: Sequence[FailedAttempt]) -> PunchError:
    best = max(said, key=lambda one: one.context_tokens or 0)
    error = best.error
    if isinstance(error, ContextTooLong) and error.context_tokens is None:
        error.context_tokens = best.context_tokens
    if isinstance(error, PeerRefused):
        return InvalidRequest(error.message, param=error.param)
    return error


def _says_it_is_wrong(error: PunchError) -> bool:
    return isinstance(error, RequestError) and not isinstance(error, ContextTooLong)


def _is_of_context(error: PunchError) -> bool:
    return isinstance(error, ContextTooLong)


def _are_enough(said: Sequence[FailedAttempt], left: Sequence[Candidate]) -> bool:
    """Whether nobody else has to be heard: by peers, since the lanes of one speak for one."""
    peers = {one.peer_id for one in said}
    if len(peers) >= ENOUGH_WITNESSES:
        return True
    return len(said) >= ENOUGH_WITNESSES and all(one.peer_id in peers for one in left)


def _witness(failed: Sequence[FailedAttempt], left: Sequence[Candidate]) -> Candidate:
    """Whose word is worth most: another peer's, and one's that has answered and is well."""
    heard = {one.peer_id for one in failed}
    others = [one for one in left if one.peer_id not in heard] or left
    known = [one for one in others if one.offer.key in one.peer.rates and not one.peer.breakers]
    return (known or others)[0]
