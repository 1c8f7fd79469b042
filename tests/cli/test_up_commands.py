"""The commands to a running `punch up`: what they print, and how they end where none runs."""

from __future__ import annotations

import json
import os
import webbrowser
from pathlib import Path
from typing import Any

import pytest
import trio
from running_up import running_up, saying

from punch.admin import Call
from punch.cli import ExitCode
from punch.cli._columns import width_of
from punch.cli.running import _logs as logs_module
from punch.cli.running import noted
from punch.cli.running._asking import log_path
from punch.cli.running._logs import logs
from punch.cli.running._open import has_screen, open_dashboard
from punch.cli.running._reload import reload
from punch.cli.running._status import status
from punch.cli.running._table import table_of
from punch.exceptions import ConfigurationError
from punch.settings import data_folder

URL = "http://127.0.0.1:11435"

STATUS: dict[str, Any] = {
    "state": "serving",
    "process": 4242,
    "version": "0.15.0",
    "namespace": "home@abcdefgh",
    "is_closed": True,
    "is_new": True,
    "is_admin": True,
    "name": "desk",
    "peer": "12D3KooWPnzyP1m2hUFpy1DAJwCrU5d1VFobf1Mp6KdeJ97uimh3",
    "roles": ["listener", "gateway", "meeting point"],
    "listens": ["/ip4/192.168.1.5/tcp/21820"],
    "addresses": {
        "gateway": URL,
        "openai": f"{URL}/v1",
        "ollama": "http://127.0.0.1:11434",
        "anthropic": URL,
        "dashboard": f"{URL}/",
    },
    "has_keys": True,
    "models": ["llama3.2:1b", "smollm2"],
    "members": [
        {
            "name": "desk",
            "machine": "a",
            "is_here": True,
            "is_connected": True,
            "models": ["smollm2"],
        },
        {"name": "kitchen", "machine": "b", "is_here": False, "is_connected": True, "models": []},
        {"name": "attic", "machine": "c", "is_here": False, "is_connected": False, "models": []},
    ],
    "lanes": [
        {
            "name": "ollama",
            "backend": "openai",
            "state": "resting",
            "models": ["llama3.2:1b"],
            "simulated": False,
            "slots": 4,
            "busy": 1,
            "reason": "the server does not answer",
        }
    ],
    "adopted": [
        {
            "url": "http://127.0.0.1:11434",
            "program": "Ollama",
            "how": "found",
            "state": "resting",
            "reason": "the server does not answer",
            "models": ["llama3.2:1b"],
        },
        {"url": "http://127.0.0.1:1234", "how": "found", "state": "looking", "models": []},
        {"url": "http://nas:8000", "program": "vLLM", "how": "named", "state": "looking"},
    ],
    "workers": ["kitchen lends 8.0 GB"],
    "waits_for": ["an Ollama at http://127.0.0.1:11434"],
    "wrong": ["port 11434 is another program's: Ollama's own address is not served " * 2],
}

TABLE = """\
punch 0.15.0 (process 4242) is serving
  namespace  home@abcdefgh (closed; this machine may let others in)
  here       desk
  roles      listener, gateway, meeting point
  OpenAI     http://127.0.0.1:11435/v1
  Ollama     http://127.0.0.1:11434
  Anthropic  http://127.0.0.1:11435
  dashboard  http://127.0.0.1:11435/
  API keys   every request needs one
  models     llama3.2:1b, smollm2

members
  name     state  models
  desk     here   smollm2
  kitchen  there  -
  attic    away   -

lanes
  name    backend  state    busy  models
  ollama  openai   resting  1/4   the server does not answer

adopted
  url                     program  how    state    models
  http://127.0.0.1:11434  Ollama   found  resting  the server does not answer
  http://nas:8000         vLLM     named  looking  -

workers
  kitchen lends 8.0 GB

waits for
  an Ollama at http://127.0.0.1:11434

wrong
  port 11434 is another program's: Ollama's own address is not served port 11434
    is another program's: Ollama's own address is not served"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that runs on this machine is asked."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in data_folder().parents


@pytest.mark.parametrize("command", [status, logs, open_dashboard, reload])
def test_where_nothing_runs_there_is_a_code_for_that(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what to type."""
    assert command([]) == ExitCode.NOT_RUNNING
    said = capsys.readouterr()
    assert said.out == ""
    assert "no `punch up` of this user runs here: start it with `punch up`" in said.err


