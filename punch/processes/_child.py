"""Runs a child process with its output kept, and ends it with everything that it started.

On Windows the child is in a job object (`_job`), elsewhere a guardian looks after it (`_launch`).
Whether it is started again is decided by `_supervisor`.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import trio

from ._job import Job, open_job

# Room for llama.cpp's whole account of a failed load (60 lines); 400 KiB at most.
KEPT_LINES = 200
MAX_LINE_BYTES = 2048

# What a server gets to finish its answers after SIGTERM, before SIGKILL.
GRACE_SECONDS = 5.0

# What the guardian gets to kill everything, beyond the grace, before it is killed itself.
_KILL_SECONDS = 3.0

# In the environment of a child and of all that it starts; each child has another value.
MARK = "PUNCH_CHILD"

# Flags of Windows' CreateProcess.
_CREATE_SUSPENDED = 0x4
_CREATE_NEW_PROCESS_GROUP = 0x200

_LAUNCH = Path(__file__).with_name("_launch.py")


class LastLines:
    """The end of what a program printed, bounded in lines and in bytes a line.

    Args:
      on_line: Called with each line that is not empty.

    """

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines that were not empty, oldest first."""
        return tuple(self._lines)

    async def read(self, stream: trio.abc.ReceiveStream) -> None:
        """Keep what comes out of *stream* until it ends; a long line is cut."""
        tail = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in stream:
                *lines, tail = (tail + data).split(b"\n")
                for line in lines:
                    self._add(line)
                tail = tail[:MAX_LINE_BYTES]
        self._add(tail)

    def _add(self, line: bytes) -> None:
        text = line[:MAX_LINE_BYTES].decode("utf-8", "replace").strip()
        if text:
            self._lines.append(text)
            if self._on_line is not None:
                self._on_line(text)


class Child:
    """A program that punch started, and all that the program starts. Made by `start_child`."""

    def __init__(
        self,
        process: trio.Process,
        *,
        lifeline: socket.socket | None,
        job: Job | None,
        mark: str,
    ) -> None:
        self._process = process
        self._lifeline = lifeline
        self._job = job
        self._mark = mark
        self._told = b""

    @property
    def stdin(self) -> trio.abc.SendStream | None:
        """The program's standard input, if anything can be written to it."""
        return self._process.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream:
        """The program's standard output."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream | None:
        """The program's standard error, unless it was directed elsewhere."""
        return self._process.stderr

    @property
    def returncode(self) -> int | None:
        """Exit code of the program, ``-N`` if signal N ended it; `None` while it runs."""
        code = self._process.returncode
        if code is None or self._lifeline is None:
            return code
        # Its own code says nothing, unless it was killed and could tell nothing.
        numbers = self._listen()
        return numbers[1] if len(numbers) > 1 else code

    @property
    def is_running(self) -> bool:
        """Whether the program, or something that it has started, still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the program itself, or `None` if it is not running."""
        if self._process.returncode is not None:
            return None
        if self._lifeline is None:
            return self._process.pid
        numbers = self._listen()
        return numbers[0] if numbers else None

    def _listen(self) -> list[int]:
        """What the guardian has told: the program's process id, and at last its exit code."""
        if self._lifeline is not None:
            with suppress(OSError):  # Nothing new.
                self._told += self._lifeline.recv(64)
        return [int(line) for line in self._told.split(b"\n")[:-1]]

    async def wait(self) -> int:
        """Wait until the program and all that it has started are gone; its exit code."""
        await self._process.wait()
        assert self.returncode is not None
        return self.returncode

    def interrupt(self) -> None:
        """Send the program SIGINT, as Ctrl-C does; nothing on Windows."""
        if sys.platform != "win32":
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    def ask_to_end(self) -> None:
        """Send everything SIGTERM, and SIGKILL when the grace is over; does not wait for it."""
        self._say(b"t")

    def kill(self) -> None:
        """Kill the program, with all that it has started; does not wait for it."""
        self._say(b"k")
        if self._job is not None:
            self._job.terminate()

    def _say(self, word: bytes) -> None:
        if self._lifeline is not None:
            with suppress(OSError):  # The guardian has ended.
                self._lifeline.send(word)

    async def end(self, grace: float) -> None:
        """End the program with all that it has started, and wait until they are gone.

        Args:
          grace: Seconds that it gets for that before it is killed; 0 kills it at once.

        """
        with trio.CancelScope(shield=True):
            if grace > 0:
                self.ask_to_end()
            else:
                self.kill()
            if self._process.stdin is not None:
                # A worker of our own ends when this does, on Windows too.
                await trio.aclose_forcefully(self._process.stdin)
            with trio.move_on_after(grace + _KILL_SECONDS):
                await self._process.wait()
            if self._process.returncode is None:
                self._kill_guardian()
                await self._process.wait()
            if self._lifeline is not None:
                was_killed = len(self._listen()) < 2
                if was_killed or sys.platform != "linux":
                    await trio.to_thread.run_sync(_kill_marked, self._mark)
                self._lifeline.close()
            if self._job is not None:
                self._job.close()
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    await stream.aclose()

    def _kill_guardian(self) -> None:
        """Kill a guardian that does not do its work, or on Windows the program itself."""
        if sys.platform == "win32":
            self._process.kill()
        else:
            with suppress(ProcessLookupError):
                # Not waited for yet, so the number cannot belong to another process.
                os.killpg(self._process.pid, signal.SIGKILL)


