"""Runs a llama.cpp program once: reads its answer while it is printed, and ends the program.

Whether what was printed is all, and what it means, is decided by `_cli`.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from ..._background import open_background
from ..._logs import get_logger
from ...exceptions import BackendCrashed, GenerationFailed
from ...processes import Child, LastLines, open_child
from .._base import Emit
from .._stop import StopMatcher
from ._cli_output import Output

log = get_logger(__name__)

# After a stop sequence the program is interrupted and prints its account; then it is killed.
_ACCOUNT_SECONDS = 1.0


class Run:
    """A single run of a program.

    Args:
      output: Takes the answer out of what the program prints.
      stop: Finds the stop sequences of the request.
      emit: Where the answer is passed on.
      first_seconds: How long the program may print nothing.
      passed: What an earlier run has passed on: this one must begin with it, and only what comes
        after it is passed on.

    """

    def __init__(
        self,
        output: Output,
        stop: StopMatcher,
        emit: Emit,
        *,
        first_seconds: float,
        passed: str,
    ) -> None:
        self.first_after: float | None = None
        """Seconds from its start to its first word."""
        self.code = 0
        """Exit code once the program has ended; below 0 it is a signal."""
        self.lines: tuple[str, ...] = ()
        """The last lines on standard error."""
        self._silence = first_seconds
        self._output = output
        self._stop = stop
        self._emit = emit
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._parts: list[str] = []
        self._passed = passed
        self.reason: str | None = None
        """Why the answer ended, if the program said so."""

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._parts)

    @property
    def unsaid(self) -> str:
        """What an earlier run has passed on and this one has not said."""
        return self._passed

    @property
    def stop(self) -> str | None:
        """The stop sequence that ended the answer."""
        return self._stop.found

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence ended the answer."""
        return self._stop.stopped

    async def run(self, argv: Sequence[str], *, interrupt: bool) -> None:
        """Run *argv* to its end; pass on what of its answer is certain.

        After a stop sequence the program is killed; with *interrupt* it is first interrupted, so
        that it prints what it has counted.

        Raises:
          GenerationFailed: if it says something else than the earlier run.

        """
        lines = LastLines()
        # No grace: a cancelled answer must be gone within 100 ms, and there is nothing to save.
        async with open_child(argv, env={}, grace=0.0) as process, open_background() as nursery:
            assert process.stderr is not None
            logged = trio.Event()
            nursery.start_soon(_read_log, lines, process.stderr, logged)
            await self._read(process.stdout, Path(argv[0]).name)
            if not self.stopped:
                await process.wait()
            elif interrupt:
                with trio.move_on_after(_ACCOUNT_SECONDS):
                    await _interrupt(process)
                    await process.wait()
            if process.returncode is not None:
                with trio.move_on_after(_ACCOUNT_SECONDS):
                    await logged.wait()
            self.code, self.lines = process.returncode or 0, lines.lines

    async def finish(self) -> None:
        """Pass on what was held back: what may be an ending or a part of one.

        Not before it is known whether the end of the answer was lost, for then a second run says
        what this was.
        """
        if self.stopped:
            return
        rest, self.reason = self._output.finish()
        await self._pass(self._decode(rest, True))
        if not self.stopped:
            await self._deliver(self._stop.finish())

    async def _read(self, stdout: trio.abc.ReceiveStream, name: str) -> None:
        began = trio.current_time()
        while True:
            with trio.move_on_after(self._silence) as patience:
                data = await stdout.receive_some()
            if patience.cancelled_caught:
                # Leaving kills it, with all that it has started.
                why = f"printed nothing for {self._silence:.0f} s"
                log.warning("an engine is stuck and is killed", engine=name, why=why)
                raise BackendCrashed(f"{name} {why} and was killed", engine_died=True)
            if not data:
                break
            if self.first_after is None:
                self.first_after = trio.current_time() - began
            await self._pass(self._decode(self._output.feed(data)))
            if self.stopped:
                return

    async def _pass(self, text: str) -> None:
        if text:
            await self._deliver(self._stop.feed(text))

    async def _deliver(self, text: str) -> None:
        self._parts.append(text)
        known, self._passed = self._passed[: len(text)], self._passed[len(text) :]
        if not text.startswith(known):
            raise GenerationFailed(
                "the end of an answer was lost, and a second run began otherwise"
            )
        if text := text[len(known) :]:
            # The programs print token by token, and pipes keep that, more or less.
            await self._emit(text, 1)


async def _read_log(log: LastLines, stderr: trio.abc.ReceiveStream, done: trio.Event) -> None:
    await log.read(stderr)
    done.set()


async def _interrupt(process: Child) -> None:
    """Make the program stop and print what it has counted."""
    if sys.platform == "win32":
        return
    process.interrupt()
    async for _ in process.stdout:  # Or the program would block on a full pipe.
        pass
