"""What the decision log is told of one request, without any of its text."""

from __future__ import annotations

import attrs
import trio

from ..capability import PeerId
from ..decision_log import DecisionLog
from ..exceptions import PunchError
from ..routing import Decision, Reason
from ..wire import CommandRequest, CommandResponse, Segment, scrubbed
from ._attempt import Attempt
from ._delivered import Delivered
from ._outcome import Outcome

# Searching a peer's words for what it was asked takes a fifth of a second for a megabyte.
MOST_SEARCHED = 128 << 10


class RequestLog:
    """Writes down what happens to one request.

    Args:
      log: Where to; `None` for nowhere.
      request: The request.
      delivered: What its caller has got.

    """

    def __init__(
        self, log: DecisionLog | None, request: CommandRequest, delivered: Delivered
    ) -> None:
        self._log = log
        self._request = request
        self._delivered = delivered
        self._began = trio.current_time()

    def decided(self, decision: Decision) -> None:
        """A peer was chosen, or none could be."""
        if self._log is not None:
            self._log.decided(self._request.request_id, decision, reason=decision.reason)

    def not_asked(self, peer_id: PeerId, reason: Reason, error: PunchError) -> None:
        """A peer was chosen and could not even be asked."""
        if self._log is not None:
            self._log.attempted(
                self._request.request_id, peer_id=peer_id, reason=reason,
                outcome=error.code, error=self._scrubbed(error.message),
                seconds=0.0, first_text=None, tokens=0, characters=0,
            )  # fmt: skip

    def attempted(self, attempt: Attempt, outcome: Outcome, *, tokens: int | None = None) -> None:
        """An attempt has ended; *tokens* are those that its peer made, where it says so itself."""
        if self._log is None:
            return
        first, error = attempt.first_text_at, outcome.error
        self._log.attempted(
            self._request.request_id,
            peer_id=attempt.peer_id,
            reason=attempt.reason,
            outcome=outcome.status,
            error=None if error is None else self._scrubbed(error.message),
            seconds=attempt.seconds,
            first_text=None if first is None else first - attempt.asked_at,
            tokens=attempt.tokens if tokens is None else tokens,
            characters=attempt.characters,
        )

    def ended(
        self, status: str, *, error: PunchError | None, response: CommandResponse | None
    ) -> None:
        """It is over."""
        if self._log is None:
            return
        delivered = self._delivered
        first = delivered.first_text_at
        self._log.ended(
            self._request.request_id,
            status=status,
            error=None if error is None else self._scrubbed(str(error)),
            seconds=trio.current_time() - self._began,
            first_text=None if first is None else first - self._began,
            response=response,
            segments=[self._lean(segment) for segment in delivered.segments],
        )

    def _lean(self, segment: Segment) -> Segment:
        reason = self._scrubbed(segment.reason)
        return segment if reason == segment.reason else attrs.evolve(segment, reason=reason)

    def _scrubbed(self, words: str) -> str:
        """Words of a peer, without the caller's text: a backend may quote what it was asked."""
        request = self._request
        size = sum(len(message.content) for message in request.messages)
        size += len(request.prompt or "") + len(request.continuation or "")
        size += sum(map(len, (*request.inputs, *request.sampling.stop)))
        if size + self._delivered.characters > MOST_SEARCHED:
            return "its words are left out: the prompt is too long to be searched for in them"
        return scrubbed(words, request, self._delivered.text)
