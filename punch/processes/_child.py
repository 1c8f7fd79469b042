"""Runs a child process with its output kept, and ends it with everything that it started.

Whether it is started again is decided by `_supervisor`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import trio

# Room for llama.cpp's whole account of a failed load (60 lines); 400 KiB at most.
KEPT_LINES = 200
MAX_LINE_BYTES = 2048

# What a server gets to finish its answers after SIGTERM, before SIGKILL.
GRACE_SECONDS = 5.0

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


@asynccontextmanager
async def open_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: bytes = b"",
    guarded: bool = True,
    grace: float = GRACE_SECONDS,
) -> AsyncIterator[trio.Process]:
    """Run *argv* with pipes on its output; end the process, and wait for that, on the way out.

    The child also ends when this process does, in whatever way.

    Args:
      argv: Program and arguments.
      env: Variables on top of this process's own.
      stdin: Written to its standard input, which then stays open. Not for a guarded child.
      guarded: Run it under a guardian (see `_launch`). False for a program of our own
        that ends when its standard input does.
      grace: Seconds between SIGTERM and SIGKILL; at 0 the child is killed at once.

    Raises:
      OSError: if the program cannot be started.

    """
    command = list(argv)
    if guarded:
        # -I -S: no site-packages, no PYTHON* variables, 20 ms instead of 60.
        command = [sys.executable, "-I", "-S", str(_LAUNCH), str(grace), *command]
    process = await _open(command, {**os.environ, **env})
    try:
        assert process.stdin is not None
        if stdin:
            with suppress(trio.BrokenResourceError):
                await process.stdin.send_all(stdin)
        yield process
    finally:
        with trio.CancelScope(shield=True):
            if grace <= 0 and process.returncode is None:
                # Nothing is to be saved, and what the child has started may not listen.
                if guarded:
                    _kill_below(process)
                else:
                    kill_group(process)
            await _end(process, grace)


async def _open(command: list[str], env: dict[str, str]) -> trio.Process:
    if sys.platform == "win32":
        return await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=env, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )  # fmt: skip
    return await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A session of its own: Ctrl-C in the terminal is for us, and we end the child.
        env=env, start_new_session=True,
    )  # fmt: skip


async def _end(process: trio.Process, grace: float) -> None:
    assert process.stdin is not None
    # The one way to ask for an end that works on every system: the guardian, or our own
    # worker, sees its standard input end.
    await process.stdin.aclose()
    with trio.move_on_after(grace + 1.0):
        await process.wait()
    if process.returncode is None:
        kill_group(process)
        await process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            await stream.aclose()


def _kill_below(guardian: trio.Process) -> None:
    """Kill all that *guardian* has started, and leave it to itself: it ends when they have.

    Killed together with them it could not wait for them: the program would be gone a moment later
    only, and until another process reaps it.
    """
    with suppress(psutil.Error):
        for process in psutil.Process(guardian.pid).children(recursive=True):
            with suppress(psutil.Error):
                process.kill()


def kill_group(process: trio.Process) -> None:
    """Kill the group of *process*, which has our child and its children only.

    For a process that was started with `start_new_session` and has not been waited for.
    """
    if sys.platform == "win32":
        process.kill()
        return
    with suppress(ProcessLookupError):
        # Not reaped yet, so the number cannot belong to another process.
        os.killpg(process.pid, signal.SIGKILL)


def program_pid(process: trio.Process, *, guarded: bool) -> int | None:
    """Process id of the program itself, or `None` if it is not running."""
    if process.returncode is not None:
        return None
    if not guarded:
        return process.pid
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children():
            return int(child.pid)
    return None


def describe_exit(code: int) -> str:
    """Words for an exit code: ``exit code 1``, ``SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
