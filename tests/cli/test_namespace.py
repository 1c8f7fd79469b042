"""`punch namespace` and `punch leave`: what they print, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from punch.cli import ExitCode, place_of
from punch.cli.commands._invite import invite
from punch.cli.commands._leave import leave
from punch.cli.commands._members import members
from punch.cli.commands._namespace import namespace
from punch.discovery import DEFAULT_NAMESPACE
from punch.libp2p import load_key
from punch.membership import MemberRecord, find_home, read_removals
from punch.membership._members import add_members
from punch.membership.renewal import _rotating
from punch.settings import NetworkSettings, load, parse_flags


@pytest.fixture(autouse=True)
def _data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def place(*typed: str) -> str:
    flags = parse_flags("punch", "", NetworkSettings, typed)
    return str(place_of(load(NetworkSettings, flags, {})))


def test_a_namespace_is_made_shown_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    """Its full name is alone on standard output, for a script."""
    assert namespace(["create", "home", "--called", "attic"]) == ExitCode.OK
    out, err = capsys.readouterr()
    full = out.strip()
    assert full.startswith("home@")
    assert "attic" in err
    assert namespace(["show", "--json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert (shown["namespace"], shown["name"], shown["admin"]) == (full, "attic", True)
    assert namespace(["list"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith(f"{full}  as attic  until ")
    assert leave([]) == ExitCode.USAGE
    assert "root export" in capsys.readouterr().err
    assert leave(["--force"]) == ExitCode.OK
    assert namespace(["show"]) == ExitCode.USAGE


def test_a_program_is_in_the_joined_namespace_unless_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And says an open one by name, or with @open."""
    assert place() == DEFAULT_NAMESPACE
    namespace(["create", "home"])
    full = capsys.readouterr().out.strip()
    assert place() == full
    assert place("--namespace", "home") == full
    assert place("--namespace", full) == full
    assert place("--namespace", "home@open") == "home"
    assert place("--namespace", "other") == "other"


def test_closing_an_open_namespace_says_what_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is converted silently."""
    assert namespace(["close", "simple-chat"]) == ExitCode.OK
    assert "simple-chat@open" in capsys.readouterr().err
    assert place().startswith("simple-chat@")


def test_the_root_key_goes_to_a_file_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Relative to where the command is typed."""
    namespace(["create", "home"])
    drawer = str(tmp_path / "drawer.key")
    assert namespace(["root", "export", drawer]) == ExitCode.OK
    assert namespace(["show", "--json"]) == ExitCode.OK
    assert '"root_key": "not on this machine"' in capsys.readouterr().out
    assert namespace(["root", "import", drawer, "--namespace", "home"]) == ExitCode.OK
    assert namespace(["root", "export", drawer]) == ExitCode.USAGE


def test_what_members_say_of_themselves_is_shown_and_not_obeyed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ends after the calendar's, escape sequences in scopes, and a name that looks like a line."""
    namespace(["create", "home", "--called", "attic"])
    home = find_home("home")
    assert home is not None
    evil = "lamp\x1b[2J\u202e\n12D3KooW member"
    line = json.dumps({"machine": home.namespace.root, "name": evil, "ends": (1 << 53) - 1})
    scopes = json.dumps({"machine": "x", "scopes": ["\x1b]0;owned\x07"], "ends": 1 << 40})
    add_members(home.folder, [MemberRecord.decode(line), MemberRecord.decode(scopes)])
    capsys.readouterr()
    for arguments in (["list"], ["list", "--json"]):
        assert members(arguments) == ExitCode.OK
        out = capsys.readouterr().out
        assert all(row.isprintable() for row in out.splitlines())
        assert len(out.splitlines()) == 3 + (len(arguments) == 1)
    assert members(["remove", "nobody\x1b[2J"]) == ExitCode.USAGE
    assert capsys.readouterr().err.replace("\n", "").isprintable()