# ---- status ----


def test_other_programs_that_run_are_named_where_no_up_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A listener that somebody has started is no `punch up`, and is not nothing."""
    with noted("punch listener"):
        assert status([]) == ExitCode.NOT_RUNNING
    assert f"`punch listener` runs (process {os.getpid()})" in capsys.readouterr().err


def test_the_table_has_all_that_is_known() -> None:
    """In eighty columns."""
    assert "\n".join(table_of(STATUS)) == TABLE


@pytest.mark.parametrize("width", [80, 60])
def test_the_table_fits_its_columns(width: int) -> None:
    """Names give way, whatever they are called; nothing in it is obeyed by a terminal."""
    member = {
        "name": "\x1b[31mk\n" + "漢" * 40,
        "is_connected": True,
        "models": ["model-" + "x" * 60, "y" * 60],
    }
    lines = table_of({**STATUS, "members": [member, *STATUS["members"]]}, width)
    assert max(map(width_of, lines)) <= width
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"state": None, "members": 5, "lanes": [1, None], "addresses": [], "models": "x"},
        {"members": [{}], "lanes": [{}], "wrong": [None, 1.5], "addresses": {}},
    ],
)
def test_what_another_version_leaves_out_is_left_out(said: dict[str, Any]) -> None:
    """No command fails because of it."""
    assert table_of(said)


def test_status_is_a_table_or_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for scripts."""
    with running_up({"status": saying(STATUS)}):
        assert status([]) == ExitCode.OK
        assert capsys.readouterr().out.startswith("punch 0.15.0 (process 4242) is serving\n")
        assert status(["--json"]) == ExitCode.OK
        assert json.loads(capsys.readouterr().out) == STATUS


def test_an_address_is_whole_in_eighty_columns() -> None:
    """The words beside it are shortened first."""
    url = "http://127.0.0.1:8000"
    server = {
        "url": url,
        "program": "vLLM, Lemonade or llama-cpp-python",
        "how": "found",
        "state": "left alone",
        "reason": "what answers there is no server of models",
    }
    lines = table_of({**STATUS, "adopted": [server, {**server, "url": f"{url}0"}]}, 80)
    rows = [line for line in lines if "left alone" in line]
    assert [row.split()[0] for row in rows] == [url, f"{url}0"]
    assert all(width_of(line) <= 80 for line in rows)


# ---- open ----


def test_the_dashboard_is_opened_and_its_address_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that it asks for a key, and which command makes one."""
    opened: list[str] = []

    def note(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", note)
    monkeypatch.setenv("DISPLAY", ":0")
    with running_up({"status": saying(STATUS)}):
        assert open_dashboard([]) == ExitCode.OK
    said = capsys.readouterr()
    assert opened == [f"{URL}/"]
    assert said.out == f"{URL}/\n"
    assert "`punch keys create NAME`" in said.err


def test_without_a_screen_no_browser_is_started(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in the terminal would be worse than the address."""

    def fail(url: str) -> bool:
        raise AssertionError

    monkeypatch.setattr(webbrowser, "open", fail)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    with running_up({"status": saying({**STATUS, "has_keys": False})}):
        assert open_dashboard([]) == ExitCode.OK
    said = capsys.readouterr()
    assert said.out == f"{URL}/\n"
    assert said.err == "punch: there is no screen here: open this address in a browser\n"


