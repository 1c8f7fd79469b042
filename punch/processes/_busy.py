"""How long a process has computed, or has stood in line for a processor to do so."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil


def busy_seconds(pid: int) -> float | None:
    """Seconds of processor time that a process has used or waited for; `None` if it is gone.

    A process that hangs or was stopped does neither. One on a machine with too much to do may get
    no processor for seconds; where the system tells of that (Linux), it counts as well.
    """
    with suppress(psutil.Error, OSError):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system) + _waited_seconds(pid)
    return None


def _waited_seconds(pid: int) -> float:
    """For how long the threads of a process have been ready to run, and did not."""
    nanoseconds = 0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            # A thread may end meanwhile. See Documentation/scheduler/sched-stats.rst of Linux.
            with suppress(OSError, ValueError, IndexError):
                nanoseconds += int((task / "schedstat").read_bytes().split()[1])
    return nanoseconds / 1e9