def test_a_grant_that_outlasts_the_calendar_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile root may give a grant that ends in the year 36,812."""
    monkeypatch.setattr("punch.access._issuing.ROOT_GRANT_SECONDS", 1 << 39)
    assert namespace(["create", "home"]) == ExitCode.OK
    for arguments in (["list"], ["show"], ["show", "--json"]):
        assert namespace(arguments) == ExitCode.OK
        assert "after 9999" in capsys.readouterr().out
    assert members([]) == ExitCode.OK
    assert "after 9999" in capsys.readouterr().out


def test_a_machine_that_calls_itself_by_the_key_of_another_is_removed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Two that are called by each other's keys, too: a key means the machine that has it."""
    namespace(["create", "home", "--called", "attic"])
    home = find_home("home")
    assert home is not None
    one, two = (load_key(tmp_path / name).peer_id for name in ("one.key", "two.key"))
    records = [
        MemberRecord(machine=machine, name=name, number=1)
        for machine, name in ((one, two), (two, one))
    ]
    add_members(home.folder, records)
    assert members(["remove", one]) == ExitCode.OK
    lock = read_removals(home)
    assert (lock.removed_up_to(one), lock.removed_up_to(two)) == (1, 0)
    assert members(["remove", two]) == ExitCode.OK
    capsys.readouterr()


def test_invites_are_listed_and_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    """With all that was said when they were made; the code itself is shown once."""
    namespace(["create", "home", "--called", "attic"])
    assert invite(["list"]) == ExitCode.OK
    assert "no invites" in capsys.readouterr().err
    assert invite(["--no-wait", "--name", "tv", "--scope", "dial", "--uses", "2"]) == ExitCode.OK
    code = capsys.readouterr().out.strip()
    assert invite(["--no-wait", "--short", "--mine"]) == ExitCode.OK
    number, _, words = capsys.readouterr().out.strip().partition("-")
    assert invite(["list", "--json"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert code not in out
    assert words not in out
    short, long = map(json.loads, out.splitlines())
    assert (short["invite"], short["short"], short["mine"]) == (number, True, True)
    assert (long["name"], long["scopes"], long["uses"], long["uses_left"]) == ("tv", ["dial"], 2, 2)
    assert (long["state"], long["used_by"]) == ("open", [])
    assert invite(["withdraw", "tv"]) == ExitCode.OK
    assert long["invite"] in capsys.readouterr().err
    assert invite(["withdraw", number]) == ExitCode.OK
    assert invite(["withdraw", number]) == ExitCode.USAGE
    assert "was withdrawn" in capsys.readouterr().err
    assert invite(["withdraw", "nobody"]) == ExitCode.USAGE
    assert "punch invite list" in capsys.readouterr().err
    assert invite(["list"]) == ExitCode.OK
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["invite", "state", "uses", "left"]
    assert [row.split()[1:3] for row in rows] == [["withdrawn", "0"], ["withdrawn", "0"]]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--scope fly", "has not the scopes fly itself"),
        ("--scope dial --expires 3000-01-01", "ends before the invite would"),
        ("--short --uses 2", "one use"),
        ("--uses 999", "1 to 256 uses"),
        ("--expires 2020-01-01", "counts never"),
    ],
)
def test_an_invite_that_nobody_could_use_is_refused(
    typed: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the rule, and no code."""
    namespace(["create", "home"])
    capsys.readouterr()
    for short in ([], ["--short"]):
        assert invite(["--no-wait", *short, *typed.split()]) != ExitCode.OK
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
    assert invite(["list", "--json"]) == ExitCode.OK
    assert capsys.readouterr().out == ""


def test_the_first_machine_changes_its_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the root's key, by itself; without it the command says what to do."""
    monkeypatch.setattr(_rotating, "OVERLAP_SECONDS", 0.0)
    namespace(["create", "home", "--called", "attic"])
    namespace(["show", "--json"])
    before = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert members(["rotate"]) == ExitCode.OK
    said = capsys.readouterr().err
    namespace(["show", "--json"])
    after = json.loads(capsys.readouterr().out)
    assert before["machine"] in said
    assert after["machine"] in said
    assert after["machine"] != before["machine"]
    assert members(["list"]) == ExitCode.OK
    assert "this machine" in capsys.readouterr().out
    namespace(["root", "export", str(Path(after["folder"]).parent / "root.key")])
    assert members(["rotate"]) == ExitCode.USAGE
    assert "punch namespace root import FILE" in capsys.readouterr().err
