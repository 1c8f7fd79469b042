"""Programs write themselves down, and `punch down` ends those that have, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from punch.cli import ExitCode
from punch.cli.running import noted, running_here
from punch.cli.running._down import down, end
from punch.processes import ProcessMark
from punch.settings import data_folder

# What a program is that hears the first word, the second, or none; it says so when it listens.
HEEDS = "import time; print(flush=True); time.sleep(60)"
DRAINS = """
import signal, sys, time
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1) if not heard else sys.exit(0))
print(flush=True)
while True:
    time.sleep(60)
"""
IGNORES = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that runs on this machine is written down here."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in data_folder().parents


@contextmanager
def program(code: str, name: str = "punch listener") -> Iterator[subprocess.Popen[bytes]]:
    """A process that is written down as a program of punch's."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            write_down(process.pid, name)
            yield process
        finally:
            process.kill()


def write_down(pid: int, name: str = "punch listener", **other: str) -> Path:
    """Write a process down, as it does itself."""
    mark = ProcessMark.of(pid)
    assert mark is not None
    folder = data_folder() / "running"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pid}.json"
    path.write_text(json.dumps({"name": name, **attrs.asdict(mark), **other}))
    return path


def test_a_program_is_written_down_for_as_long_as_it_runs() -> None:
    """And what is written is gone with it."""
    with noted("punch serve"):
        (one,) = running_here()
        assert one.name == "punch serve"
        assert one.mark == ProcessMark.of(os.getpid())
    assert running_here() == ()
    assert list((data_folder() / "running").iterdir()) == []


def test_what_a_killed_program_has_left_is_forgotten() -> None:
    """Its number may be another's, who is none of ours."""
    stale = write_down(os.getpid(), start="0")
    other_boot = write_down(os.getppid(), boot="another")
    assert running_here() == ()
    assert not stale.exists()
    assert not other_boot.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1}', "[" * 2000, "\0", '{"pid": "1"}'])
def test_a_file_that_says_nothing_ends_nobody(text: str) -> None:
    """Whatever is in it."""
    (data_folder() / "running").mkdir(parents=True)
    (data_folder() / "running" / "1.json").write_text(text)
    assert running_here() == ()


def test_a_program_runs_though_it_cannot_be_written_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`punch down` does not know of it then, and it says so."""
    data_folder().mkdir(parents=True)
    (data_folder() / "running").write_text("no folder")
    with noted("punch serve"):
        assert running_here() == ()
    assert "`punch down` will not find this program" in caplog.text


def test_what_could_not_be_written_is_not_left_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is none the fuller."""

    def fail(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with noted("punch serve"):
        assert list((data_folder() / "running").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "status"), [(HEEDS, -signal.SIGTERM), (DRAINS, 0), (IGNORES, -signal.SIGKILL)]
)
def test_a_program_is_told_to_end_then_told_again_and_then_killed(
    code: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them only when the one before had no effect."""
    monkeypatch.setattr("punch.cli.running._down.MORE_SECONDS", 0.5)
    with program(code) as process, program(HEEDS, name="another") as other:
        meant = [each for each in running_here() if each.mark.pid == process.pid]
        assert end(meant, patience=0.2) == ()
        assert process.wait() == status
        assert other.poll() is None


def test_one_that_does_not_end_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that is none of ours to signal is waited for, and told of."""

    def refuse(mark: ProcessMark, number: signal.Signals) -> bool:
        raise PermissionError

    monkeypatch.setattr("punch.cli.running._down.MORE_SECONDS", 0.05)
    with program(HEEDS) as process, monkeypatch.context() as context:
        context.setattr(ProcessMark, "send", refuse)
        assert down(["--patience", "0"]) == ExitCode.BACKEND
        assert process.poll() is None
        assert f"(process {process.pid}) has not ended" in capsys.readouterr().err


def test_nothing_runs_and_that_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """A second `punch down` is as good as the first."""
    assert down([]) == 0
    assert "no program of punch runs here" in capsys.readouterr().err


def test_the_command_says_whom_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """By what was typed to run it, and its process."""
    with program(HEEDS) as process:
        assert down(["--patience", "5"]) == 0
        assert process.wait() == -signal.SIGTERM
        assert f"ending `punch listener` (process {process.pid})" in capsys.readouterr().err
