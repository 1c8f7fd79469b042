"""Measures this machine: processors, memory, disk, GPUs; what follows from it is decided elsewhere.

What cannot be measured is `None` or left out; nothing is made up. In a container the
limits of its control group count, since that is what a backend can use.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import psutil

from .capability import Gpu

# A container's own group: cgroup v2 as its namespace shows it, then the names of v1.
_CGROUP: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 2**60  # cgroup v1 says "no limit" with a number above any real memory.


@attrs.frozen(kw_only=True)
class MachineSample:
    """A measurement at one instant. The fields are those of `Capability`."""

    cpu_count: int | None = None
    """Logical CPUs that this process may use, at least 1."""

    cpu_usage: float | None = None
    """Share of all CPUs in use since the sample before, 0 to 1; by all processes."""

    memory_total_bytes: int | None = None
    """Main memory that this process may use, in bytes."""

    memory_available_bytes: int | None = None
    """The part of it that a new program could use, in bytes."""

    disk_total_bytes: int | None = None
    """Size of the disk that holds the models, in bytes."""

    disk_available_bytes: int | None = None
    """Free space on it for this user, in bytes."""

    gpus: tuple[Gpu, ...] = ()
    """NVIDIA GPUs, as their driver describes them."""


class Machine:
    """Takes samples of the machine it runs on.

    One sample takes well below a millisecond without a GPU, and about one a GPU. It blocks
    for that long and no longer. Not thread-safe.

    Args:
      models_folder: The disk that holds this folder is measured. It need not exist yet.
      cgroup: Where the control group of this process is found.

    """

    def __init__(self, *, models_folder: Path, cgroup: Path = _CGROUP) -> None:
        self._folder = models_folder
        self._cgroup = cgroup
        self._nvml = _open_nvml()
        self._times = _cpu_times()
        self._usage: float | None = None

    def sample(self) -> MachineSample:
        """Measure now."""
        memory_total, memory_available = measure_memory(self._cgroup)
        disk_total, disk_available = self._disk()
        return MachineSample(
            cpu_count=self._cpu_count(),
            cpu_usage=self._cpu_usage(),
            memory_total_bytes=memory_total,
            memory_available_bytes=memory_available,
            disk_total_bytes=disk_total,
            disk_available_bytes=disk_available,
            gpus=self._gpus(),
        )

    def close(self) -> None:
        """Let go of the GPU driver. There are no GPUs in samples after this."""
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
            self._nvml = None

    def _cpu_count(self) -> int | None:
        count = _usable_cpus()
        quota = self._cpu_quota()
        if quota is not None:
            # Half a CPU still runs a thread.
            count = min(count or quota, max(quota, 1))
        return count

    def _cpu_quota(self) -> int | None:
        """CPUs that the control group may use, rounded up."""
        words = (_text(self._cgroup / "cpu.max") or "").split()
        if len(words) != 2:
            quota = _number(self._cgroup / "cpu" / "cpu.cfs_quota_us")
            period = _number(self._cgroup / "cpu" / "cpu.cfs_period_us")
        else:
            quota, period = (int(word) if word.isdigit() else None for word in words)
        if quota is None or period is None or quota <= 0 or period <= 0:
            return None
        return -(-quota // period)

    def _cpu_usage(self) -> float | None:
        before, now = self._times, _cpu_times()
        if before is None or now is None:
            self._times, self._usage = now, None
        elif now[1] > before[1]:
            share = (now[0] - before[0]) / (now[1] - before[1])
            self._times, self._usage = now, min(1.0, max(0.0, share))
        # Otherwise the kernel's clock (10 ms) has not moved: the last answer still stands.
        return self._usage

    def _disk(self) -> tuple[int | None, int | None]:
        folder = self._folder
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        try:
            usage = psutil.disk_usage(str(folder))
        except OSError:
            return None, None
        return int(usage.total), int(usage.free)

    def _gpus(self) -> tuple[Gpu, ...]:
        if self._nvml is None:
            return ()
        gpus: list[Gpu] = []
        with contextlib.suppress(self._nvml.NVMLError):
            for i in range(self._nvml.nvmlDeviceGetCount()):
                with contextlib.suppress(self._nvml.NVMLError):
                    gpus.append(self._gpu(self._nvml.nvmlDeviceGetHandleByIndex(i)))
        return tuple(gpus)

    def _gpu(self, handle: Any) -> Gpu:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = nvml.nvmlDeviceGetName(handle)
        usage = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        return Gpu(
            # Older versions of the library answer bytes.
            name=name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
            total_bytes=int(memory.total),
            free_bytes=int(memory.free),
            usage=None if usage is None else min(1.0, usage / 100),
            compute_units=self._ask(lambda: nvml.nvmlDeviceGetNumGpuCores(handle)),
        )

    def _ask(self, question: Callable[[], int]) -> int | None:
        """The driver's answer, or `None`: not every GPU and driver can say everything."""
        try:
            return int(question())
        except (self._nvml.NVMLError, AttributeError):
            return None


def measure_memory(cgroup: Path = _CGROUP) -> tuple[int | None, int | None]:
    """Main memory that a program of this machine may use, and the part that is free, in bytes.

    Args:
      cgroup: Where the control group of this process is found.

    """
    try:
        memory = psutil.virtual_memory()
    except (OSError, RuntimeError, ValueError, psutil.Error):
        return None, None
    total, available = int(memory.total), int(memory.available)
    limit, used = _memory_limit(cgroup)
    if limit is not None and limit < total:
        total = limit
        available = min(available, max(0, limit - used)) if used is not None else available
    return total, min(total, available)


def _memory_limit(cgroup: Path) -> tuple[int | None, int | None]:
    """Bytes that the control group may use, and bytes it uses that cannot be dropped."""
    limit = _number(cgroup / "memory.max")
    used = _number(cgroup / "memory.current")
    statistics = cgroup / "memory.stat"
    if limit is None and used is None:
        limit = _number(cgroup / "memory" / "memory.limit_in_bytes")
        used = _number(cgroup / "memory" / "memory.usage_in_bytes")
        statistics = cgroup / "memory" / "memory.stat"
    if limit is None or limit >= _UNLIMITED:
        return None, None
    if used is not None:
        # Cached files count as used until a program needs the memory.
        used = max(0, used - _field(statistics, "inactive_file"))
    return limit, used


def _open_nvml() -> Any:
    """NVIDIA's library, ready for use, or `None` without the library, its driver or a GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _cpu_times() -> tuple[float, float] | None:
    """CPU seconds spent working, and in all, since the machine started."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, psutil.Error):
        return None
    # Guests are counted in `user` and `nice` already (proc_stat(5)).
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _usable_cpus() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):
            return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None


def _number(path: Path) -> int | None:
    """The number in a file of the kernel; `None` if it says ``max``, ``-1`` or is not there."""
    text = (_text(path) or "").strip()
    return int(text) if text.isdigit() else None


def _field(path: Path, name: str) -> int:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0
