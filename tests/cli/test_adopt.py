"""``punch adopt``: servers that are named, kept in the settings file, and told to a running up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import trio
from integration.programs import free_port
from model_servers import Ollama

from punch.__main__ import _run
from punch.admin import Call, open_admin
from punch.adoption import Given, Seen, look_once
from punch.cli import ExitCode
from punch.cli.adopting._wanted import as_given, wanted
from punch.exceptions import ConfigurationError
from punch.settings import Adoptee, AdoptingSettings, load, parse_flags, read_settings_file


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file that is not there yet, in a home where nothing runs."""
    found = tmp_path / "settings.toml"
    found.touch()
    monkeypatch.setenv("PUNCH_SETTINGS", str(found))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("PUNCH_ADOPT", raising=False)
    # Nothing leaves this machine, not even the question who `nas` is.
    monkeypatch.setattr("punch.cli.adopting._adopt.look_once", nowhere)
    return found


async def nowhere(given: Given) -> Seen:
    """What is at servers that are not there."""
    return "nothing"


def kept(path: Path) -> list[str]:
    servers = load(AdoptingSettings, {}, {}, read_settings_file(path)).servers
    return [str(each) for each in servers]


def test_servers_are_named_listed_and_removed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one address the last word counts, with ``/v1`` or without; without a running punch too."""
    for typed in (
        ["nas:11434"],
        ["http://other:8000/v1", "--model", "m", "--features", "chat,tools", "--slots", "2"],
        ["http://nas:11434/v1", "--context", "8192", "--key", "@NAS_KEY"],
    ):
        assert _run(["adopt", *typed]) == ExitCode.OK
    assert kept(path) == [
        "http://other:8000/v1 model=m features=chat,tools slots=2",
        "http://nas:11434/v1 context=8192 key=@NAS_KEY",
    ]
    assert "does not run now" in capsys.readouterr().out
    assert _run(["adopt", "list"]) == ExitCode.OK
    assert "http://nas:11434/v1   named  -        not running  -" in capsys.readouterr().out
    assert _run(["adopt", "remove", "other:8000"]) == ExitCode.OK
    assert kept(path) == ["http://nas:11434/v1 context=8192 key=@NAS_KEY"]
    assert _run(["adopt", "remove", "http://nas:11434"]) == ExitCode.OK
    assert kept(path) == []
    capsys.readouterr()
    assert _run(["adopt"]) == ExitCode.OK
    assert "nothing is adopted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["ftp://nas"], "it must look like"),
        (["http://me:hunter2@nas"], "no key, user or password"),
        (["nas", "--key", "@"], "does not take the key itself"),
        (["nas", "--features", "fly"], "it must be one of chat"),
        (["nas model=x"], "has no blanks"),
        (["remove", "nas"], "is not in"),
    ],
)
def test_what_makes_no_sense_is_refused(
    typed: list[str], words: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the rule and the remedy, and without a password; the file stays as it was."""
    assert _run(["adopt", *typed]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert words in said
    assert "hunter2" not in said
    assert path.read_text() == ""


@contextmanager
def running(folder: Path, status: dict[str, Any]) -> Iterator[list[str]]:
    """A `punch up` that has *status*; gives the commands that it got."""
    told: list[str] = []
    is_up, is_over = Event(), Event()

    async def serve() -> None:
        async def reload(call: Call) -> Any:
            told.append("reload")

        async def list_(call: Call) -> Any:
            told.append("status")
            return status

        async with open_admin(folder, {"reload": reload, "status": list_}):
            is_up.set()
            await trio.to_thread.run_sync(is_over.wait)

    thread = Thread(target=trio.run, args=(serve,))
    thread.start()
    is_up.wait(10)
    try:
        yield told
    finally:
        is_over.set()
        thread.join()


def test_a_running_up_is_told_and_says_how_its_servers_are(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it has found, what was named, and what it does not know of yet."""
    row = {
        "url": "http://127.0.0.1:11434", "program": "ollama", "how": "found", "state": "resting",
        "reason": "its server cannot be reached", "models": ["a", "b"], "lane": "ollama",
    }  # fmt: skip
    with running(path.parent / "data" / "punch" / "admin", {"adopted": [row]}) as told:
        assert _run(["adopt", "nas:8000"]) == ExitCode.OK
        assert capsys.readouterr().out == "http://nas:8000 is adopted from now on\n"
        assert _run(["adopt", "list"]) == ExitCode.OK
        lines = capsys.readouterr().out.splitlines()
        assert _run(["adopt", "list", "--json"]) == ExitCode.OK
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == ["reload", "status", "status"]
    assert lines[1].split() == [
        "http://127.0.0.1:11434", "found", "ollama", "resting:", "its", "server", "cannot", "be",
        "reached", "a,", "b",
    ]  # fmt: skip
    assert lines[2].split() == ["http://nas:8000", "named", "-", "looking", "-"]
    assert rows[0] == row


def test_a_server_is_looked_at_before_it_is_kept(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is away is waited for; a gateway of punch is refused, and nothing is kept."""
    monkeypatch.setattr("punch.cli.adopting._adopt.look_once", look_once)
    server, gateway = Ollama("a"), Ollama("a")
    gateway.owner = "punch"
    with server.serve(free_port()) as url, gateway.serve(free_port()) as other:
        assert _run(["adopt", url]) == ExitCode.OK
        assert capsys.readouterr().err == ""
        assert _run(["adopt", other]) == ExitCode.USAGE
        assert "a gateway of punch answers there" in capsys.readouterr().err
    assert _run(["adopt", other]) == ExitCode.OK
    assert f"{other} is waited for: its server cannot be reached" in capsys.readouterr().err
    assert kept(path) == [url, other]


def test_a_key_is_read_where_it_is_said_to_be(tmp_path: Path) -> None:
    """From a variable or a file, and never shown."""
    file = tmp_path / "key"
    file.write_text(" hunter2\n")
    for key, environment in ((f"{file}", {}), ("@NAS_KEY", {"NAS_KEY": "hunter2 "})):
        made = as_given(Adoptee(url="http://nas", key=key), environment)
        assert made.key == "hunter2"
        assert "hunter2" not in repr(made)


def test_a_key_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With its place and what to do."""
    empty = tmp_path / "empty"
    empty.touch()
    for key, words in (
        ("@NAS_KEY", "the variable NAS_KEY, which is not set"),
        (f"{tmp_path / 'none'}", "No such file"),
        (f"{empty}", "is to hold the key"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            as_given(Adoptee(url="http://nas", key=key), {})


def test_nothing_is_looked_for_where_nobody_asked() -> None:
    """In an open namespace only what was named is adopted; with --no-adopt nothing at all."""

    def made(*typed: str) -> AdoptingSettings:
        return load(AdoptingSettings, parse_flags("up", "", AdoptingSettings, typed), {})

    given, places = wanted(made("--adopt", "nas"), is_closed=False, environment={})
    assert ([each.url for each in given], places) == (["http://nas"], ())
    assert wanted(made(), is_closed=True, environment={})[1] != ()
    assert wanted(made("--no-adopt", "--adopt", "nas"), is_closed=True, environment={}) == ((), ())