@asynccontextmanager
async def open_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: bytes | None = None,
    grace: float = GRACE_SECONDS,
    ignores_sigpipe: bool = False,
    control_group: Path | None = None,
) -> AsyncIterator[Child]:
    """Run *argv* with pipes on its output; end it, and wait for that, on the way out.

    The program and all that it starts also end when this process does, in whatever way.

    Args:
      argv: Program and arguments.
      env: Variables on top of this process's own.
      stdin: Written to its standard input, which then stays open; `None` for no input at all.
      grace: Seconds between SIGTERM and SIGKILL; at 0 the child is killed at once.
      ignores_sigpipe: As in `start_child`.
      control_group: As in `start_child`.

    Raises:
      OSError: if the program cannot be started.

    """
    child = await start_child(
        argv,
        env=env,
        has_stdin=stdin is not None,
        grace=grace,
        ignores_sigpipe=ignores_sigpipe,
        control_group=control_group,
    )
    try:
        if stdin and child.stdin is not None:
            with suppress(trio.BrokenResourceError):
                await child.stdin.send_all(stdin)
        yield child
    finally:
        await child.end(grace)


async def start_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    has_stdin: bool = False,
    stderr: int = subprocess.PIPE,
    grace: float = GRACE_SECONDS,
    ignores_sigpipe: bool = False,
    control_group: Path | None = None,
) -> Child:
    """Run *argv*; the caller ends it with `Child.end`. As `open_child`, for what outlives a block.

    Args:
      argv: Program and arguments.
      env: Variables on top of this process's own.
      has_stdin: Whether something will be written to its standard input.
      stderr: A descriptor that its standard error goes to, by default a pipe of its own.
      grace: Seconds between SIGTERM and SIGKILL where it is asked to end.
      ignores_sigpipe: Whether SIGPIPE is ignored in the program, which then lives on when it writes
        to somebody who is gone. A program that expects the signal fails in another way.
      control_group: Folder of the control group that the program is put in, see
        `open_control_group`; not on Windows.

    Raises:
      OSError: if the program cannot be started.

    """
    mark = secrets.token_hex(8)
    environment = {**os.environ, **env, MARK: mark}
    stdin = subprocess.PIPE if has_stdin else subprocess.DEVNULL
    common = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": stderr, "env": environment}
    job = open_job() if sys.platform == "win32" else None
    if job is not None:
        return await _start_in_job(list(argv), job, mark, common)
    sigpipe = "ignore" if ignores_sigpipe else "default"
    settings = [str(grace), sigpipe, str(control_group or "")]
    return await _start_guarded(list(argv), settings, mark, common)


async def _start_guarded(
    argv: list[str], settings: list[str], mark: str, options: dict[str, Any]
) -> Child:
    """Start *argv* under a guardian, which is given *settings*."""
    ours, its = socket.socketpair()
    ours.setblocking(False)
    # -I -S: no site-packages, no PYTHON* variables, a third of the time.
    guardian = [sys.executable, "-I", "-S", str(_LAUNCH), str(its.fileno()), *settings]
    # A session of its own: Ctrl-C in the terminal is for us, and we end the child.
    options = {**options, "pass_fds": (its.fileno(),), "start_new_session": True}
    try:
        process = await trio.lowlevel.open_process([*guardian, *argv], **options)
    except BaseException:
        ours.close()
        raise
    finally:
        its.close()
    return Child(process, lifeline=ours, job=None, mark=mark)


async def _start_in_job(argv: list[str], job: Job, mark: str, options: dict[str, Any]) -> Child:
    """Start *argv* in *job*, as Windows has it."""
    # Suspended: what it might start before it is in the job would be outside for ever.
    options = {**options, "creationflags": _CREATE_NEW_PROCESS_GROUP | _CREATE_SUSPENDED}
    try:
        process = await trio.lowlevel.open_process(argv, **options)
        try:
            job.assign(process.pid)
            psutil.Process(process.pid).resume()
        except BaseException:
            process.kill()
            raise
    except BaseException:
        job.close()
        raise
    return Child(process, lifeline=None, job=job, mark=mark)


def _kill_marked(mark: str) -> None:
    """Kill what a guardian has left behind that was killed itself, or that could not see it."""
    found = True
    until = time.monotonic() + _KILL_SECONDS
    while found and time.monotonic() < until:
        found = False
        for process in psutil.process_iter():
            # By the mark in its environment alone: what was started here has it, and nothing else.
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == mark:
                    process.kill()
                    found = True


def describe_exit(code: int) -> str:
    """Words for an exit code: ``exit code 1``, ``SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
