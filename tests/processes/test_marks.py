"""A mark tells a process from any other that has had its number, or will have it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from punch.processes import ProcessMark

SLEEPER = "import time; print(flush=True); time.sleep(60)"


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing for a minute."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def mark_of(pid: int) -> ProcessMark:
    """The mark of a process that runs."""
    mark = ProcessMark.of(pid)
    assert mark is not None
    return mark


def test_a_process_keeps_its_mark_for_as_long_as_it_runs() -> None:
    """Two looks at one process see the same, and two processes are never the same."""
    assert ProcessMark.of(os.getpid()) == mark_of(os.getpid())
    with sleeper() as process:
        assert mark_of(process.pid).is_running
        assert mark_of(process.pid) != mark_of(os.getpid())


def test_a_process_that_has_ended_is_not_running_though_nobody_has_waited_for_it() -> None:
    """A zombie has a number still, and hears of nothing."""
    with sleeper() as process:
        mark = mark_of(process.pid)
        assert mark.send(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not mark.is_running
        assert not mark.send(signal.SIGTERM)


def test_no_signal_goes_to_another_process_with_the_same_number() -> None:
    """Neither to a later one, nor to one of another boot of the machine."""
    with sleeper() as process:
        mark = mark_of(process.pid)
        for other in (
            attrs.evolve(mark, start=f"{mark.start}0"),
            attrs.evolve(mark, boot=f"{mark.boot}0"),
        ):
            assert not other.is_running
            assert not other.send(signal.SIGKILL)
        assert process.poll() is None
