"""A program without a terminal: it is waited for until it is up, or has failed, and stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from punch.cli import ExitCode
from punch.cli.running import _detach
from punch.cli.running._asking import ask, log_path
from punch.cli.running._detach import command_of, detach, is_up, runs_already
from punch.settings import data_folder

# What stands in for `punch up`: it is up a moment after it began.
UP = """
import os, sys, trio
from punch.admin import open_admin
from punch.cli.running._asking import admin_folder

async def main():
    status = {"process": os.getpid(), "state": "starting", "code": sys.stdin.readline()}

    async def said(call):
        return status

    async with open_admin(admin_folder(), {"status": said}):
        await trio.sleep(0.3)
        status["addresses"] = {"openai": "http://127.0.0.1:1/v1"}
        print("the session is", os.getsid(0), flush=True)
        await trio.sleep(60)

trio.run(main)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that runs on this machine is asked."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in data_folder().parents


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that were started, which end with the test."""
    found: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            found.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    yield found
    for process in found:
        process.kill()
        process.wait()


def instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have *code* run in the place of `punch up`."""
    monkeypatch.setattr(_detach, "command_of", lambda *_: [sys.executable, "-c", code])


def test_what_is_typed_goes_to_the_program_and_the_flag_does_not() -> None:
    """A flag of the log that was typed comes later, and counts."""
    command = command_of(["--detach", "--port", "1"], Path("up.log"))
    assert command[1:] == ["-m", "punch", "up", "--log-file", "up.log", "--port", "1"]


def test_what_is_printed_never_goes_over_the_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[subprocess.Popen[bytes]],
) -> None:
    """Whatever the log is called."""
    log_file = tmp_path / "punch.out"
    log_file.write_text("of yesterday\n")
    instead(monkeypatch, UP)
    assert detach([], log_file=log_file, asks_code=False) == ExitCode.OK
    assert log_file.read_text() == "of yesterday\n"
    assert "the session is" in (tmp_path / "punch.printed").read_text()


def test_a_typed_code_is_on_no_command_line_of_what_stays(
    monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    """It goes through standard input, which nobody else reads."""
    commands: list[list[str]] = []

    def note(arguments: list[str], log_file: Path) -> list[str]:
        commands.append(command_of(arguments, log_file))
        return [sys.executable, "-c", UP]

    monkeypatch.setattr(_detach, "command_of", note)
    typed = ["punch1secret", "--detach", "--port", "1"]
    assert detach(typed, log_file=None, asks_code=False, code="punch1secret") == ExitCode.OK
    ((*_, last),) = commands
    assert "punch1secret" not in " ".join(commands[0])
    assert "-" in commands[0]
    assert last == "1"
    assert ask("status")["code"] == "punch1secret\n"


@pytest.mark.parametrize(
    ("said", "up"),
    [
        ({"process": 5, "addresses": {"openai": "x"}}, True),
        ({"process": 6, "addresses": {"openai": "x"}}, False),
        ({"process": 5, "addresses": None}, False),
        ({}, False),
    ],
)
def test_it_is_up_once_this_very_process_serves(said: dict[str, object], up: bool) -> None:
    """Another one that runs already is not taken for it."""
    assert is_up(said, 5) is up


def test_it_stays_in_a_session_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    started: list[subprocess.Popen[bytes]],
) -> None:
    """Whoever started it is told where programs ask, and may log out."""
    instead(monkeypatch, UP)
    assert not runs_already()
    assert detach([], log_file=None, asks_code=False) == ExitCode.OK
    said = capsys.readouterr()
    (process,) = started
    assert runs_already()
    assert "http://127.0.0.1:1/v1" in said.out
    assert "`punch down` ends it" in said.err
    assert os.getsid(process.pid) == process.pid
    assert ask("status")["code"] == "", "it has no standard input"
    printed = log_path().with_suffix(".out")
    assert printed.stat().st_mode & 0o777 == 0o600
    assert printed.read_text() == f"the session is {process.pid}\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("import sys; print('punch: no port', file=sys.stderr); sys.exit(7)", 7, "punch: no port"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 8, "was ended by signal 9"),
        ("import sys; print('odd'); sys.exit(77)", 1, "odd"),
    ],
)
def test_what_fails_is_told_with_what_it_said(
    code: str,
    exit_code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With its exit code."""
    instead(monkeypatch, code)
    assert detach([], log_file=None, asks_code=False) == exit_code
    assert words in capsys.readouterr().err


def test_what_takes_too_long_goes_on_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    started: list[subprocess.Popen[bytes]],
) -> None:
    """It may still come up; how to look at it and how to end it is said."""
    monkeypatch.setattr(_detach, "START_SECONDS", 0.3)
    instead(monkeypatch, "import time; time.sleep(60)")
    assert detach([], log_file=None, asks_code=False) == ExitCode.DEADLINE
    (process,) = started
    assert process.poll() is None
    assert f"(process {process.pid}) is not up after" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started then."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"file/up.out cannot be written: .*--log-file"):
        detach([], log_file=tmp_path / "file" / "up.log", asks_code=False)
