"""What is to be typed so that one more listener joins."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from membership.test_telling import joined

import punch
from punch.cli import JoinLines, join_lines, load_settings
from punch.settings import ListenerSettings, NetworkSettings

LOCAL, LAN = "/ip4/127.0.0.1/tcp/51820", "/ip4/192.168.1.10/tcp/51820"


@pytest.mark.parametrize(
    ("bootstrap", "here", "elsewhere"),
    [
        ((LOCAL,), "", None),
        (("127.0.0.1:9",), " --bootstrap /ip4/127.0.0.1/tcp/9", None),
        ((LAN,), f" --bootstrap {LAN}", f" --bootstrap {LAN}"),
        ((LOCAL, LAN), f" --bootstrap {LOCAL},{LAN}", f" --bootstrap {LAN}"),
        (
            ("desk.lan",),
            " --bootstrap /dns/desk.lan/tcp/51820",
            " --bootstrap /dns/desk.lan/tcp/51820",
        ),
    ],
)
def test_the_whole_line_for_this_machine_and_for_another(
    bootstrap: tuple[str, ...], here: str, elsewhere: str | None
) -> None:
    """A loopback address is no use to another machine."""
    line = "punch listener --namespace 'the house'"
    lines = join_lines(NetworkSettings(bootstrap=bootstrap, namespace="the house"))
    assert lines.here == line + here
    assert lines.elsewhere == (None if elsewhere is None else line + elsewhere)


def test_the_line_leads_to_the_same_network() -> None:
    """Whoever types it gets the settings that it was made of."""
    given = NetworkSettings(bootstrap=(LAN,), namespace="it's $HOME; rm")
    typed = shlex.split(join_lines(given).here)
    assert typed[:2] == ["punch", "listener"]
    settings = load_settings(
        "punch listener", "-", ListenerSettings, typed[2:], {"PUNCH_SETTINGS": "none"}
    )
    assert settings.network.namespace == given.namespace
    assert settings.network.bootstrap == given.bootstrap


def test_a_closed_namespace_is_joined_by_an_invite_and_by_no_name(tmp_path: Path) -> None:
    """Which an admin makes; with several namespaces each line says which one it means."""
    home = punch.create_namespace("home", called="attic", folder=tmp_path)
    settings = NetworkSettings(bootstrap=(LAN,))
    assert join_lines(settings, home) == JoinLines(
        here="punch listener",
        elsewhere="punch join",
        closed=str(home.namespace),
        invite="punch invite",
    )
    other = punch.create_namespace("it's", called="attic", folder=tmp_path)
    lines = join_lines(settings, other)
    assert lines.invite is not None
    assert shlex.split(lines.invite) == ["punch", "invite", "--namespace", str(other.namespace)]
    assert shlex.split(lines.here) == ["punch", "listener", "--namespace", str(other.namespace)]


def test_a_machine_that_is_no_admin_makes_no_invite(tmp_path: Path) -> None:
    """It says who does."""
    home = punch.create_namespace("home", called="attic", folder=tmp_path / "attic")
    lines = join_lines(NetworkSettings(), joined(home, "laptop", tmp_path))
    assert (lines.invite, lines.elsewhere) == (None, "punch join")
