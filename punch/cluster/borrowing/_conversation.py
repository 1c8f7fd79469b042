"""A borrower's conversation with one worker: asks, and hears at any time that the lease has ended.

Questions are asked one after the other and answered in that order. A worker that says nothing in
time, says what it may not, or ends the stream, is told of by name, and nothing more is asked of it.
"""

from __future__ import annotations

from typing import TypeVar

import attrs
import trio

from ..._background import acquire_now
from ...exceptions import (
    PeerError,
    PeerFailed,
    PeerRefused,
    PeerTimeout,
    PeerUnreachable,
    RemoteProtocolError,
)
from ...wire import quoted
from .._lease_stream import LeaseStream
from ..leases import LeaseEnded, LeaseMessage, Refused

M = TypeVar("M", bound=LeaseMessage)

MAX_ENDINGS = 8
"""How often a worker may say, unasked, that a lease has ended: once, and once more for each
question that was on the way."""


@attrs.define(eq=False)
class _Question:
    """What waits for its answer."""

    answered: trio.Event = attrs.field(factory=trio.Event)
    answer: LeaseMessage | None = None


class Conversation:
    """One stream to a worker.

    Args:
      talk: The stream.

    """

    def __init__(self, talk: LeaseStream) -> None:
        self.over = trio.Event()
        """Set when the worker has ended the lease, and when nothing more can come."""
        self.why = ""
        """Why, in a sentence."""
        self.chain = b""
        """The worker's chain of grants, once it was judged."""
        self.is_own = False
        """Whether the worker is of our own owner: by that chain, and in an open namespace by being
        on this machine."""
        self._talk = talk
        self._peer_id = talk.peer_id
        self._asking = trio.Lock()
        self._question: _Question | None = None
        self._error: PeerError | None = None
        self._endings = 0

    async def listen(self) -> None:
        """Hear what the worker says, until it says nothing more."""
        try:
            while (message := await self._talk.receive()) is not None:
                self._hear(message)
            error: PeerError = PeerUnreachable("ended the conversation", peer_id=self._peer_id)
        except RemoteProtocolError as raised:
            error = PeerFailed(f"says what is no lease: {raised}", peer_id=self._peer_id)
        except PeerError as raised:
            error = raised
        self._fail(error)

    def _hear(self, message: LeaseMessage) -> None:
        if isinstance(message, LeaseEnded):
            self._end(f"the worker has ended the lease: {quoted(message.reason) or message.why}")
        question, self._question = self._question, None
        if question is not None:
            question.answer = message
            question.answered.set()
        elif isinstance(message, Refused):
            raise _refusal(self._peer_id, message)
        elif not isinstance(message, LeaseEnded) or self._endings == MAX_ENDINGS:
            raise RemoteProtocolError(f"{type(message).__name__} that nobody has asked for")
        else:
            self._endings += 1

    def _fail(self, error: PeerError) -> None:
        """Ask nothing more: every question has this answer."""
        if self._error is None:
            self._error = error
        self._end(error.message)
        if self._question is not None:
            self._question.answered.set()

    def _end(self, why: str) -> None:
        if not self.over.is_set():
            self.why = why
            self.over.set()

    async def ask(self, question: LeaseMessage, expected: type[M], *, seconds: float) -> M:
        """Ask, and wait for the answer.

        Raises:
          PeerRefused: if the worker refuses, or has ended the lease; `rule` is its word for why.
          PeerTimeout: if nothing comes within *seconds*.
          PeerUnreachable: if the stream has ended.
          PeerFailed: if something else is answered.

        """
        await acquire_now(self._asking)
        try:
            if self._error is not None:
                raise self._error
            waits = self._question = _Question()
            await self._talk.send(question)
            with trio.move_on_after(seconds) as patience:
                await waits.answered.wait()
        finally:
            self._question = None
            self._asking.release()
        if patience.cancelled_caught:
            name = type(question).__name__.lower()
            # What comes later would pass for the answer to another question.
            self._fail(
                PeerTimeout(f"has not answered {name} for {seconds:g} s", peer_id=self._peer_id)
            )
        answer = waits.answer
        if isinstance(answer, expected):
            return answer
        if answer is None:
            assert self._error is not None
            raise self._error
        if isinstance(answer, Refused):
            raise _refusal(self._peer_id, answer)
        if isinstance(answer, LeaseEnded):
            ended = PeerRefused(self.why, peer_id=self._peer_id)
            ended.rule = answer.why
            raise ended
        said = f"{type(question).__name__.lower()} with {type(answer).__name__.lower()}"
        raise PeerFailed(f"answers {said}", peer_id=self._peer_id)


def _refusal(peer_id: str, said: Refused) -> PeerRefused:
    error = PeerRefused(quoted(said.reason) or f"refuses: {said.rule}", peer_id=peer_id)
    error.rule = said.rule
    return error
