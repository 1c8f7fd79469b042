"""`punch members`: what its table and its JSON show, and what each command says."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import attrs
import pytest
import trio
from membership.test_calls import member
from membership.test_joining import open_admin
from membership.test_nearby import add, ask, until, waiting

import punch
from punch.access import Issuer, Lock, peer_of
from punch.cli import ExitCode
from punch.cli._columns import width_of
from punch.cli.commands._members import MAX_NAME_COLUMNS, members
from punch.libp2p import load_key, verify
from punch.membership import Home, MemberRecord, shown_digits
from punch.membership._home import record_of
from punch.membership._members import MAX_NAME_CHARACTERS, add_members
from punch.membership._running import SEEING, running

WIDE = "\u6f22" * 63


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return punch.create_namespace("home", called="attic", folder=tmp_path / "punch" / "namespaces")


def seen(home: Home, name: str, ago: float, *addresses: str) -> MemberRecord:
    """A member that was heard of *ago* seconds before."""
    _, chain = member(home, name)
    record = attrs.evolve(record_of(chain, called=name, now=time.time() - ago), addresses=addresses)
    add_members(home.folder, [record])
    return record


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The table by name."""
    assert members(["list"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    return {each[0]: each[1:] for each in ([c for c in line.split("  ") if c] for line in lines)}


def test_the_list_says_who_is_there_and_who_was(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """By this machine's clock alone, in words that people use."""
    where = ("/ip6/fd00::4/tcp/21820", "/ip4/192.168.1.4/tcp/21820", "/ip4/127.0.0.1/tcp/1")
    desk = seen(home, "desk", 5, *where)
    seen(home, "lamp", 130)
    seen(home, "bed", 3 * 86_400 + 10)
    seen(home, "hall", -500)
    never, chain = member(home, "cellar")
    home.folder.write(
        "members.json",
        b"".join(
            line + b"\n"
            for line in (home.folder.read("members.json") or b"").splitlines()
            if never.peer_id.encode() not in line
        ),
    )
    add_members(home.folder, [record_of(chain, called="cellar", now=0)])
    gone, _ = member(home, "gone")
    punch.remove_member(home, gone.peer_id)
    member(home, "ended", ends_in=-1000)
    with running(home, home.machine, SEEING) as program:
        program.say([desk.machine])
        found = rows(capsys)
    assert {name: cells[0].strip() for name, cells in found.items()} == {
        "name": "state",
        "attic": "this machine",
        "desk": "connected",
        "lamp": "seen 2 min ago",
        "bed": "seen 3 days ago",
        "hall": "seen 0 s ago",
        "cellar": "not seen yet",
        "gone": "removed",
        "ended": "its grant has ended",
    }
    assert [cell.strip() for cell in found["desk"][1:]] == [
        "dial, listen",
        time.strftime("%Y-%m-%d", time.gmtime(desk.ends)),
        desk.machine,
        "192.168.1.4:21820",
    ]


def test_scripts_get_all_of_it(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with those that ask."""
    desk = seen(home, "desk", 60, "/ip4/192.168.1.4/tcp/21820")
    punch.rename_member(home, "desk", "tower")
    add(home, name="guest", digits="123456", host="192.0.2.1")
    assert members(["list", "--json"]) == ExitCode.OK
    found = {each["name"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert list(found) == ["attic", "tower", "guest"]
    tower = found["tower"]
    assert 59 <= tower.pop("seen_seconds_ago") <= 90
    assert tower == {
        "name": "tower",
        "own_name": "desk",
        "machine": desk.machine,
        "owner": desk.machine,
        "scopes": ["dial", "listen"],
        "ends": desk.ends,
        "state": "member",
        "connected": False,
        "seen": desk.seen,
        "addresses": ["/ip4/192.168.1.4/tcp/21820"],
    }
    assert found["attic"]["state"] == "this machine"
    assert found["guest"]["digits"] == "123456"


def test_wide_names_keep_the_columns_in_line(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their middles give way; JSON has them whole."""
    seen(home, f"{WIDE}a", 5)
    seen(home, "e\u0301te\u0301", 5)
    assert members(["list"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    starts = {width_of(line[: line.index("12D3")]) for line in lines[1:]}
    assert len(starts) == 1
    (cut,) = [line for line in lines if line.startswith("\u6f22")]
    shown = cut.partition("  ")[0].rstrip()
    assert width_of(shown) <= MAX_NAME_COLUMNS
    assert shown.endswith("\u6f22a")
    assert members(["list", "--json"]) == ExitCode.OK
    assert f"{WIDE}a" in [json.loads(each)["name"] for each in capsys.readouterr().out.splitlines()]


def test_a_thousand_members_with_long_names_are_listed_at_once(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is kept of them is read in a moment, and each is in one line."""
    assert len(f"{WIDE}x") == MAX_NAME_CHARACTERS
    add_members(
        home.folder,
        [
            MemberRecord(machine=peer_of(number.to_bytes(32)), name=f"{WIDE}{number % 10}")
            for number in range(1000)
        ],
    )
    began = time.monotonic()
    assert members(["list"]) == ExitCode.OK
    assert time.monotonic() - began < 30
    assert len(capsys.readouterr().out.splitlines()) == 1002


def test_each_command_names_the_machine_that_was_meant(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """And an error says what is wrong, and what there is."""
    desk = seen(home, "desk", 5)
    seen(home, "lamp", 5)
    for arguments, said in (
        (["remove", "deks"], "is it desk?"),
        (["remove", "attic"], "punch leave"),
        (["rename", "desk", "lamp"], "already"),
        (["rename", "dsk", "x"], "is it desk?"),
        (["approve", "123456"], "none asks"),
        (["refuse", "desk"], "none asks"),
    ):
        assert members(arguments) == ExitCode.USAGE, arguments
        assert said in capsys.readouterr().err
    assert members(["rename", "desk", "tower"]) == ExitCode.OK
    assert f"{desk.machine} is called tower on this machine" in capsys.readouterr().err
    assert members(["remove", "tower"]) == ExitCode.OK
    assert f"removed tower ({desk.machine}) from home@" in capsys.readouterr().err
    assert members(["remove", "tower"]) == ExitCode.USAGE


def test_an_admin_goes_alone_or_with_those_that_it_has_let_in(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """And these are named; whom others have let in stays in any case."""
    for arguments, lamp_is in ((["remove", "boss"], "member"), ([], "removed")):
        key, chain = member(home, "boss", kind="admin")
        issuer = Issuer(key=key.peer_id, sign=key.sign, chain=chain)
        lamp = load_key(home.folder / f"{lamp_is}.key").peer_id
        grant = issuer.issue(Lock(home.namespace, verify), lamp, now=time.time())
        add_members(home.folder, [record_of(grant, called="lamp", now=1)])
        assert members(arguments or ["remove", "boss", "--with-invited"]) == ExitCode.OK
        said = capsys.readouterr().err
        assert f"removed boss ({key.peer_id})" in said
        assert ("whom it had let in went with it: lamp" in said) is (lamp_is == "removed")
        found = {each.machine: each.state for each in punch.list_members(home)}
        assert (found[key.peer_id], found[lamp]) == ("removed", lamp_is)


def test_an_admin_is_removed_with_those_it_let_in_by_the_root_key_alone(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says where the key may be."""
    member(home, "boss", kind="admin")
    home.folder.path.joinpath("root.key").rename(home.folder.path.parent / "drawer")
    assert members(["remove", "boss", "--with-invited"]) != ExitCode.OK
    assert "only the root key removes it" in capsys.readouterr().err
    assert punch.find_member(home, "boss").state == "member"


@pytest.mark.parametrize("command", ["list", "approve", "refuse", "remove", "rename"])
def test_the_help_says_what_each_command_is_for(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that of `remove` what becomes of whom an admin has let in."""
    with contextlib.suppress(SystemExit):
        assert members([command, "--help"]) == ExitCode.OK
    said = " ".join(capsys.readouterr().out.split())
    assert f"punch members {command}" in said
    if command == "remove":
        assert "whom the removed admin has let in go with it; needs the root key" in said


def test_two_machines_of_one_name_are_told_apart_by_the_ends_of_their_keys(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the list itself says; one of them can be renamed or removed by it."""
    first, second = (seen(home, "pi", ago).machine for ago in (5, 9))
    assert members(["list"]) == ExitCode.OK
    said = capsys.readouterr().err
    assert f"2 machines are called pi: ..{second[-8:]}, ..{first[-8:]}." in said or (
        f"2 machines are called pi: ..{first[-8:]}, ..{second[-8:]}." in said
    )
    assert members(["rename", "pi", "left"]) == ExitCode.USAGE
    assert "say which by its key or by the end of it" in capsys.readouterr().err
    assert members(["rename", f"..{first[-8:]}", "left"]) == ExitCode.OK
    assert members(["list"]) == ExitCode.OK
    assert "machines are called" not in capsys.readouterr().err.split("is called left")[1]
    assert members(["remove", "pi"]) == ExitCode.OK
    assert punch.find_member(home, second).state == "removed"


async def test_a_machine_nearby_is_approved_by_the_command_with_its_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong ones name who asks; by its name alone a person at a terminal would be asked."""
    folder = tmp_path / "admin"
    monkeypatch.setattr("punch.cli._namespace.namespaces_folder", lambda: folder)
    async with open_admin(tmp_path) as admin, trio.open_nursery() as nursery:
        nursery.start_soon(ask, admin, admin.at, [])
        await until(lambda: waiting(admin.home))
        digits = waiting(admin.home)[0].digits
        wrong = f"{(int(digits) + 1) % 10**6:06}"
        assert members(["approve", wrong]) == ExitCode.USAGE
        assert f"laptop ({shown_digits(digits)}). If the digits differ" in capsys.readouterr().err
        assert members(["approve", "laptop"]) == ExitCode.USAGE
        assert "say the digits that its own screen shows" in capsys.readouterr().err
        done = await trio.to_thread.run_sync(members, ["approve", shown_digits(digits)])
        assert done == ExitCode.OK
    said = capsys.readouterr().err
    assert said == f"laptop ({shown_digits(digits)}) is a member of {admin.home.namespace}\n"
