"""A guardian: runs one foreign program and ends it when our own process is gone.

    python -I -S _launch.py GRACE PROGRAM ARGUMENT...

It holds the read end of a pipe on its standard input. The pipe's other end is in punch's
process; when that process ends, in whatever way, the pipe closes and the guardian sends
the program SIGTERM and, GRACE seconds later, SIGKILL. It exits as the program did.

Why not simpler:

* ``prctl(PR_SET_PDEATHSIG)`` in the program's process is Linux only, and it fires when the
  *thread* that forked ends (prctl(2)). Trio forks in a worker thread that ends when idle,
  so the program would be killed in the middle of its work.
* ``preexec_fn`` may deadlock in a process with threads. The guardian has none when it
  forks, so on Linux it does set PDEATHSIG from there: then not even its own death by
  SIGKILL leaves the program behind.
* A foreign program does not watch its standard input for us.

It costs 20 ms and 11 MB, imports nothing of punch, and is the same on every system.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType


def main(arguments: list[str]) -> int:
    """Run the program; return its exit code, or die of the signal that it died of."""
    grace, command = float(arguments[0]), arguments[1:]
    try:
        child = subprocess.Popen(  # noqa: S603 - running this very program is the task
            command, stdin=subprocess.DEVNULL, preexec_fn=_before_exec()
        )
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 127
    ended = threading.Event()
    threading.Thread(target=_watch, args=(child, ended, grace), daemon=True).start()

    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        with contextlib.suppress(OSError):
            child.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    code = child.wait()
    ended.set()
    return code if code >= 0 else _die_of(-code)


def _watch(child: subprocess.Popen[bytes], ended: threading.Event, grace: float) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    if grace > 0:
        with contextlib.suppress(OSError):
            child.terminate()
        if ended.wait(grace):
            return
    with contextlib.suppress(OSError):
        child.kill()


def _before_exec() -> Callable[[], None] | None:
    """What the program's process does on Linux before it becomes the program."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    guardian = os.getpid()

    def die_with_guardian() -> None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != guardian:  # It died before the call.
            os._exit(1)

    return die_with_guardian


def _die_of(number: int) -> int:
    """End as the program did, so that our supervisor sees the signal itself."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        # The program has left its core; ours would overwrite it.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
