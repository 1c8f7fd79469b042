"""`punch settings`: what it shows and what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from punch.__main__ import COMMANDS
from punch.cli import ExitCode
from punch.cli.commands import settings, why


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings.toml"
    for name in ("PUNCH_SLOTS", "PUNCH_NAMESPACE", "PUNCH_OPENAI_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PUNCH_SETTINGS", str(path))
    path.write_text("# mine\n", encoding="utf-8")
    return path


def run(*arguments: str) -> int:
    return settings(list(arguments))


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    assert run("list") == ExitCode.OK
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {name: rest.split() for name, rest in rows}


def test_what_is_set_is_listed_with_where_it_is_from(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file with the line, the variable, or the default."""
    assert run("set", "listener.slots", "3") == ExitCode.OK
    monkeypatch.setenv("PUNCH_NAMESPACE", "home")
    rows = listed(capsys)

    assert rows["listener.slots"] == ["3", f"{path}:5"]
    assert rows["network.namespace"] == ["home", "PUNCH_NAMESPACE"]
    assert rows["network.transport"] == ["tcp", "default"]
    assert path.read_text(encoding="utf-8").startswith("# mine\n")


def test_one_is_shown_alone_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    """By its whole name or the end of it; where it is from goes to standard error."""
    run("set", "network.namespace", "the house")
    for name in ("network.namespace", "namespace"):
        assert run("get", name) == ExitCode.OK
        out, err = capsys.readouterr()
        assert out == "the house\n"
        assert "settings.toml:" in err

    assert run("get", "namespace", "--json") == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert (shown["value"], shown["layer"]) == ("the house", "file")
    assert (shown["flag"], shown["variable"]) == ("--namespace", "PUNCH_NAMESPACE")


def test_what_is_taken_out_is_the_default_again(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is not there is said, without a failure: it is as was asked for."""
    run("set", "slots", "3")
    assert run("unset", "slots") == ExitCode.OK
    assert listed(capsys)["listener.slots"][-1] == "default"
    assert run("unset", "slots") == ExitCode.OK
    assert f"slots is not in {path}" in capsys.readouterr().err


def test_several_values_are_several_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there may be several; else the second word is a slip."""
    assert run("set", "listener.listen", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2") == 0
    run("get", "listener.listen")
    assert capsys.readouterr().out == "/ip4/1.2.3.4/tcp/1, /ip4/1.2.3.4/tcp/2\n"
    assert run("set", "namespace", "the", "house") == ExitCode.USAGE
    assert "network.namespace is one value, and 2 were given" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        "http://ann:hunter2@inner:8080/v1",
        "https://hunter2@inner",
        "http://inner/v1?api_key=hunter2",
        "http://ann:hunter2/@inner",
    ],
)
@pytest.mark.parametrize("where", ["file", "variable"])
def test_the_secret_of_an_address_is_never_shown(
    url: str,
    where: str,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The address is, as far as it is one; and the file that has it is the owner's alone."""
    path.chmod(0o644)
    if where == "file":
        assert run("set", "openai.url", url) == ExitCode.OK
        assert path.stat().st_mode & 0o077 == 0
        assert url in path.read_text(encoding="utf-8")
    else:
        monkeypatch.setenv("PUNCH_OPENAI_URL", url)
    for command in (["list"], ["list", "--json"], ["get", "openai.url"]):
        assert run(*command) == ExitCode.OK
        shown = "".join(capsys.readouterr())
        assert "hunter2" not in shown
        assert "[hidden]" in shown


def test_a_secret_in_a_value_of_the_wrong_kind_is_not_shown(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list where one address belongs."""
    path.write_text('[openai]\nurl = ["http://ann:hunter2@inner"]\n', encoding="utf-8")
    assert run("list") == ExitCode.USAGE
    assert "hunter2" not in "".join(capsys.readouterr())


def test_a_secret_comes_from_standard_input_and_is_never_shown(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arguments are in the shell's history, and for all to see."""
    monkeypatch.setattr("sys.stdin.read", lambda: "sk-hidden\n")
    assert run("set", "openai.key", "-") == ExitCode.OK
    assert "sk-hidden" in path.read_text(encoding="utf-8")
    run("list")
    run("list", "--json")
    run("get", "openai.key")
    run("get", "openai.key", "--json")
    captured = capsys.readouterr()

    assert "hidden" not in captured.out + captured.err
    assert "(secret)" in captured.out


def test_a_variable_that_hides_what_was_set_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it looks as if nothing had happened."""
    monkeypatch.setenv("PUNCH_SLOTS", "5")
    run("set", "listener.slots", "3")

    assert "PUNCH_SLOTS is set in this shell, and counts more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["set", "slots", "0"], "listener.slots '0' is not set: it must be 1 or more"),
        (["set", "slotz", "1"], "the nearest is listener.slots"),
        (["get", "timeout"], "say dialer.timeout or gateway.timeout"),
        (["unset", "slotz"], "the nearest is listener.slots"),
        ([], "usage: punch settings"),
        (["show"], "there is no command 'show' of `punch settings`"),
    ],
)
def test_a_slip_is_refused_and_changes_nothing(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """With what to write instead."""
    assert run(*arguments) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "# mine\n"


def test_a_file_with_slips_is_listed_all_the_same_and_can_be_mended(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each wrong value is named, the others are shown; programs refuse the file."""
    path.write_text("[listener]\nslotz = 1\nslots = 0\nqueue = 5\n", encoding="utf-8")
    assert run("list") == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert "listener.queue" in out
    assert "the nearest is listener.slots" in err
    assert "listener.slots is '0'" in err
    assert why([]) == ExitCode.USAGE

    assert run("unset", "listener.slotz") == ExitCode.OK
    assert run("set", "listener.slots", "2") == ExitCode.OK
    assert run("list") == ExitCode.OK


def test_the_file_may_be_elsewhere_or_nowhere(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is named and not there is a slip, but for `set`, which makes it."""
    assert run("path") == ExitCode.OK
    assert capsys.readouterr().out == f"{path}\n"
    path.unlink()
    assert run("list") == ExitCode.USAGE
    assert "there is no such file; `punch settings set` makes it" in capsys.readouterr().err
    assert run("set", "slots", "2") == ExitCode.OK
    assert path.exists()

    monkeypatch.setenv("PUNCH_SETTINGS", "none")
    assert run("list") == ExitCode.OK
    assert run("set", "slots", "2") == ExitCode.USAGE


def test_it_is_a_command_of_punch(capsys: pytest.CaptureFixture[str]) -> None:
    """`punch settings`."""
    assert COMMANDS["settings"](["path"]) == ExitCode.OK
    assert COMMANDS["settings"](["--help"]) == ExitCode.OK
    assert "`punch settings COMMAND --help`" in capsys.readouterr().out
