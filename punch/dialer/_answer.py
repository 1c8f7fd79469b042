"""What a caller holds of its answer: its own place in a run that others may read as well."""

from __future__ import annotations

from types import TracebackType

import trio

from ..capability import PeerId
from ..routing import Decision, FailedAttempt
from ..wire import CommandRequest, CommandResponse, Progress, Provenance, Segment, Thought, Usage
from ._run import Run
from ._runs import Attribution, Runs, SharedRun

# Longer than any answer people wait for, short enough that nothing hangs for ever. Seconds.
DEFAULT_TIMEOUT = 300.0

# Readers wait this much longer than the run's own deadline, so that the run's more precise error
# reaches them first. Seconds.
AFTER_THE_RUN = 0.01


class Answer:
    """An answer on its way. Made by `Router.answer`; iterate over it for the text.

    The loop of the router runs inside `receive`, in the task of whoever wants the answer:
    there is no other task to lose, and an answer nobody reads takes nothing in. Two answers to
    one request id read the same run, each from its beginning.

    It says something about itself from the moment its ``async with`` is entered; what it knows
    then, it still says afterwards.
    """

    def __init__(
        self,
        runs: Runs,
        request: CommandRequest,
        *,
        keep: bool = True,
        scope: str = "",
        key_id: str | None = None,
    ) -> None:
        self.request = request
        self._runs = runs
        self._keep = keep
        self._scope = scope
        self._key_id = key_id
        self._deadline = 0.0
        self._position = 0
        self._shared: SharedRun | None = None
        # What was read can still be told when it is left.
        self._joined: Run | None = None

    @property
    def _run(self) -> Run:
        if self._joined is None:
            raise RuntimeError("an answer begins with `async with router.answer(...)`")
        return self._joined

    @property
    def response(self) -> CommandResponse:
        """The whole of it, once `receive` has returned `None`."""
        response = self._run.response
        if response is None:
            raise RuntimeError("the answer is not complete; receive() it to its end first")
        return response

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Every decision made for it, in order."""
        return tuple(self._run.books.decisions)

    @property
    def attempts(self) -> tuple[FailedAttempt, ...]:
        """The attempts that failed, in order."""
        return self._run.books.attempts.failed_attempts

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Which peer delivered which part, the one under way left out."""
        return tuple(self._run.books.delivered.segments)

    @property
    def tokens(self) -> int:
        """Tokens of it so far, as those who made them count; at least one for each part."""
        return self._run.books.delivered.counted

    @property
    def progress(self) -> Progress | None:
        """What its peer last said it waits for."""
        return self._run.progress

    @property
    def prompt(self) -> Usage:
        """The tokens of the prompt, as its peer counted them before any text came."""
        said = self._run.prompt
        if said is None:
            return Usage()
        return Usage(prompt_tokens=said.prompt_tokens, cached_tokens=said.cached_tokens)

    @property
    def peer_id(self) -> PeerId | None:
        """The peer that works on it; at its end, the one that did last."""
        return self._run.peer_id

    @property
    def provenance(self) -> Provenance | None:
        """Where the text comes from, once there is some."""
        run = self._run
        return (run.response or run.books.delivered).provenance

    @property
    def billed(self) -> Attribution | None:
        """What was made for this reader; `None` if that was done for another, or before.

        When a reader leaves that others have joined, what is made from then on is for the next.
        """
        shared = self._shared
        return None if shared is None or shared.billed_to is not self else shared.billed()

    @property
    def text(self) -> str:
        """What was received so far, without what was thought."""
        parts = self._run.parts[: self._position]
        return "".join(part for part in parts if type(part) is not Thought)

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> str:
        text = await self.receive()
        if text is None:
            raise StopAsyncIteration
        return text

    async def receive(self) -> str | None:
        """The next part of the text; `None` when the answer is complete.

        What the model thinks is passed over.

        Raises:
          PunchError: as `receive_part`.

        """
        while type(part := await self.receive_part()) is Thought:
            pass
        return part

    async def receive_part(self) -> str | None:
        """The next part of the text, or of what the model thinks; `None` at the end.

        What is thought is a `Thought`, and no part of the answer.

        Only inside ``async with``: leaving that is what cancels an answer nobody wants.

        Raises:
          NetworkError: if nobody was ever met in the namespace, and why.
          RequestError: if the request itself is at fault.
          NoPeerAvailable: if nobody could answer; it has every peer with its reason.
          AnswerInterrupted: if the peer failed in the middle of the answer, and nobody could go
            on with it; it says how much was delivered.
          DeadlineExceeded: if the time ran out.

        """
        shared = self._reading
        text = self._next(shared)
        if text is not None:
            return text
        run = shared.run
        if not run.is_over:
            await shared.advance(self._position, until=self._deadline + AFTER_THE_RUN)
            text = self._next(shared)
        if text is None and run.error is not None:
            raise run.error
        return text

    async def complete(self) -> CommandResponse:
        """Wait for the whole answer, of which nothing is to be received any more.

        Raises:
          PunchError: as `receive_part`.

        """
        shared = self._reading
        run = shared.run
        while not run.is_over:
            await shared.advance(len(run.parts), until=self._deadline + AFTER_THE_RUN)
        self._position = len(run.parts)
        if run.error is not None:
            raise run.error
        return self.response

    def receive_nowait(self) -> str | None:
        """As `receive`, but without waiting.

        Raises:
          trio.WouldBlock: as `receive_part_nowait`.

        """
        while type(part := self.receive_part_nowait()) is Thought:
            pass
        return part

    def receive_part_nowait(self) -> str | None:
        """As `receive_part`, but without waiting.

        Raises:
          trio.WouldBlock: if nothing is there already, and the answer is not over. What went
            wrong with an answer that is over is raised by `receive_part`.

        """
        text = self.part_there()
        if text is None and self._run.response is None:
            raise trio.WouldBlock
        return text

    def part_there(self) -> str | None:
        """The next part, if it is there already; `None` if it is not, or at the end."""
        return self._next(self._reading)

    @property
    def _reading(self) -> SharedRun:
        if self._shared is None:
            raise RuntimeError("an answer is received inside `async with router.answer(...)`")
        return self._shared

    def _next(self, shared: SharedRun) -> str | None:
        run, position = shared.run, self._position
        parts = run.parts
        if position >= len(parts):
            if run.is_over:
                return None
            shared.advance_nowait()
            if position >= len(parts):
                return None
        self._position = position + 1
        return parts[position]

    async def __aenter__(self) -> Answer:
        now = trio.current_time()
        self._deadline = now + (self.request.timeout or DEFAULT_TIMEOUT)
        shared = self._runs.join(
            self,
            self.request,
            deadline=self._deadline,
            now=now,
            keep=self._keep,
            scope=self._scope,
            key_id=self._key_id,
        )
        self._shared, self._joined = shared, shared.run
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            self._runs.leave(self, shared)
