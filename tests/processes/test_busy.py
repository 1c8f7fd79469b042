"""A process that would compute counts as busy, whether it gets a processor or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from punch.processes import busy_seconds

SPINS = "while True: pass"
SLEEPS = "import time; time.sleep(60)"


@contextmanager
def running(code: str, *, processor: int | None = None) -> Iterator[int]:
    """The id of a process that runs *code*, on one *processor* alone if it is given."""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            if processor is not None and sys.platform == "linux":
                os.sched_setaffinity(process.pid, {processor})
            time.sleep(0.3)
            yield process.pid
        finally:
            process.kill()


def busy_during(pid: int, seconds: float) -> float:
    """How much busier a process has become."""
    before = busy_seconds(pid)
    time.sleep(seconds)
    after = busy_seconds(pid)
    assert before is not None
    assert after is not None
    return after - before


def test_a_process_that_sleeps_or_was_stopped_is_not_busy() -> None:
    """Neither stands in line for a processor."""
    with running(SLEEPS) as pid:
        assert busy_during(pid, 0.3) < 0.05
    with running(SPINS) as pid:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.05)
        assert busy_during(pid, 0.3) < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells who stands in line")
def test_processes_that_share_one_processor_are_all_busy() -> None:
    """Four of them get a quarter each, and each of them is busy nearly all of the time."""
    processor = min(os.sched_getaffinity(0))
    with (
        running(SPINS, processor=processor) as one,
        running(SPINS, processor=processor),
        running(SPINS, processor=processor),
        running(SPINS, processor=processor),
    ):
        assert busy_during(one, 1.0) > 0.6


def test_a_process_that_is_gone_is_not_known() -> None:
    """Nobody is asked of another one."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert busy_seconds(process.pid) is None
