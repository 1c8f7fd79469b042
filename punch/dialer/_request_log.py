"""Publishes what becomes of one request, without any of its text."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from ..capability import PeerId
from ..events import Answered, Attempted, Decided
from ..exceptions import PeerTimeout, PeerUnreachable, PunchError
from ..peers import Candidate
from ..routing import Decision, Reason
from ..wire import FINISH_REASONS, CommandRequest, CommandResponse, Segment, scrubbed
from ._attempt import Attempt
from ._delivered import Delivered
from ._dispatch import Dispatch
from ._outcome import Outcome

# Searching a peer's words for what it was asked takes a fifth of a second for a megabyte.
MAX_SEARCHED = 128 << 10


class RequestLog:
    """Publishes what happens to one request.

    Args:
      dispatch: It has the bus, and knows whose grant is shown.
      request: The request.
      delivered: What its caller has got.
      began: When it was asked, in seconds of trio's clock.
      key_id: The gateway's key that pays, if there is one.

    """

    def __init__(
        self,
        dispatch: Dispatch,
        request: CommandRequest,
        delivered: Delivered,
        *,
        began: float,
        key_id: str | None = None,
    ) -> None:
        self._events, self._pool = dispatch.events, dispatch.pool
        self._request = request
        self._delivered = delivered
        self._key_id = key_id
        self._began = began

    def decided(self, decision: Decision) -> None:
        """A peer was chosen, or none could be."""
        if self._events.wants(Decided):
            self._events.publish(
                Decided(
                    at=trio.current_time(),
                    request_id=self._request.request_id,
                    reason=decision.reason,
                    decision=decision,
                )
            )

    def not_asked(self, candidate: Candidate, reason: Reason, error: PunchError) -> None:
        """A peer was chosen and could not even be asked."""
        if self._events.wants(Attempted):
            self._events.publish(
                Attempted(
                    at=trio.current_time(),
                    request_id=self._request.request_id,
                    peer_id=candidate.peer_id,
                    lane=_lane(candidate),
                    reason=reason,
                    outcome=error.code,
                    error=self._scrubbed(error.message),
                    quotes=_quotes(error),
                )
            )

    def awaited(
        self, candidate: Candidate, *, outcome: str, error: str | None, seconds: float
    ) -> None:
        """The request has waited *seconds* for what was to be started for it."""
        if self._events.wants(Attempted):
            self._events.publish(
                Attempted(
                    at=trio.current_time(),
                    request_id=self._request.request_id,
                    peer_id=candidate.peer_id,
                    lane=candidate.lane.id,
                    reason="start",
                    outcome=outcome,
                    error=error,
                    seconds=seconds,
                )
            )

    def attempted(self, attempt: Attempt, outcome: Outcome, *, tokens: int | None = None) -> None:
        """An attempt has ended; *tokens* are those that its peer made, where it says so itself."""
        if not self._events.wants(Attempted):
            return
        first, error = attempt.first_text_at, outcome.error
        self._events.publish(
            Attempted(
                at=trio.current_time(),
                request_id=self._request.request_id,
                peer_id=attempt.peer_id,
                lane=_lane(attempt.candidate),
                reason=attempt.reason,
                outcome=outcome.status,
                error=None if error is None else self._scrubbed(error.message),
                quotes=_quotes(error),
                seconds=attempt.seconds,
                first_text=None if first is None else first - attempt.asked_at,
                tokens=attempt.tokens if tokens is None else tokens,
                characters=attempt.characters,
            )
        )

    def ended(
        self,
        *,
        error: PunchError | None,
        response: CommandResponse | None,
        is_abandoned: bool = False,
    ) -> None:
        """The request is over; nobody wanted its end if it *is_abandoned*."""
        if not self._events.wants(Answered):
            return
        status = "success" if error is None else error.code
        delivered, now = self._delivered, trio.current_time()
        first = delivered.first_text_at
        told: dict[str, Any] = {}
        if response is not None:
            result = response.result
            told = {
                "executor": response.executor,
                "provenance": response.provenance,
                "finish_reason": None if result is None else result.finish_reason,
                "usage": response.usage,
                "timings": response.timings,
            }
        self._events.publish(
            Answered(
                at=now,
                request_id=self._request.request_id,
                status="cancelled" if is_abandoned else status,
                error=None if error is None else self._scrubbed(str(error)),
                quotes=_quotes(error),
                seconds=now - self._began,
                first_text=None if first is None else first - self._began,
                segments=tuple(map(self._lean, delivered.segments)),
                key_id=self._key_id,
                machine=self._machine(),
                **told,
            )
        )

    def _machine(self) -> PeerId | None:
        """The machine whose grant is shown, in a closed namespace."""
        door = self._pool.door
        return None if door is None else door.machine(self._pool.peer_id)

    def _lean(self, segment: Segment) -> Segment:
        if segment.reason in FINISH_REASONS:
            return segment
        reason = self._scrubbed(segment.reason)
        return segment if reason == segment.reason else attrs.evolve(segment, reason=reason)

    def _scrubbed(self, words: str) -> str:
        """Words of a peer, without the caller's text: a backend may quote what it was asked."""
        request = self._request
        size = sum(len(message.content) for message in request.messages)
        size += len(request.prompt or "") + len(request.continuation or "")
        size += sum(map(len, (*request.inputs, *request.sampling.stop)))
        if size + self._delivered.characters > MAX_SEARCHED:
            return "its words are left out: the prompt is too long to be searched for in them"
        return scrubbed(words, request, self._delivered.text)


def _quotes(error: PunchError | None) -> bool:
    """Whether an error may have a peer's own words in it: all may but a few that are only ours."""
    if isinstance(error, PeerUnreachable) and error.why == "lost":
        return False
    return error is not None and not isinstance(error, PeerTimeout)


def _lane(candidate: Candidate) -> str | None:
    """The id of its lane, where the peer has several."""
    return candidate.lane.id if candidate.is_one_of_several else None
