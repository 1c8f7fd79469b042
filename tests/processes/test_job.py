"""Job objects of Windows, over a kernel32 that only notes what it is told."""

from __future__ import annotations

import ctypes
import subprocess
from typing import Any

import attrs
import psutil
import pytest
import trio

from punch.processes import _child
from punch.processes._job import ExtendedLimits, Job

KILL_ON_JOB_CLOSE = 0x2000


@attrs.define
class Windows:
    """What kernel32 would do: handles are numbers, and one call may fail."""

    fails: str = ""
    calls: list[tuple[Any, ...]] = attrs.field(factory=list)
    limits: int = 0
    open_handles: set[int] = attrs.field(factory=set)

    def _handle(self, number: int, *call: Any) -> int:
        self.calls.append(call)
        if call[0] == self.fails:
            return 0
        self.open_handles.add(number)
        return number

    def _done(self, *call: Any) -> int:
        self.calls.append(call)
        return int(call[0] != self.fails)

    def CreateJobObjectW(self, attributes: None, name: None, /) -> int:  # noqa: N802
        return self._handle(100, "CreateJobObjectW")

    def SetInformationJobObject(  # noqa: N802
        self, job: int, kind: int, information: Any, size: int, /
    ) -> int:
        # As Windows reads it: at this place of a structure of this size.
        held = ctypes.cast(information, ctypes.POINTER(ExtendedLimits)).contents
        self.limits = held.basic.limit_flags
        return self._done("SetInformationJobObject", job, kind, size)

    def OpenProcess(self, access: int, inherit: bool, pid: int, /) -> int:  # noqa: N802
        return self._handle(200 + pid, "OpenProcess", access, inherit, pid)

    def AssignProcessToJobObject(self, job: int, process: int, /) -> int:  # noqa: N802
        return self._done("AssignProcessToJobObject", job, process)

    def TerminateJobObject(self, job: int, code: int, /) -> int:  # noqa: N802
        return self._done("TerminateJobObject", job, code)

    def CloseHandle(self, handle: int, /) -> int:  # noqa: N802
        self.open_handles.remove(handle)
        return self._done("CloseHandle", handle)


def test_what_is_in_a_job_ends_with_its_handle() -> None:
    """Windows closes the handle when our process ends, in whatever way."""
    windows = Windows()
    job = Job(windows)
    job.assign(7)
    assert windows.limits == KILL_ON_JOB_CLOSE
    assert windows.open_handles == {100}, "the process's own handle is closed again"
    job.terminate()
    job.close()
    job.close()
    job.terminate()
    assert windows.open_handles == set()
    assert [call for call in windows.calls if call[0] != "CloseHandle"] == [
        ("CreateJobObjectW",),
        # 144 bytes on a system of 64 bits, which is what Windows wants to hear.
        ("SetInformationJobObject", 100, 9, ctypes.sizeof(ExtendedLimits)),
        ("OpenProcess", 0x0101, False, 7),
        ("AssignProcessToJobObject", 100, 207),
        ("TerminateJobObject", 100, 1),
    ]


def test_the_structure_is_as_long_as_that_of_windows() -> None:
    """`sizeof(JOBOBJECT_EXTENDED_LIMIT_INFORMATION)` where pointers have 64 bits."""
    if ctypes.sizeof(ctypes.c_void_p) == 8:
        assert ctypes.sizeof(ExtendedLimits) == 144
        assert ExtendedLimits.basic.offset == 0


@pytest.mark.parametrize(
    "call",
    ["CreateJobObjectW", "SetInformationJobObject", "OpenProcess", "AssignProcessToJobObject"],
)
def test_a_failure_leaves_no_handle_behind(call: str) -> None:
    """And is an `OSError` that names the call."""
    windows = Windows(fails=call)
    with pytest.raises(OSError, match=call.removesuffix("W")):
        job = Job(windows)
        try:
            job.assign(7)
        finally:
            job.close()
    assert windows.open_handles == set()


@attrs.define
class Process:
    """A process that was started suspended."""

    pid: int = 7
    returncode: int | None = None
    stdin: None = None
    stdout: None = None
    stderr: None = None
    events: list[str] = attrs.field(factory=list)

    async def wait(self) -> int:
        """Wait for an end that has come."""
        await trio.lowlevel.checkpoint()
        self.returncode = 1
        return 1

    def kill(self) -> None:
        """Note it."""
        self.events.append("kill")

    def resume(self) -> None:
        """Note it."""
        self.events.append("resume")


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    """The process that is started next, instead of a real one."""
    process = Process()

    async def open_process(command: list[str], **options: Any) -> Process:
        await trio.lowlevel.checkpoint()
        assert options["creationflags"] & 0x4, "suspended"
        process.events.append(" ".join(command))
        return process

    monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
    monkeypatch.setattr(psutil, "Process", lambda pid: process)
    return process


OPTIONS = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


async def test_a_child_runs_only_once_it_is_in_its_job(process: Process) -> None:
    """What it started before would be outside; and it ends with all of the job."""
    windows = Windows()
    child = await _child._start_in_job(["program"], Job(windows), "mark", OPTIONS)
    assert process.events == ["program", "resume"]
    assert child.pid == 7
    await child.end(0.0)
    assert ("TerminateJobObject", 100, 1) in windows.calls
    assert windows.open_handles == set()


async def test_a_child_that_is_in_no_job_does_not_run(process: Process) -> None:
    """It is killed, still suspended."""
    windows = Windows(fails="AssignProcessToJobObject")
    with pytest.raises(OSError, match="AssignProcessToJobObject"):
        await _child._start_in_job(["program"], Job(windows), "mark", OPTIONS)
    assert process.events == ["program", "kill"]
    assert windows.open_handles == set()
