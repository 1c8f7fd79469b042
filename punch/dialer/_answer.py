"""One reader of a run: what a caller holds."""

from __future__ import annotations

from types import TracebackType

from ..capability import PeerId
from ..routing import Attempt, Decision
from ..wire import CommandRequest, CommandResponse, Progress, Provenance, Segment
from ._runs import Made, Reading, Runs


class Answer:
    """An answer on its way. Made by `Router.answer`; iterate over it for the text.

    The loop of the router runs inside `receive`, in the task of whoever wants the answer:
    there is no other task to lose, and an answer nobody reads takes nothing in. Two answers to
    one request id read the same run, each from its beginning.
    """

    def __init__(
        self, runs: Runs, request: CommandRequest, *, keep: bool = True, scope: str = ""
    ) -> None:
        self.request = request
        self._runs = runs
        self._keep = keep
        self._scope = scope
        self._reading: Reading | None = None
        self._entered = False

    @property
    def response(self) -> CommandResponse:
        """The whole of it, once `receive` has returned `None`."""
        response = self._reading.run.response if self._reading is not None else None
        if response is None:
            raise RuntimeError("the answer is not complete; receive() it to its end first")
        return response

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Every decision made for it, in order."""
        return () if self._reading is None else tuple(self._reading.run.decisions)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The tries that failed, in order."""
        return () if self._reading is None else self._reading.run.attempts

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Who delivered which part, the one under way left out."""
        return () if self._reading is None else self._reading.run.segments

    @property
    def tokens(self) -> int:
        """Tokens of it so far, as those who made them count; at least one for each part."""
        return 0 if self._reading is None else self._reading.run.tokens

    @property
    def progress(self) -> Progress | None:
        """What its peer last said it waits for."""
        return None if self._reading is None else self._reading.run.progress

    @property
    def peer_id(self) -> PeerId | None:
        """Who works on it; at its end, who did last."""
        return None if self._reading is None else self._reading.run.peer_id

    @property
    def provenance(self) -> Provenance | None:
        """Where the text comes from, once there is some."""
        return None if self._reading is None else self._reading.run.provenance

    @property
    def made(self) -> Made | None:
        """What was made for this reader; `None` if that was done for another, or before.

        When a reader leaves that others have joined, what is made from then on is for the next.
        """
        return None if self._reading is None else self._reading.made

    @property
    def text(self) -> str:
        """What was received so far."""
        return "" if self._reading is None else self._reading.text

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> str:
        text = await self.receive()
        if text is None:
            raise StopAsyncIteration
        return text

    async def receive(self) -> str | None:
        """The next part of the text; `None` when the answer is complete.

        Only inside ``async with``: leaving that is what cancels an answer nobody wants.

        Raises:
          NetworkError: if nobody was ever met in the namespace, and why.
          RequestError: if the request itself is at fault.
          NoPeerAvailable: if nobody could answer; it has every peer with its reason.
          AnswerInterrupted: if the peer failed in the middle of the answer, and nobody could go
            on with it; it says how much was delivered.
          DeadlineExceeded: if the time ran out.

        """
        if not self._entered or self._reading is None:
            raise RuntimeError("an answer is received inside `async with router.answer(...)`")
        return await self._reading.receive()

    def receive_nowait(self) -> str | None:
        """As `receive`, but `None` if no text is there already. Raises nothing."""
        if not self._entered or self._reading is None:
            return None
        return self._reading.receive_nowait()

    async def __aenter__(self) -> Answer:
        self._reading = self._runs.join(self.request, keep=self._keep, scope=self._scope)
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered = False
        if self._reading is not None:
            self._reading.leave()
