"""Keeps a program running: starts it, waits until it is ready, and starts it again when it ends.

How long to wait between two starts, and when to give up, is decided by `_restarts`; whether a
program that runs is stuck, by who uses it, who then calls `Supervised.kill`.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..exceptions import BackendCrashed, PunchError
from ._child import GRACE_SECONDS, Child, LastLines, describe_exit, open_child
from ._loading import tell_loading
from ._restarts import Restarts

log = get_logger(__name__)

State = Literal["starting", "ready", "restarting", "failed", "stopped"]

# 40 GB from a slow disk take minutes; a program that needs longer than this is stuck.
START_SECONDS = 600.0

# Before a start: what is asked of other machines is answered within seconds, or not at all.
PREPARE_SECONDS = 60.0

# A request that comes while the program restarts waits this long: less than a dialer's
# patience, more than the load of a model that is in the page cache.
WAIT_READY_SECONDS = 20.0

# Lines of the program's own that go into an error text.
_QUOTED_LINES = 12

# llama.cpp's log lines of level "information": `0.00.003.901 I srv    load_model: ...`, and what
# its server tells a router of its state.
_CHATTER = re.compile(r"[\d.]+ I |cmd_child_to_router:")

# Waiting for the exit status after a connection broke. It follows within milliseconds.
_EXIT_SECONDS = 1.0


@attrs.frozen(kw_only=True)
class SupervisorStatistics:
    """State and history of a supervised program at one instant."""

    state: State
    """State of the program now."""

    starts: int
    """Times that the program was started."""

    crashes_in_a_row: int
    """Crashes since it last answered a request or was ready for a minute."""

    reason: str | None
    """Why it ended last, with its last lines; `None` if it never has."""


@attrs.frozen(kw_only=True)
class Launch:
    """How a program is started, each time anew; the fields are as in `open_supervised`."""

    command: Callable[[], Sequence[str]]
    prepare: Callable[[Supervised], Awaitable[None]] | None
    prepare_timeout: float
    name: str
    env: Mapping[str, str]
    stdin: bytes | None
    ready: Callable[[], Awaitable[bool]]
    grace: float
    start_timeout: float
    retry_start: Callable[[Sequence[str]], Awaitable[bool]]
    on_line: Callable[[str], None] | None
    model_bytes: int | None


@attrs.frozen
class Ending:
    """Why a run of the program ended; `str()` has all of it."""

    why: str
    """What happened, without what names files of this machine: others may be told that."""

    more: str = ""
    """What the program or the system said of it."""

    def __str__(self) -> str:
        return self.why + self.more


class Supervised:
    """A program under supervision. Made by `open_supervised`."""

    def __init__(self, launch: Launch) -> None:
        self.name = launch.name
        self._launch = launch
        self._restarts = Restarts()
        self._state: State = "starting"
        self._reason: Ending | None = None
        self._starts = 0
        self._started_at = 0.0
        self._loaded_in = 1.0
        self._child: Child | None = None
        self._output = LastLines()
        self._changed = trio.Event()
        self._stopping = self._late = self._is_killed_at_work = False
        self._killed_for: Ending | None = None
        self._waiting, self._wanted = trio.CancelScope(), trio.Event()
        self.ended = trio.Event()
        """Set once the program is gone for good."""

    @property
    def state(self) -> State:
        """State of the program now."""
        return self._state

    def _is(self, *states: State) -> bool:
        # A call, because the type checker believes that no `await` changes an attribute.
        return self._state in states

    def _is_stopping(self) -> bool:
        return self._stopping

    def _why_killed(self) -> Ending | None:
        return self._killed_for

    @property
    def pid(self) -> int | None:
        """Process id of the program itself, while it runs."""
        return None if self._child is None else self._child.pid

    @property
    def load_seconds(self) -> float:
        """Seconds until the program will be ready, by how long that took before; 0 if it is."""
        if self._is("ready"):
            return 0.0
        # At least 1: a program that is late is still not there.
        return max(1.0, self._started_at + self._loaded_in - trio.current_time())

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The end of what this run of the program printed, oldest line first."""
        return self._output.lines

    def statistics(self) -> SupervisorStatistics:
        """State and history of the program."""
        return SupervisorStatistics(
            state=self._state,
            starts=self._starts,
            crashes_in_a_row=self._restarts.in_a_row,
            reason=None if self._reason is None else str(self._reason),
        )

    @property
    def trouble(self) -> str | None:
        """Why the program is not ready, in words for others; `None` if it is, or starts first."""
        return None if self._is("ready") or self._reason is None else self._reason.why

    def note_served(self) -> None:
        """Report that the program answered a request: earlier crashes no longer count."""
        self._restarts.served()

    async def wait_ready(self, timeout: float = WAIT_READY_SECONDS) -> None:
        """Return when the program is ready.

        Raises:
          BackendCrashed: if it is down for good, or not ready within *timeout* seconds.

        """
        with trio.move_on_after(timeout) as patience:
            while not self._is("ready"):
                if self._is("failed", "stopped"):
                    raise BackendCrashed(str(self._reason or f"{self.name} was stopped"))
                await self._changed.wait()
        if not patience.cancelled_caught:
            return
        raise BackendCrashed(
            f"{self.name} is {self._state} since more than {timeout:g} s", retry_after=timeout
        )

    async def explain(self, error: BackendCrashed) -> BackendCrashed:
        """*error* of a broken connection; if the program has ended, one that says so, and why.

        Waits for the end for up to a second: a connection breaks before its process is gone.
        """
        starts = self._starts
        with trio.move_on_after(_EXIT_SECONDS):
            while self._is("ready") and self._starts == starts:
                await self._changed.wait()
        if self._is("ready") and self._starts == starts:
            return error
        return BackendCrashed(f"{self._reason or 'it ended'} ({error})", engine_died=True)

    def kill(self, why: str, *, loading_too: bool = False) -> None:
        """Kill the program, with all that it has started, since it is stuck; it is started again.

        Args:
          why: How that was seen, for the log and for error texts: ``it made nothing for 10 s``.
          loading_too: Also before it is ready, which counts as a crash. Otherwise that is left to
            the limit of its start.

        """
        if self._child is None or self._child.returncode is not None:
            return
        if self._why_killed() is not None or not (loading_too or self._is("ready")):
            return
        self._killed_for = Ending(f"{self.name} was killed: {why}")
        self._is_killed_at_work = self._is("ready")
        log.warning("an engine is stuck and is killed", engine=self.name, pid=self.pid, why=why)
        # Before the process is gone: a request that comes now must wait for the next run.
        if self._is_killed_at_work:
            self._started_at = trio.current_time()
            self._change("restarting", self._killed_for)
        self._child.kill()

    def start_now(self) -> None:
        """Start the program at once if it waits for its next start: what it lacked is there."""
        self._wanted.set()

    def stop(self) -> None:
        """End the program and do not start it again; `ended` is set when it is gone."""
        self._stopping = True
        self._waiting.cancel()

    async def run(self) -> None:
        """Start the program again and again until `stop`. Raises nothing."""
        # Shielded: on the way out the program still gets its SIGTERM and its grace.
        with trio.CancelScope(shield=True):
            try:
                await self._run()
            except Exception as error:  # noqa: BLE001 - becomes the reason that callers see
                self._change("failed", Ending(f"{self.name} cannot be supervised", f": {error!r}"))
            finally:
                if self._state != "failed":
                    self._change("stopped", self._reason)
                self.ended.set()

    async def _run(self) -> None:
        was_ready = False
        while not self._is_stopping():
            self._killed_for = None
            reason = await self._run_once()
            if self._is_stopping():
                return
            if (why := self._why_killed()) is not None:
                was_ready, reason = True, why
                if self._is_killed_at_work:
                    await self._wait_to_start(self._restarts.killed(), why)
                    continue
            was_ready = was_ready or self._is("ready")
            if not was_ready:
                if self._starts < 3 and await self._launch.retry_start(self.last_lines):
                    continue
                # A program that never worked has a wrong flag or file, which will not get better.
                self._change("failed", reason)
                return
            await self._wait_to_start(self._restarts.crashed(trio.current_time()), reason)

    async def _wait_to_start(self, pause: float, reason: Ending) -> None:
        self._started_at = trio.current_time() + pause
        state: State = "restarting"
        if self._restarts.is_loop:
            # It stays so while it is tried, until it is ready: nobody is to wait for it.
            state = "failed"
            crashes = f"crash loop, {self._restarts.in_a_row} times in a row: "
            reason = attrs.evolve(reason, why=crashes + reason.why)
        self._change(state, reason)
        await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        self._waiting, self._wanted = trio.CancelScope(), trio.Event()
        if self._stopping:
            return
        with self._waiting, trio.move_on_after(seconds):
            await self._wanted.wait()

    async def _run_once(self) -> Ending:
        """Run the program until it ends or `stop` is called; why it ended."""
        self._starts += 1
        self._started_at = trio.current_time()
        self._output = LastLines(self._launch.on_line)
        self._late = False
        self._waiting = trio.CancelScope()
        if (failure := await _prepare(self, self._launch, self._waiting)) is not None:
            return failure
        watching, self._waiting = trio.CancelScope(), trio.CancelScope()
        try:
            async with open_child(
                self._launch.command(),
                env=self._launch.env,
                stdin=self._launch.stdin,
                grace=self._launch.grace,
            ) as child:
                self._child = child
                assert child.stderr is not None
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._output.read, child.stdout)
                    nursery.start_soon(self._output.read, child.stderr)
                    nursery.start_soon(self._watch, watching)
                    if not self._stopping:
                        with self._waiting:
                            await child.wait()
                    watching.cancel()
                    # Its output is read while it ends, or it would block on a full pipe.
                    child.ask_to_end()
                    with trio.move_on_after(self._launch.grace):
                        await child.wait()
                    # What it printed last is still in the pipe; a grandchild may hold it open.
                    nursery.cancel_scope.deadline = trio.current_time() + 0.5
        except OSError as error:
            return Ending(f"{self.name} cannot be started", f": {error}")
        finally:
            self._child = None
        assert child.returncode is not None
        return _ending(self._launch, child.returncode, self.last_lines, is_late=self._late)

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Poll `ready` until it says yes, and tell meanwhile how far the program is."""
        with scope:
            if not await _becomes_ready(self._launch, lambda: self._child):
                self._late = True
                self._waiting.cancel()
                return
            if self._why_killed() is not None:
                return
            self._loaded_in = trio.current_time() - self._started_at
            self._restarts.is_ready(trio.current_time())
            self._change("ready", self._reason)
            if self._starts > 1:
                log.info(
                    "an engine is ready again", engine=self.name, starts=self._starts,
                    seconds=round(self._loaded_in, 1),
                )  # fmt: skip

    def _change(self, state: State, reason: Ending | None) -> None:
        self._state = state
        self._reason = reason
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def _ending(launch: Launch, code: int, last_lines: Sequence[str], *, is_late: bool) -> Ending:
    why = f"ended with {describe_exit(code)}"
    if is_late:
        why = f"was not ready within {launch.start_timeout:g} s"
    return Ending(f"{launch.name} {why}", _quote(last_lines))


def _quote(last_lines: Sequence[str]) -> str:
    lines = [line for line in last_lines if not _CHATTER.match(line)]
    lines = (lines or list(last_lines))[-_QUOTED_LINES:]
    return "; it printed nothing" if not lines else "; its last lines:\n  " + "\n  ".join(lines)


async def _prepare(
    supervised: Supervised, launch: Launch, scope: trio.CancelScope
) -> Ending | None:
    """Have what a start needs made ready, until *scope* is cancelled; why that failed, if so."""
    if launch.prepare is None:
        return None
    with scope, trio.move_on_after(launch.prepare_timeout) as patience:
        try:
            await launch.prepare(supervised)
        except PunchError as error:
            return Ending(f"{launch.name} could not be started: {error}")
    if scope.cancelled_caught:
        return Ending(f"{launch.name} was stopped")
    if patience.cancelled_caught:
        seconds = f"{launch.prepare_timeout:g} s"
        return Ending(f"{launch.name} was not started: what it needs was not there in {seconds}")
    return None


async def _becomes_ready(launch: Launch, child: Callable[[], Child | None]) -> bool:
    """Whether the program is ready in time."""
    with trio.move_on_after(launch.start_timeout) as patience:
        async with open_background() as nursery:
            nursery.start_soon(tell_loading, launch.name, child, launch.model_bytes)
            await _until(launch.ready)
    return not patience.cancelled_caught


async def _until(ready: Callable[[], Awaitable[bool]]) -> None:
    # Often at first, since most programs are ready within a second; then four times a second, which
    # is nothing beside the loading of a big model.
    pause = 0.02
    while not await ready():
        await trio.sleep(pause)
        pause = min(pause * 1.3, 0.25)


async def _never(last_lines: Sequence[str]) -> bool:
    return False


@asynccontextmanager
async def open_supervised(
    argv: Sequence[str] | Callable[[], Sequence[str]],
    *,
    name: str,
    ready: Callable[[], Awaitable[bool]],
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    grace: float = GRACE_SECONDS,
    start_timeout: float = START_SECONDS,
    retry_start: Callable[[Sequence[str]], Awaitable[bool]] = _never,
    on_line: Callable[[str], None] | None = None,
    model_bytes: int | None = None,
    prepare: Callable[[Supervised], Awaitable[None]] | None = None,
    prepare_timeout: float = PREPARE_SECONDS,
) -> AsyncIterator[Supervised]:
    """Run a program and keep it running; enter when it is ready, end it on the way out.

    Args:
      argv: Program and arguments, or what makes them anew for every start.
      name: What error texts call it.
      ready: Asked again and again after a start, until it gives True; must not raise.
      env: Variables on top of this process's own; for secrets, too.
      stdin: Written to its standard input; `None` for no input at all.
      grace: Seconds between SIGTERM and SIGKILL.
      start_timeout: Seconds from a start until `ready` must say yes.
      retry_start: Given the last lines of a first start that failed: was it bad luck?
      on_line: Called with every line that it prints.
      model_bytes: Size of the model that it loads, for the log; `None` if not known.
      prepare: Awaited with what supervises the program before every start, in front of *argv*:
        finds and reserves what the program needs. A `PunchError` of it is a start that failed, with
        its words.
      prepare_timeout: Seconds that *prepare* may take.

    Raises:
      BackendCrashed: if the first start fails; the text has the program's last lines.

    """
    launch = Launch(
        command=argv if callable(argv) else lambda: argv,
        prepare=prepare,
        prepare_timeout=prepare_timeout,
        name=name,
        env=env or {},
        stdin=stdin,
        ready=ready,
        grace=grace,
        start_timeout=start_timeout,
        retry_start=retry_start,
        on_line=on_line,
        model_bytes=model_bytes,
    )
    supervised = Supervised(launch)
    async with open_background() as nursery:
        nursery.start_soon(supervised.run)
        try:
            await supervised.wait_ready(math.inf)
            yield supervised
        finally:
            supervised.stop()
            with trio.CancelScope(shield=True):
                await supervised.ended.wait()
