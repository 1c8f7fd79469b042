"""The carrier's process as its parent has it: started when it is needed, heard, killed if stuck.

What the two say to each other is in `direct._process`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import trio

from .._logs import get_logger
from ..exceptions import NetworkError
from ..processes import Child, LastLines, describe_exit, start_child

log = get_logger(__name__)

# The facade imports the rooms of a dialer, which no byte needs: here the package is a name alone.
# That is half of the start and ten megabytes.
_START: Final = """\
import sys, types
sys.modules["punch"] = punch = types.ModuleType("punch")
punch.__path__ = [sys.argv[1]]
from punch.tunnels.direct._process import main
main()
"""
_COMMAND: Final = (sys.executable, "-c", _START, str(Path(__file__).parents[1]))

# It tells once a second that it lives. One that is stopped carries nothing.
_SILENCE_SECONDS: Final = 6.0
_LOOK_SECONDS: Final = 0.5

# What waits to be said to it, which reads at all times.
_MAX_WAITING_LINES: Final = 1000
_MAX_LINE_BYTES: Final = 64 << 10

# It starts as any Python program does; a machine that is busy takes long.
_START_SECONDS: Final = 30.0


class CarrierChild:
    """Runs the process; one that has ended is started again by `ensure`.

    Args:
      nursery: What its tasks run in.
      first: What every new process is told before anything else.
      hear: Given each message of the process.
      ended: Told why, when the process has ended.

    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        first: Callable[[], Iterable[dict[str, Any]]],
        hear: Callable[[dict[str, Any]], None],
        ended: Callable[[str], None],
    ) -> None:
        self._nursery = nursery
        self._first = first
        self._hear = hear
        self._ended = ended
        self._starting = trio.Lock()
        self._child: Child | None = None
        self._lines: trio.MemorySendChannel[bytes] | None = None
        self._heard_at = -math.inf

    @property
    def pid(self) -> int | None:
        """Its process id; `None` while there is none."""
        return None if self._child is None else self._child.pid

    def say(self, message: dict[str, Any]) -> None:
        """Tell it something; nothing while there is none."""
        if self._lines is not None:
            try:
                self._lines.send_nowait(json.dumps(message).encode("ascii") + b"\n")
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._kill("it reads nothing")

    async def ensure(self) -> None:
        """Start the process unless it runs.

        Raises:
          NetworkError: if it cannot be started.

        """
        async with self._starting:
            if self._lines is not None:
                return
            try:
                child = await start_child(_COMMAND, env={}, has_stdin=True)
            except OSError as error:
                raise NetworkError(f"the carrier of tunnels cannot start: {error}") from None
            sending, receiving = trio.open_memory_channel[bytes](_MAX_WAITING_LINES)
            self._child, self._lines = child, sending
            self._heard_at = trio.current_time() + _START_SECONDS
            for message in self._first():
                self.say(message)
            await self._nursery.start(self._run, child, receiving)

    async def _run(
        self,
        child: Child,
        lines: trio.MemoryReceiveChannel[bytes],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        said = LastLines()
        assert child.stderr is not None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(said.read, child.stderr)
                nursery.start_soon(self._send, child, lines)
                nursery.start_soon(self._watch)
                task_status.started()
                await self._read(child)
                with trio.move_on_after(1.0):
                    await child.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._lines = self._child = None
            await child.end(0)
        code = child.returncode
        how = "ended" if code is None else f"ended with {describe_exit(code)}"
        log.warning("the carrier of tunnels has ended", how=how, lines=said.lines[-5:])
        self._ended(f"the carrier of tunnels {how}")

    async def _send(self, child: Child, lines: trio.MemoryReceiveChannel[bytes]) -> None:
        assert child.stdin is not None
        try:
            async for line in lines:
                await child.stdin.send_all(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # It has ended, which its output says as well.

    async def _read(self, child: Child) -> None:
        tail = b""
        try:
            async for data in child.stdout:
                *lines, tail = (tail + data).split(b"\n")
                # A new one has until it is started, and this does not make that less.
                self._heard_at = max(self._heard_at, trio.current_time())
                for line in lines:
                    self._hear(json.loads(line))
                if len(tail) > _MAX_LINE_BYTES:
                    self._kill("it said too much in a line")
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _watch(self) -> None:
        """Kill it once it says nothing."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            if trio.current_time() - self._heard_at > _SILENCE_SECONDS:
                self._kill(f"it said nothing for {_SILENCE_SECONDS:g} s")

    def _kill(self, why: str) -> None:
        if self._child is not None:
            log.warning("the carrier of tunnels is stuck and is killed", why=why)
            self._child.kill()
