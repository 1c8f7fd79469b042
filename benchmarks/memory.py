"""Resident memory of an idle dialer, beside a process that only imported libp2p.

The dialer is the program itself, ``python -m punch.dialer`` without a question: it has joined
the namespace, has its session with one listener, and waits for a line on standard input.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from _processes import Child
from _results import Report, Row

TITLE = "Memory of an idle dialer"

MAX_BYTES = 25e6
CONNECT_SECONDS = 60.0

# The first heartbeats and adverts are over, and what the start needed is given back.
IDLE_SECONDS = 2.0

BASELINE = ("-c", "import libp2p, sys; print(flush=True); sys.stdin.readline()")


@contextmanager
def _waiting(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A Python process that ends when its standard input does."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _resident(process: subprocess.Popen[str]) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)


def _dialer(listener: Child, folder: Path) -> int:
    """Bytes of one dialer, once it is connected and idle."""
    bootstrap = listener.greeting["bootstrap"]
    arguments = ["-m", "punch.dialer", "--bootstrap", bootstrap, "--namespace"]
    arguments += [listener.greeting["namespace"]]
    arguments += ["--identity", str(folder / "key"), "--known-peers", str(folder / "known")]
    with _waiting(arguments) as process:
        deadline = time.monotonic() + CONNECT_SECONDS
        while listener.ask("sessions") == 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the dialer did not connect; its last words are above")
            time.sleep(0.1)
        time.sleep(IDLE_SECONDS)
        found = _resident(process)
    while listener.ask("sessions"):
        time.sleep(0.1)
    return found


def _baseline() -> int:
    with _waiting(BASELINE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        return _resident(process)


def measure(*, quick: bool) -> Report:
    """Bytes of both, in turns."""
    rounds = 1 if quick else 9
    dialers, baselines = [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listener = stack.enter_context(Child("_punch_listener.py", backend="mock"))
        for _ in range(rounds):
            baselines.append(_baseline())
            dialers.append(_dialer(listener, folder))
    ours, base = statistics.median(dialers), statistics.median(baselines)
    row = Row(
        what="resident memory of an idle dialer",
        ours=f"{ours / 1e6:.1f} MB",
        other=f"{base / 1e6:.1f} MB, `import libp2p` alone",
        ratio=f"{(ours - base) / 1e6:+.1f} MB",
        target=f"at most {MAX_BYTES / 1e6:+.0f} MB",
        met=ours - base <= MAX_BYTES,
        why="It is modules that `import libp2p` does not load.",
    )
    notes = (f"Median of {rounds}. {' '.join(__doc__.partition('.')[2].split())}",)
    return Report(title=TITLE, rows=(row,), notes=notes)
