"""Whether a program looks for others on its LAN, and what it says of its namespace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from punch.capability import PeerId
from punch.cli import open_membership_of, place_of
from punch.cli._shared import lan_of, lan_to_hear
from punch.cli.commands._namespace import namespace
from punch.discovery.lan import LanKey
from punch.discovery.lan._records import said_on
from punch.membership import find_home, leave_namespace, left_in
from punch.membership._folder import LEFT, MAX_LEFT, _note_left
from punch.settings import NetworkSettings, SettingsFile, load, parse_flags
from punch.settings.file._file import parse_settings
from punch.testing import Air

HERE = "/ip4/127.0.0.1/tcp/51820"
THERE = "/ip4/192.168.1.5/tcp/51820"


@pytest.mark.parametrize(
    ("said", "is_closed", "bootstrap", "looks"),
    [
        # Anybody who says an open namespace's name would be asked, so that has to be wanted.
        (None, False, THERE, False),
        (True, False, THERE, True),
        (False, False, THERE, False),
        # In a closed one a grant is shown first, wherever its bootstrap is.
        (None, True, THERE, True),
        (None, True, HERE, True),
        (True, True, HERE, True),
        (False, True, THERE, False),
        # An open namespace that meets on loopback is of this machine.
        (True, False, HERE, False),
        (True, False, f"{HERE},{THERE}", True),
    ],
)
def test_an_open_namespace_is_looked_for_only_if_that_is_said(
    said: bool | None, is_closed: bool, bootstrap: str, looks: bool
) -> None:
    """Whoever is believed on a LAN without a grant is shown prompts."""
    settings = NetworkSettings(lan=said, bootstrap=tuple(bootstrap.split(",")))
    assert (lan_of(settings, is_closed=is_closed) is not None) is looks


@pytest.mark.parametrize(
    ("said", "bootstrap", "hears"),
    [
        (None, THERE, True),
        (None, f"{HERE},{THERE}", True),
        (None, HERE, False),
        (None, "localhost", False),
        (False, THERE, False),
        (True, THERE, False),  # It looks for members, and hears closed ones by the way.
    ],
)
def test_a_program_of_an_open_namespace_hears_closed_ones_unless_that_is_said(
    said: bool | None, bootstrap: str, hears: bool
) -> None:
    """By `--no-lan`, or where nothing leaves this machine anyway."""
    settings = NetworkSettings(lan=said, bootstrap=tuple(bootstrap.split(",")))
    assert (lan_to_hear(settings) is not None) is hears


# ---- flags, variables, file ----


def network(
    *typed: str, variables: Mapping[str, str] | None = None, file: str = ""
) -> NetworkSettings:
    """The settings as a program has them."""
    flags = parse_flags("punch", "", NetworkSettings, typed)
    return load(NetworkSettings, flags, variables or {}, toml(file))


def toml(text: str) -> SettingsFile:
    return parse_settings(Path("/etc/punch/settings.toml"), text)


ON = "[network]\nlan = true\n"
OFF = "[network]\nlan = false\n"


@pytest.mark.parametrize(
    ("typed", "variables", "file", "expected", "layer"),
    [
        ((), {}, "", None, "default"),
        (("--lan",), {}, "", True, "flag"),
        (("--no-lan",), {}, "", False, "flag"),
        ((), {"PUNCH_LAN": "1"}, "", True, "variable"),
        ((), {"PUNCH_LAN": "0"}, "", False, "variable"),
        ((), {"PUNCH_LAN": "yes"}, "", True, "variable"),
        ((), {"PUNCH_LAN": "off"}, "", False, "variable"),
        # As with every switch: an empty variable is no.
        ((), {"PUNCH_LAN": ""}, ON, False, "variable"),
        ((), {}, ON, True, "file"),
        ((), {}, OFF, False, "file"),
        (("--no-lan",), {"PUNCH_LAN": "1"}, ON, False, "flag"),
        (("--lan",), {"PUNCH_LAN": "0"}, OFF, True, "flag"),
        ((), {"PUNCH_LAN": "0"}, ON, False, "variable"),
    ],
)
def test_whether_there_is_a_lan_is_said_by_flag_variable_or_file(
    typed: tuple[str, ...],
    variables: Mapping[str, str],
    file: str,
    expected: bool | None,
    layer: str,
) -> None:
    """In this order; what nobody says depends on the namespace."""
    settings = network(*typed, variables=variables, file=file)
    assert (settings.lan, settings.origin("lan").layer) == (expected, layer)
    closed, opened = (lan_of(settings, is_closed=is_closed) for is_closed in (True, False))
    assert (closed is not None) is (expected is not False)
    assert opened is None  # The usual bootstrap is on loopback.


@pytest.mark.parametrize(
    ("typed", "variables", "file", "expected"),
    [
        ((), {}, "", ()),
        (("--lan-interfaces", "eth0"), {}, "", ("eth0",)),
        (("--lan-interfaces", "eth0", "--lan-interfaces", "wg0"), {}, "", ("eth0", "wg0")),
        ((), {"PUNCH_LAN_INTERFACES": "eth0,wg0"}, "", ("eth0", "wg0")),
        ((), {"PUNCH_LAN_INTERFACES": " eth0  wg0 "}, "", ("eth0", "wg0")),
        ((), {}, "[network]\nlan_interfaces = ['eth0', 'Ethernet 2']", ("eth0", "Ethernet 2")),
        (("--lan-interfaces", "a"), {"PUNCH_LAN_INTERFACES": "b"}, "", ("a",)),
        ((), {"PUNCH_LAN_INTERFACES": "b"}, "network.lan_interfaces = ['c']", ("b",)),
        ((), {"PUNCH_LAN_INTERFACES": ""}, "network.lan_interfaces = ['c']", ("c",)),
    ],
)
def test_the_interfaces_are_named_by_flag_variable_or_file(
    typed: tuple[str, ...], variables: Mapping[str, str], file: str, expected: tuple[str, ...]
) -> None:
    """The flag repeated, the variable with commas or blanks, the file's list; and they are used."""
    settings = network(*typed, variables=variables, file=file)
    assert settings.lan_interfaces == expected
    lan = lan_of(settings, is_closed=True)
    assert lan is not None
    assert lan._names == frozenset(expected)


