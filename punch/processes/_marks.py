"""Tells a process from any other that has had its number, or will have it.

A process id is given out again when its process is gone, and starts anew with the machine: so a
process that is written down for later is written down with when it started, and in which boot.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import attrs
import psutil


@attrs.frozen
class ProcessMark:
    """One process of this machine, for as long as there are process ids."""

    pid: int
    """Its process id."""

    start: str
    """When it started, in the system's own count; means nothing but to be compared."""

    boot: str
    """In which boot of the machine; empty where the system does not name its boots."""

    @classmethod
    def of(cls, pid: int) -> ProcessMark | None:
        """The mark of the process that has *pid* now; `None` if none has."""
        start = _start_of(pid)
        return None if start is None else cls(pid=pid, start=start, boot=_boot())

    @property
    def is_running(self) -> bool:
        """Whether this very process runs; one that has ended and was not waited for does not."""
        return ProcessMark.of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; False if it is gone, whoever has its number now.

        Raises:
          PermissionError: if it is another user's.

        """
        # A handle of the process where there is one, since the number may be another's after the
        # check: Linux, from 5.3 on.
        handle = None
        if sys.platform == "linux":
            with suppress(OSError):
                handle = os.pidfd_open(self.pid)
        try:
            if not self.is_running:
                return False
            with suppress(ProcessLookupError):
                if handle is None:
                    os.kill(self.pid, number)
                elif sys.platform == "linux":
                    signal.pidfd_send_signal(handle, number)
                return True
            return False
        finally:
            if handle is not None:
                os.close(handle)


if sys.platform == "linux":

    def _start_of(pid: int) -> str | None:
        # psutil makes seconds since 1970 of it, which are others once the clock was set.
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in b"ZX" else fields[19].decode()

    def _boot() -> str:
        with suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return ""

else:

    def _start_of(pid: int) -> str | None:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                return repr(process.create_time())
        return None

    def _boot() -> str:
        return ""
