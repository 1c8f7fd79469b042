"""`punch keys`: what it prints, what it refuses, and where the file is."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import request_records as records
import trio

from punch.__main__ import COMMANDS
from punch.cli import ExitCode, keys_path
from punch.cli.commands._keys import expiry, keys
from punch.events import Bus
from punch.gateway import KeyStore, open_usage
from punch.settings import data_folder

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gateway.sqlite3"
    monkeypatch.setenv("PUNCH_KEYS", str(path))
    return path


def run(*arguments: str) -> int:
    return keys(list(arguments))


def test_the_secret_is_alone_on_standard_output_and_shown_once(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script takes it from there; nothing prints it again."""
    assert run("create", "ada") == ExitCode.OK
    out, err = capsys.readouterr()
    secret = out.strip()
    assert secret.startswith("pk-")
    assert "shown this once" in err
    assert secret not in err

    assert run("list") == ExitCode.OK
    assert run("list", "--json") == ExitCode.OK
    listed = capsys.readouterr().out
    assert secret not in listed
    assert secret.split("-")[2] not in listed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_asked_for_is_what_the_key_has(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every limit, and the secret with it in JSON."""
    limits = ["--requests-per-minute", "60", "--tokens-per-minute", "1000", "--concurrency", "4"]
    assert run("create", "ada", "--models", "a, b,", *limits, "--expires", "30d", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    with KeyStore(path) as store:
        (key,) = store.list()

    assert made["secret"].startswith(f"pk-{key.key_id}-")
    assert (key.name, key.models) == ("ada", ("a", "b"))
    assert (key.requests_per_minute, key.tokens_per_minute, key.concurrency) == (60, 1000, 4)
    assert key.expires_at is not None
    assert key.expires_at - key.created_at == pytest.approx(30 * 86_400, abs=5)
    assert made["state"] == "active"


async def note_two(path: Path, key_id: str) -> None:
    async with open_usage(path, events=Bus()) as book:
        for _ in range(2):
            book.note(records.ended(records.easy(key_id=key_id)))


def test_the_list_shows_what_each_key_used(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All together; in JSON day by day."""
    run("create", "ada", "--json")
    key_id = json.loads(capsys.readouterr().out)["key_id"]
    trio.run(note_two, path, key_id)

    assert run("list") == ExitCode.OK
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["id", "name", "state"]
    assert line.split() == [
        key_id, "ada", "active", "all", "-", "-", "-", "never", "2", "0", "862",
    ]  # fmt: skip
    assert run("list", "--json") == ExitCode.OK
    (day,) = json.loads(capsys.readouterr().out)["usage"]
    assert (day["requests"], day["prompt_tokens"], day["completion_tokens"]) == (2, 840, 22)


def test_a_revoked_key_stays_in_the_list(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what it used."""
    run("create", "ada", "--json")
    key_id = json.loads(capsys.readouterr().out)["key_id"]

    assert run("revoke", key_id) == ExitCode.OK
    assert capsys.readouterr().out == f"key {key_id} (ada) is revoked\n"
    run("list")
    assert "revoked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", ""], "the name is ''"),
        (["create", "a", "--concurrency", "0"], "--concurrency is '0': it must be 1 or more"),
        (
            ["create", "a", "--tokens-per-minute", "x"],
            "--tokens-per-minute is 'x': it must be",
        ),
        (["create", "a", "--expires", "soon"], "--expires is 'soon': write 30d, 12h, 4w or a date"),
        (["create", "a", "--expires", "2001-01-01"], "would expire before it is made"),
        (["create", "a", "--models", ","], "--models is ',': it names none"),
        (["revoke", "nix"], "there is no file"),
    ],
)
def test_a_bad_value_is_refused_by_its_name_and_makes_no_key(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """The option, the value and the rule."""
    assert run(*arguments) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    if path.exists():
        with KeyStore(path) as store:
            assert store.list() == ()


def test_looking_makes_no_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip in its name is seen."""
    assert run("list") == ExitCode.OK
    assert f"no API key in {path}" in capsys.readouterr().err
    assert not path.exists()


def test_a_name_cannot_speak_to_the_terminal(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor make the table any wider."""
    assert run("create", "\x1b[2J") == ExitCode.USAGE
    run("create", "x" * 200)
    capsys.readouterr()
    run("list")
    assert max(map(len, capsys.readouterr().out.splitlines())) < 160


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", NOW + 2_592_000), ("12h", NOW + 43_200), ("4W", NOW + 2_419_200),
     ("2030-12-31", 1_924_905_600.0), ("2030-12-31T12:00+02:00", 1_924_941_600.0)],
)  # fmt: skip
def test_an_end_is_a_time_from_now_or_a_date(text: str, seconds: float) -> None:
    """A date is its beginning in UTC, wherever the machine is."""
    assert expiry(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "d", "-3d", "1.5d", "99999999d", "yesterday", "30 days"])
def test_anything_else_is_no_end(text: str) -> None:
    """Rather than a key that ends at another time than was meant."""
    with pytest.raises(ValueError, match="write 30d"):
        expiry(text, NOW)


def test_the_file_is_in_the_data_folder_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option beats the variable."""
    assert keys_path(None) == data_folder() / "gateway.sqlite3"
    monkeypatch.setenv("PUNCH_KEYS", str(tmp_path / "x"))
    run("list")
    assert f"no API key in {tmp_path / 'x'}" in capsys.readouterr().err
    run("list", "--keys", str(tmp_path / "y"))
    assert f"no API key in {tmp_path / 'y'}" in capsys.readouterr().err


def test_it_is_a_command_of_punch(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`punch keys`."""
    assert COMMANDS["keys"](["list"]) == ExitCode.OK