@pytest.mark.parametrize(
    ("variables", "file", "text"),
    [
        ({"PUNCH_LAN": "maybe"}, "", "PUNCH_LAN is 'maybe': write 1 or 0"),
        ({}, "[network]\nlan = 1", "network.lan is 1: write true or false"),
        ({}, "[network]\nlan = 'yes'", "network.lan is 'yes': write true or false"),
        ({}, "[network]\nlan_interfaces = 5", "network.lan_interfaces is 5: write a list of texts"),
        ({}, "[network]\nlan_interfaces = [5]", "network.lan_interfaces is 5: write a list"),
    ],
)
def test_a_slip_is_refused_by_the_name_it_came_under(
    variables: Mapping[str, str], file: str, text: str
) -> None:
    """With the value and what to write."""
    with pytest.raises(Exception, match=text.replace("(", r"\(")):
        network(variables=variables, file=file)


# ---- what a program says of its namespace ----


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


async def warnings_of(
    settings: NetworkSettings, folder: Path, caplog: pytest.LogCaptureFixture
) -> list[Any]:
    caplog.clear()
    async with open_membership_of(place_of(settings), folder / "key", settings):
        pass
    return [each.msg for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("typed", "variables", "file", "says"),
    [
        (("--lan",), {}, "", "--lan"),
        ((), {"PUNCH_LAN": "1"}, "", "PUNCH_LAN"),
        ((), {}, ON, "/etc/punch/settings.toml:2"),
        (("--lan", "--bootstrap", "localhost"), {}, "", "--lan"),
        (("--lan", "--bootstrap", "[::1]:51820,127.8.8.8"), {}, "", "--lan"),
        ((), {}, "", None),
        (("--no-lan",), {}, "", None),
        (("--lan", "--bootstrap", THERE), {}, "", None),
        (("--lan", "--bootstrap", f"{HERE},{THERE}"), {}, "", None),
        (("--lan", "--bootstrap", "desk.example"), {}, "", None),
    ],
)
async def test_a_lan_that_is_asked_for_on_loopback_alone_is_said_to_be_none(
    typed: tuple[str, ...],
    variables: Mapping[str, str],
    file: str,
    says: str | None,
    data_folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who has asked for it, which bootstraps are the reason, and what to do."""
    found = await warnings_of(network(*typed, variables=variables, file=file), data_folder, caplog)
    assert [each["setting"] for each in found] == ([] if says is None else [says])
    for each in found:
        assert "every bootstrap of this open namespace is on loopback" in each["event"]
        assert all(
            "127." in place or "::1" in place or "localhost" in place for place in each["bootstrap"]
        )
        assert "--bootstrap" in each["remedy"]


@pytest.mark.parametrize(
    ("said", "is_told"), [("home@open", True), ("office@open", False), ("office", False)]
)
async def test_a_member_that_is_in_the_open_namespace_of_that_name_is_told(
    said: str,
    is_told: bool,
    data_folder: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no silent way from the closed one to the open one, on the member's own machine."""
    namespace(["create", "home"])
    full = capsys.readouterr().out.strip()
    found = await warnings_of(network("--namespace", said), data_folder, caplog)
    assert [each["closed"] for each in found] == ([[full]] if is_told else [])
    for each in found:
        assert "in the open one" in each["event"]
        assert full in each["remedy"]


@pytest.mark.parametrize(("typed", "is_warned"), [((), True), (("--no-lan",), False)])
async def test_a_program_of_an_open_namespace_listens_for_a_closed_one_without_being_asked(
    typed: tuple[str, ...],
    is_warned: bool,
    data_folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    """While it runs, and unless it was told to leave the LAN alone; it says nothing there."""
    air = Air()
    member = air.lan("10.3.3.3/8")
    (interface,) = member._interfaces()
    said = said_on(
        interface,
        ["/ip4/10.3.3.3/tcp/1"],
        peer_id=PeerId("member"),
        instance="member",
        key=LanKey.of_closed(b"r" * 32),
        salt=b"s" * 16,
        closed_name="office",
    )
    monkeypatch.setattr("punch.cli._shared.real_lan", lambda names: air.lan("10.1.1.1/8"))
    settings = network("--namespace", "office", "--bootstrap", THERE, *typed)
    async with open_membership_of(place_of(settings), data_folder / "key", settings):
        await trio.sleep(5)
        async with member._open({interface: said}):
            await trio.sleep(5)
            assert len(air.said) == 1
    found: list[Any] = [each.msg for each in caplog.records if each.levelname == "WARNING"]
    assert [each["event"].partition(",")[0] for each in found] == (
        ["a closed namespace of this name is nearby"] if is_warned else []
    )


@pytest.mark.parametrize(
    ("said", "is_told"), [("home", True), ("home@open", False), ("office", False)]
)
async def test_a_machine_that_has_left_is_told_that_the_name_means_the_open_one_now(
    said: str,
    is_told: bool,
    data_folder: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What still says the name in a settings file does not become open without a word."""
    fulls = []
    for _ in range(2):
        namespace(["create", "home"])
        fulls.append(capsys.readouterr().out.strip())
        home = find_home("home")
        assert home is not None
        await leave_namespace(home)
    found = await warnings_of(network("--namespace", said), data_folder, caplog)
    assert [each["left"] for each in found] == ([fulls] if is_told else [])
    namespace(["create", "home"])
    assert await warnings_of(network("--namespace", "home"), data_folder, caplog) == []


def test_what_was_left_is_bounded_and_damage_there_is_no_trouble(tmp_path: Path) -> None:
    """It only ever makes a warning."""
    assert left_in(tmp_path) == ()
    for number in range(MAX_LEFT + 9):
        _note_left(tmp_path, f"n{number}@abcdefgh")
    _note_left(tmp_path, "n70@abcdefgh")
    assert (len(left_in(tmp_path)), left_in(tmp_path)[-1]) == (MAX_LEFT, "n70@abcdefgh")
    for damage in (b"\xff\xfe", b"home\n@\n\n", b""):
        (tmp_path / LEFT).write_bytes(damage)
        assert left_in(tmp_path) == ()
