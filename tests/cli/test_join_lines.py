"""What is to be typed so that one more listener joins."""

from __future__ import annotations

import shlex

import pytest

from punch.cli import join_lines, load_settings
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