def test_without_a_browser_the_address_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is printed in any case."""
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    monkeypatch.setenv("DISPLAY", ":0")
    with running_up({"status": saying(STATUS)}):
        assert open_dashboard([]) == ExitCode.OK
    assert "no browser was found" in capsys.readouterr().err


def test_what_serves_nothing_yet_has_no_dashboard(capsys: pytest.CaptureFixture[str]) -> None:
    """It starts, or moves to another namespace."""
    with running_up({"status": saying({"state": "starting", "addresses": None})}):
        assert open_dashboard([]) == ExitCode.NETWORK
    assert "is starting, and serves nothing yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "platform", "has"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"BROWSER": "firefox"}, "linux", True),
        ({}, "darwin", True),
        ({}, "win32", True),
    ],
)
def test_where_a_browser_can_be_seen(environment: dict[str, str], platform: str, has: bool) -> None:
    """By the customs of the platform."""
    assert has_screen(environment, platform) is has


# ---- reload ----


def test_reload_says_what_changed_and_what_needs_a_restart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each with the values before and after."""
    value = {
        "changed": [{"name": "general.log_level", "before": "info", "after": "debug"}],
        "restart": [{"name": "gateway.port", "before": "11435", "after": "8080"}],
    }
    with running_up({"reload": saying(value)}):
        assert reload([]) == ExitCode.OK
    assert capsys.readouterr().out == (
        "changed general.log_level: info -> debug\nneeds a restart: gateway.port: 11435 -> 8080\n"
    )


def test_reload_without_a_change_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """It is no fault."""
    with running_up({"reload": saying({"changed": [], "restart": []})}):
        assert reload([]) == ExitCode.OK
    assert capsys.readouterr().out == "nothing has changed\n"


def test_a_broken_file_is_told_by_whoever_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code of a wrong setting, as at the start."""

    async def refuse(call: Call) -> None:
        raise ConfigurationError("settings.toml, line 3: gateway.port is 'x'")

    with running_up({"reload": refuse}):
        assert reload([]) == ExitCode.USAGE
    assert "settings.toml, line 3" in capsys.readouterr().err


# ---- logs ----

LINE = {
    "time": 1795899663.152,
    "level": "info",
    "logger": "punch.gateway",
    "event": "serving\x1b[31m",
    "fields": {"url": URL, "namespace": "home"},
}


def test_logs_are_lines_for_people_or_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """As many as were asked for; what was lost is told."""
    asked: list[Any] = []

    async def tell(call: Call) -> None:
        asked.append(dict(call.arguments))
        await call.tell({"lost": 0, "lines": [LINE]})
        await call.tell({"lost": 7, "lines": [LINE]})

    with running_up({"logs": tell}):
        assert logs(["--lines", "5"]) == ExitCode.OK
        said = capsys.readouterr()
        shown = f"2026-11-28T21:01:03Z info     serving\ufffd[31m url={URL} namespace=home\n"
        assert said.out == shown * 2
        assert said.err == "punch: 7 lines are no longer there\n"
        assert logs(["-f", "--json"]) == ExitCode.OK
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [LINE] * 2
    assert asked == [{"lines": 5, "follow": False}, {"lines": 100, "follow": True}]


@pytest.mark.parametrize("line", [{}, {"time": "x", "fields": 5}, {"time": 1e300, "event": None}])
def test_a_line_of_another_version_is_shown_as_far_as_it_goes(line: dict[str, Any]) -> None:
    """Without a time, or without fields."""
    assert logs_module.shown(line).startswith("- ")


def test_whoever_follows_is_told_of_the_end_and_sees_no_line_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was written to a file was seen already."""
    log_path().parent.mkdir(parents=True)
    log_path().write_text("in the file\n")

    ends = trio.Event()

    async def tell(call: Call) -> None:
        await call.tell({"lost": 0, "lines": [LINE]})
        ends.set()
        await trio.sleep_forever()

    with running_up({"logs": tell}, ends):
        assert logs(["-f"]) == ExitCode.NOT_RUNNING
    said = capsys.readouterr()
    assert said.out.count("serving") == 1
    assert "in the file" not in said.out
    assert "ended before it had answered" in said.err


def test_the_end_of_the_last_log_is_shown_where_none_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says why it ended, perhaps; the exit code says that nothing runs."""
    log_path().parent.mkdir(parents=True)
    # As the log has it: JSON lets these pass, and a terminal obeys them.
    log_path().write_text("one\ntwo\nthree\x9b31m\u202e\n", encoding="utf-8")
    assert logs(["--lines", "2"]) == ExitCode.NOT_RUNNING
    said = capsys.readouterr()
    assert said.out == "two\nthree\ufffd31m\ufffd\n"
    assert str(log_path()) in said.err
