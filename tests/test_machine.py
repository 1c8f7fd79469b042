"""The measurements of this machine, on machines made of files and fakes."""

from __future__ import annotations

import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import psutil
import pytest

from punch.capability import Capability, Gpu
from punch.machine import Machine, MachineSample

GIB = 2**30
CpuTimes = namedtuple("CpuTimes", "user system idle iowait guest guest_nice")


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine of 8 CPUs and 16 GiB, without a GPU; tests change it."""
    host: dict[str, Any] = {"times": CpuTimes(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)}
    memory = SimpleNamespace(total=16 * GIB, available=10 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(psutil, "cpu_times", lambda: host["times"])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    return host


def machine(tmp_path: Path, cgroup: dict[str, str] | None = None) -> Machine:
    """A machine with these control group files."""
    for name, text in (cgroup or {}).items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(models_folder=tmp_path / "not" / "there", cgroup=tmp_path / "cgroup")


def test_a_sample_has_the_fields_of_a_capability() -> None:
    """So that one can be filled from the other."""
    names = {field.name for field in attrs.fields(MachineSample)}
    assert names <= {field.name for field in attrs.fields(Capability)}


def test_a_bare_machine_is_measured_whole(tmp_path: Path) -> None:
    """No control group, no GPU; the disk is that of the nearest folder that exists."""
    sample = machine(tmp_path).sample()
    assert (sample.cpu_count, sample.gpus) == (8, ())
    assert (sample.memory_total_bytes, sample.memory_available_bytes) == (16 * GIB, 10 * GIB)
    assert sample.disk_total_bytes == psutil.disk_usage(str(tmp_path)).total


def test_cpu_usage_is_the_share_since_the_sample_before(
    tmp_path: Path, host: dict[str, Any]
) -> None:
    """Waiting for a disk is not work, and guests are not counted twice."""
    measured = machine(tmp_path)
    host["times"] = CpuTimes(user=3.0, system=1.0, idle=5.0, iowait=1.0, guest=2.0, guest_nice=0.0)
    # 10 s passed in all, of which the 2 s of the guest are in `user`.
    assert measured.sample().cpu_usage == pytest.approx(4 / 10)
    host["times"] = CpuTimes(user=3.0, system=1.0, idle=15.0, iowait=1.0, guest=2.0, guest_nice=0.0)
    assert measured.sample().cpu_usage == 0.0


def test_two_samples_in_one_tick_say_the_same(tmp_path: Path, host: dict[str, Any]) -> None:
    """And before the first tick nothing is said."""
    measured = machine(tmp_path)
    assert measured.sample().cpu_usage is None
    host["times"] = CpuTimes(1.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    assert [measured.sample().cpu_usage for _ in range(3)] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_container_has_the_cpus_it_was_given(
    tmp_path: Path, files: dict[str, str], count: int
) -> None:
    """A part of a CPU counts as one."""
    assert machine(tmp_path, files).sample().cpu_count == count


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        ({"memory.max": "max\n", "memory.current": f"{GIB}\n"}, 16, 10),
        ({"memory.max": f"{4 * GIB}\n", "memory.current": f"{GIB}\n"}, 4, 3),
        (
            {
                "memory.max": f"{4 * GIB}\n",
                "memory.current": f"{3 * GIB}\n",
                "memory.stat": f"anon 5\ninactive_file {2 * GIB}\n",
            },
            4,
            3,
        ),
        ({"memory.max": f"{64 * GIB}\n", "memory.current": f"{GIB}\n"}, 16, 10),
        ({"memory.max": f"{15 * GIB}\n", "memory.current": f"{GIB}\n"}, 15, 10),
        (
            {
                "memory/memory.limit_in_bytes": f"{2 * GIB}\n",
                "memory/memory.usage_in_bytes": f"{GIB}\n",
            },
            2,
            1,
        ),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 16, 10),
    ],
)
def test_a_container_has_the_memory_it_was_given(
    tmp_path: Path, files: dict[str, str], total: int, available: int
) -> None:
    """The lower of the two limits counts; cached files can be dropped."""
    sample = machine(tmp_path, files).sample()
    assert (sample.memory_total_bytes, sample.memory_available_bytes) == (
        total * GIB,
        available * GIB,
    )


def test_what_cannot_be_measured_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never invented, never an error."""

    def fail(*_: object) -> None:
        raise OSError

    for name in ("virtual_memory", "cpu_times", "disk_usage"):
        monkeypatch.setattr(psutil, name, fail)
    assert machine(tmp_path).sample() == MachineSample(cpu_count=8)


class NvmlError(Exception):
    """What the fake driver raises."""


def driver(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> ModuleType:
    """A driver with two GPUs; *functions* change it."""
    module = ModuleType("pynvml")
    defaults = {
        "NVMLError": NvmlError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=24 * GIB, free=20 * GIB),
        "nvmlDeviceGetName": lambda index: f"GPU {index}".encode() if index else "GPU 0",
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=25),
        "nvmlDeviceGetNumGpuCores": lambda _: 16384,
    }
    for name, function in (defaults | functions).items():
        if function is not None:
            setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def fails(*_: object) -> Any:
    """A call that the driver refuses."""
    raise NvmlError


def gpu(name: str, **changes: Any) -> Gpu:
    """One GPU of the fake driver."""
    facts = {"total_bytes": 24 * GIB, "free_bytes": 20 * GIB, "usage": 0.25, "compute_units": 16384}
    return Gpu(name=name, **(facts | changes))


def test_gpus_are_described_by_their_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names may be bytes, as in older versions of the library."""
    driver(monkeypatch)
    assert machine(tmp_path).sample().gpus == (gpu("GPU 0"), gpu("GPU 1"))


def test_what_a_gpu_does_not_say_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old libraries lack a function; some GPUs refuse an answer."""
    driver(monkeypatch, nvmlDeviceGetUtilizationRates=fails, nvmlDeviceGetNumGpuCores=None)
    expected = gpu("GPU 0", usage=None, compute_units=None)
    assert machine(tmp_path).sample().gpus[0] == expected


def test_a_gpu_that_fails_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fell off the bus."""
    driver(
        monkeypatch,
        nvmlDeviceGetHandleByIndex=lambda index: index or fails(),
    )
    assert machine(tmp_path).sample().gpus == (gpu("GPU 1"),)


@pytest.mark.parametrize("name", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetMemoryInfo"])
def test_a_failing_driver_means_no_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Everything else is still measured."""
    driver(monkeypatch, **{name: fails})
    sample = machine(tmp_path).sample()
    assert (sample.gpus, sample.cpu_count) == ((), 8)


def test_after_close_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing twice, or with a driver that fails, does no harm."""
    driver(monkeypatch, nvmlShutdown=fails)
    measured = machine(tmp_path)
    measured.close()
    measured.close()
    assert measured.sample().gpus == ()
