"""How an attempt ended: one value, from which every book is kept.

What a peer says at its end is judged here: a success is checked against what was asked, and
whatever else it says becomes an error whose class says whose fault it is. Who is asked next is
not decided here.
"""

from __future__ import annotations

import attrs
import trio

from ..exceptions import (
    AnswerUnfit,
    ContextTooLong,
    PeerError,
    PeerFailed,
    PeerTimeout,
    PeerUnable,
    PunchError,
    RequestError,
)
from ..routing import GAVE_UP_DOUBT, OBJECTION_DOUBT, Attempts, objects
from ..wire import CommandResponse, Completion, believed
from ._attempt import Attempt
from ._delivered import Delivered
from ._verdict import check_fit, check_response

# How much earlier than we a listener may find that the time ran out, in seconds.
CLOCK_DIFFERENCE = 1.0


@attrs.frozen(kw_only=True)
class Outcome:
    """How one attempt ended."""

    status: str
    """For the log: ``success``, ``cancelled``, ``deadline``, or the code of the error."""

    reason: str
    """For the segment: why the peer delivers no more."""

    is_last: bool = False
    """True if the answer is whole with it; otherwise another peer has to deliver the rest."""

    error: PunchError | None = None
    """Why it failed, if it did: a failed attempt of this request."""

    fault: PeerError | None = None
    """What counts against the peer."""

    doubt: float = 0.0
    """What counts against it in part: a share of a fault."""

    response: CommandResponse | None = None
    """The peer's last word, if that was a success: what can be learned from."""


# The peer was given less time than there is now: somebody has joined who waits longer.
RAN_OUT = Outcome(status="deadline", reason="deadline")

# A stop sequence was found that neither of two peers could see: the answer ends there.
STOPPED = Outcome(status="success", reason="stop", is_last=True)


def lost(error: PunchError) -> Outcome:
    """The attempt failed: the peer's fault, or something else."""
    if isinstance(error, PeerError) and not objects(error):
        # It says by its own load and state when it can answer again, and nothing else was amiss.
        is_excused = isinstance(error, PeerFailed) and error.engine_restarts
        fault = None if is_excused else error
        return Outcome(status=error.code, reason=error.message, error=error, fault=fault)
    return Outcome(status=error.code, reason=error.code, error=error)


def dropped(attempt: Attempt) -> Outcome:
    """We stop it, for a reason of our own.

    That counts against the peer, in part, if it took far longer than it should have: one that
    promises much and runs each request into its deadline would be asked first for ever.
    """
    return Outcome(status="cancelled", reason="cancelled", doubt=attempt.doubt)


def given_up(attempt: Attempt) -> Outcome:
    """It is silent for longer than is usual, or far behind, and another could do better."""
    outcome = lost(PeerTimeout(_what_is_missing(attempt), peer_id=attempt.peer_id))
    if attempt.is_behind:
        # It does answer: how fast is learned, and its prediction may have been wrong.
        return attrs.evolve(outcome, fault=None, doubt=GAVE_UP_DOUBT)
    return outcome


def _what_is_missing(attempt: Attempt) -> str:
    """What a peer is silent about, in words."""
    if attempt.is_behind:
        tokens, seconds = attempt.tokens, attempt.decode_awaited
        return f"{tokens} tokens in {seconds:.1f} s; far fewer than predicted"
    silent = f"no text for {trio.current_time() - attempt.heard_at:.1f} s"
    if attempt.lateness.is_absent:
        silent += ", nor an answer to a ping"
    gap = attempt.usual_gap
    return silent if gap is None else f"{silent}; its usual gap is {1000 * gap:.0f} ms"


def ran_out(attempt: Attempt, attempts: Attempts, deadline: float) -> Outcome:
    """Its peer says that the time ran out, which is so for it, and by the *deadline* for all."""
    if trio.current_time() + CLOCK_DIFFERENCE < deadline:
        return RAN_OUT
    return attrs.evolve(lost(attempts.out_of_time()), doubt=attempt.doubt)


def finished(attempt: Attempt, response: CommandResponse, *, delivered: Delivered) -> Outcome:
    """The peer has said its last word: what it is worth.

    Args:
      attempt: The attempt that it ends.
      response: What the peer says.
      delivered: What the caller has got.

    """
    try:
        if response.status == "timeout":
            return _ran_out(attempt)
        check_response(
            response,
            request=attempt.request,
            candidate=attempt.candidate,
            before=attempt.provenance,
        )
        result = response.result or Completion()
        delivered.check_length(attempt.peer_id, result.text + result.reasoning)
        check_fit(attempt.request, result, attempt.text + result.text, peer_id=attempt.peer_id)
    except AnswerUnfit as error:
        return Outcome(status=error.code, reason=error.message, error=error)
    except RequestError as error:
        if not delivered.parts:
            return lost(error)
        # Another peer could: it is this one that cannot.
        unable = PeerUnable(str(error), param=error.param, peer_id=attempt.peer_id)
        doubt = 0.0 if isinstance(error, ContextTooLong) else OBJECTION_DOUBT
        return attrs.evolve(lost(unable), doubt=doubt)
    except PunchError as error:
        return lost(error)
    return Outcome(
        status="success",
        reason=result.finish_reason,
        is_last=True,
        response=_with_believed_tokens(attempt, response),
    )


def _ran_out(attempt: Attempt) -> Outcome:
    # Its clock runs as ours does, a little later: it cannot know much earlier than we.
    if trio.current_time() + CLOCK_DIFFERENCE < attempt.deadline:
        raise PeerFailed("says that the time ran out, and it did not", peer_id=attempt.peer_id)
    return RAN_OUT


def _with_believed_tokens(attempt: Attempt, response: CommandResponse) -> CommandResponse:
    """*response* without more tokens than the answer can have, and nothing that cannot be true."""
    response = believed(response, attempt.request)
    usage = response.usage
    if usage.completion_tokens is None:
        return response
    most = attempt.tokens + attempt.believed(usage.completion_tokens)
    if usage.completion_tokens <= most:
        return response
    return attrs.evolve(response, usage=attrs.evolve(usage, completion_tokens=most))
