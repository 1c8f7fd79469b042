"""The books of one request: what happened is written in each of them, once.

`Run` says what happened; who has to know it is said here: the tries of this request, the text it
has delivered, the peer table and what is learned for later ones, and the decision log.
"""

from __future__ import annotations

from typing import Any

import trio

from .._logs import get_logger
from ..exceptions import PeerError, PeerRefused, PunchError
from ..peers import MIN_TOKENS, Candidate
from ..routing import Attempts, Decision, FailedAttempt, Presence, Reason, doubt_of, objects
from ..wire import Chunk, CommandRequest, CommandResponse, Completion, Reasoning
from ._attempt import Attempt
from ._delivered import Delivered
from ._dispatch import Dispatch
from ._outcome import Outcome
from ._request_log import RequestLog
from ._speed import sample_of

log = get_logger(__name__)


class Books:
    """What is written down of one request.

    Args:
      dispatch: What the answers of a dialer share.
      request: What the caller asked for.
      deadline: When the caller gives up, in seconds of trio's clock.
      now: When it is asked, by the same clock.
      key_id: The gateway's key that pays, if there is one.

    """

    def __init__(
        self,
        dispatch: Dispatch,
        request: CommandRequest,
        *,
        deadline: float,
        now: float,
        key_id: str | None = None,
    ) -> None:
        self.attempts = Attempts(deadline=deadline, continuable=request.continuable)
        """The tries that failed, and what to do next."""
        self.delivered = Delivered(request)
        """What the caller has got."""
        self.log = RequestLog(dispatch, request, self.delivered, began=now, key_id=key_id)
        """Where it is published."""
        self.decisions: list[Decision] = []
        """Every decision that led to a try, or to giving up, in order."""
        self._said_no: list[tuple[Candidate, PunchError]] = []
        self.request, self.deadline = request, deadline
        """What is asked, and when its first caller gives up."""
        self._dispatch = dispatch
        self._request_id = request.request_id

    def decided(self, decision: Decision) -> None:
        """A decision led to a try, or to giving up."""
        self.decisions.append(decision)
        self.log.decided(decision)

    def heard(self, attempt: Attempt, part: Chunk | Reasoning, now: float) -> None:
        """A peer has sent a part, of which the caller gets what is certain to be its answer's."""
        self.delivered.begins(now)
        if type(part) is Reasoning:
            # No stop sequence is looked for in what is thought.
            self.thought(attempt, part.text, part.tokens, now)
            return
        text, tokens = attempt.heard(part.text, part.tokens, now)
        if text:
            self.delivered.check_length(attempt.peer_id, text)
            self.text(attempt, text, tokens)

    def text(self, attempt: Attempt, text: str, tokens: int) -> None:
        """A peer has delivered *text*, and the caller has it."""
        if self._said_no:
            self._was_taken_by(attempt.candidate)
        self.delivered.append(attempt, text, tokens)
        self.attempts.delivered(tokens=tokens, characters=len(text), digest=self.delivered.digest)

    def thought(self, attempt: Attempt, text: str, tokens: int, now: float) -> None:
        """A peer has told what it thinks, and the caller has it: no part of the answer."""
        if self._said_no:
            self._was_taken_by(attempt.candidate)
        self.delivered.check_length(attempt.peer_id, text)
        self.delivered.think(attempt, text, tokens, now)

    def not_asked(self, candidate: Candidate, reason: Reason, error: PeerError) -> None:
        """A candidate was chosen and could not even be asked."""
        self._failed(candidate, error, seconds=0.0, session=None)
        self._dispatch.failed(candidate, error, asked_at=trio.current_time())
        self.log.not_asked(candidate, reason, error)

    def ended(self, attempt: Attempt, outcome: Outcome, now: float) -> None:
        """An attempt is over *now*: its peer is told so, if that did not end it itself.

        Raises `EnginesDied` where that ends the request, also if another peer works on it: its
        engine would be the third.
        """
        dispatch, candidate = self._dispatch, attempt.candidate
        attempt.call.cancel()
        if outcome.response is None:
            dispatch.ended(candidate, session_number=attempt.session_number)
        if outcome.error is not None:
            session = attempt.call.session
            seconds = now - attempt.asked_at
            self._failed(candidate, outcome.error, seconds=seconds, session=session)
            is_unread = objects(outcome.error) or isinstance(outcome.error, PeerRefused)
            if is_unread and attempt.is_quiet:
                dispatch.learned.refused(attempt.request, candidate.id)
            if doubt_of(outcome.error, asked=candidate, answered=candidate):
                self._said_no.append((candidate, outcome.error))
        if outcome.doubt:
            dispatch.doubted(candidate, outcome.doubt)
            if attempt.is_behind:
                # It cannot have been faster than with so many; fewer would teach nothing.
                dispatch.table.slowed(
                    candidate.peer_id,
                    candidate.offer.key,
                    tokens=max(attempt.tokens, MIN_TOKENS),
                    seconds=attempt.decode_awaited,
                )
        if outcome.fault is not None:
            dispatch.failed(candidate, outcome.fault, asked_at=attempt.asked_at)
        if outcome.response is not None:
            self._was_taken_by(candidate)
            dispatch.answered(
                attempt.request,
                candidate,
                outcome.response,
                session_number=attempt.session_number,
                text=attempt.text,
                sample=sample_of(attempt, outcome.response, now=now),
                now=now,
            )
        if outcome.is_last:
            self.delivered.close_segment(attempt, outcome.reason, now=now)
        else:
            self.delivered.hand_over(attempt, outcome.reason, now=now)
        if outcome.status == "cancelled":
            # What it had made by then, it says when it has stopped.
            dispatch.when_stopped(
                attempt.call,
                lambda tokens: self.log.attempted(attempt, outcome, tokens=tokens),
            )
        else:
            self.log.attempted(attempt, outcome)
        if outcome.error is not None:
            self.attempts.check_deaths()

    def _was_taken_by(self, candidate: Candidate) -> None:
        """A candidate answers the request: what others had against it is held against them."""
        for asked, error in self._said_no:
            weight = doubt_of(error, asked=asked, answered=candidate)
            self._dispatch.doubted(asked, weight)
        self._said_no.clear()

    def finished(self, attempt: Attempt, outcome: Outcome, now: float) -> CommandResponse:
        """The last attempt is a success: its last text is delivered, and the answer is whole."""
        response = outcome.response
        assert response is not None, "a success comes with a response"
        result = response.result or Completion()
        attempt.provenance = response.provenance
        if result.reasoning and not attempt.thought_bytes:
            # A peer that tells it with its last word only.
            self.thought(attempt, result.reasoning, 0, now)
        text, tokens = attempt.last_heard(result.text, response.usage.completion_tokens)
        if text:
            self.text(attempt, text, tokens)
        else:
            attempt.delivered("", tokens)
        self._tell_of_simulation(attempt)
        self.ended(attempt, outcome, now)
        return self.delivered.whole(response, result, **self._story())

    def _tell_of_simulation(self, attempt: Attempt) -> None:
        """Log once that answers are made up, if this one is: each says so itself, too."""
        made_by = attempt.provenance
        if made_by is None or made_by.kind != "simulated" or self._dispatch.has_simulated:
            return
        self._dispatch.has_simulated = True
        log.warning(
            "an answer is simulated: no model has made it; strict mode takes real inference only",
            request_id=self._request_id,
            backend=made_by.backend,
        )

    def ended_by(
        self, last: Attempt | None, finish_reason: str, stop: str | None = None
    ) -> CommandResponse:
        """The response for an answer that nobody has to be asked about any more."""
        result = Completion(finish_reason=finish_reason, stopped_by=stop)
        return self.delivered.ended_by(last, result, **self._story())

    def _failed(
        self, candidate: Candidate, error: PunchError, *, seconds: float, session: object
    ) -> None:
        # Not what a peer says of it, which may quote the prompt.
        log.info(
            "an attempt failed",
            request_id=self._request_id,
            peer=candidate.peer_id,
            why=error.code,
            seconds=round(seconds, 3),
        )
        self.attempts.failed(
            candidate.peer_id,
            error,
            seconds=seconds,
            presence=Presence(incarnation=candidate.peer.incarnation, session=session),
            offer=candidate.offer.id,
            context_tokens=candidate.offer.context_tokens,
        )

    def _story(self) -> dict[str, Any]:
        return {
            "decision": self.decisions[-1].as_dict(),
            "attempts": tuple(_as_dict(attempt) for attempt in self.attempts.failed_attempts),
        }


def _as_dict(attempt: FailedAttempt) -> dict[str, Any]:
    return {
        "peer_id": attempt.peer_id,
        "error": attempt.error.code,
        "reason": str(attempt.error),
        "seconds": attempt.seconds,
    }
