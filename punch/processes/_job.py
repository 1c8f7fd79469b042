"""A job object of Windows: all processes that one program starts, which end with punch's own.

Windows has neither process groups that can be killed nor a reaper of orphans. It has jobs: what a
process of a job starts is in the job, and with ``KILL_ON_JOB_CLOSE`` all of them end when the last
handle of the job is closed. Punch's process has the only one, and whatever ends punch closes it.

https://learn.microsoft.com/windows/win32/procthread/job-objects
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Protocol

_EXTENDED_LIMIT_INFORMATION = 9  # JobObjectExtendedLimitInformation
_KILL_ON_JOB_CLOSE = 0x2000
_SET_QUOTA_AND_TERMINATE = 0x0101  # PROCESS_SET_QUOTA | PROCESS_TERMINATE

# What a killed process leaves as its exit code: as `TerminateProcess` of Python does.
_KILLED = 1


class _BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("per_process_user_time_limit", ctypes.c_int64),
        ("per_job_user_time_limit", ctypes.c_int64),
        ("limit_flags", ctypes.c_uint32),
        ("minimum_working_set_size", ctypes.c_size_t),
        ("maximum_working_set_size", ctypes.c_size_t),
        ("active_process_limit", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority_class", ctypes.c_uint32),
        ("scheduling_class", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("basic", _BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory_limit", ctypes.c_size_t),
        ("job_memory_limit", ctypes.c_size_t),
        ("peak_process_memory_used", ctypes.c_size_t),
        ("peak_job_memory_used", ctypes.c_size_t),
    )


class Kernel32(Protocol):
    """The functions of kernel32.dll that a job takes; a handle of 0 or `None` is a failure."""

    def CreateJobObjectW(self, attributes: None, name: None, /) -> int | None: ...  # noqa: N802
    def SetInformationJobObject(  # noqa: N802
        self, job: int, kind: int, information: Any, size: int, /
    ) -> int: ...
    def OpenProcess(self, access: int, inherit: bool, pid: int, /) -> int | None: ...  # noqa: N802
    def AssignProcessToJobObject(self, job: int, process: int, /) -> int: ...  # noqa: N802
    def TerminateJobObject(self, job: int, code: int, /) -> int: ...  # noqa: N802
    def CloseHandle(self, handle: int, /) -> int: ...  # noqa: N802


class Job:
    """One job. Close it when all that is in it may end.

    Args:
      kernel32: The operating system.

    Raises:
      OSError: if there is no job to be had.

    """

    def __init__(self, kernel32: Kernel32) -> None:
        self._kernel32 = kernel32
        self._handle = _checked(kernel32.CreateJobObjectW(None, None), "CreateJobObject")
        limits = ExtendedLimits()
        limits.basic.limit_flags = _KILL_ON_JOB_CLOSE
        try:
            _checked(
                kernel32.SetInformationJobObject(
                    self._handle,
                    _EXTENDED_LIMIT_INFORMATION,
                    ctypes.byref(limits),
                    ctypes.sizeof(limits),
                ),
                "SetInformationJobObject",
            )
        except OSError:
            self.close()
            raise

    def assign(self, pid: int) -> None:
        """Put a process into the job, and with it all that it will start.

        It must not run yet, or what it has started already is outside.

        Raises:
          OSError: if the system refuses.

        """
        kernel32 = self._kernel32
        process = _checked(
            kernel32.OpenProcess(_SET_QUOTA_AND_TERMINATE, False, pid), "OpenProcess"
        )
        try:
            _checked(
                kernel32.AssignProcessToJobObject(self._handle, process),
                "AssignProcessToJobObject",
            )
        finally:
            kernel32.CloseHandle(process)

    def terminate(self) -> None:
        """End every process in the job, at once."""
        if self._handle:
            self._kernel32.TerminateJobObject(self._handle, _KILLED)

    def close(self) -> None:
        """Close the handle; whatever is still in the job ends."""
        handle, self._handle = self._handle, 0
        if handle:
            self._kernel32.CloseHandle(handle)


def open_job() -> Job:
    """A job of this machine's Windows."""
    if sys.platform == "win32":
        from ctypes import wintypes

        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        handle, boolean, number = wintypes.HANDLE, wintypes.BOOL, wintypes.DWORD
        # Without these a handle of 64 bits is cut to an int of 32.
        for name, result, arguments in (
            ("CreateJobObjectW", handle, (ctypes.c_void_p, wintypes.LPCWSTR)),
            ("SetInformationJobObject", boolean, (handle, ctypes.c_int, ctypes.c_void_p, number)),
            ("OpenProcess", handle, (number, boolean, number)),
            ("AssignProcessToJobObject", boolean, (handle, handle)),
            ("TerminateJobObject", boolean, (handle, wintypes.UINT)),
            ("CloseHandle", boolean, (handle,)),
        ):
            function = getattr(kernel32, name)
            function.restype, function.argtypes = result, arguments
        return Job(kernel32)
    raise OSError("job objects are Windows' own")


def _checked(result: int | None, what: str) -> int:
    """*result*, if it is no failure."""
    if not result:
        code = getattr(ctypes, "get_last_error", lambda: 0)()
        raise OSError(code, f"{what} failed with error {code}")
    return result
