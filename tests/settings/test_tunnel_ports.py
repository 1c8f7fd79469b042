"""Ports for tunnels, as a person writes them."""

from __future__ import annotations

import pytest

from punch.settings import ListenerSettings, TunnelPort, load

PEER = "12D3KooWQ8X4CJmHTSBqGUdqBJPLXp5ZyfTJuZzRUHxHxzDvSsUq"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh=22", TunnelPort(name="ssh", port=22)),
        (" web.2 = 8080 ", TunnelPort(name="web.2", port=8080)),
        (f"db=5432@{PEER}", TunnelPort(name="db", port=5432, peer=PEER)),
    ],
)
def test_a_port_has_a_name_and_perhaps_one_peer(text: str, expected: TunnelPort) -> None:
    """And is shown as it is written."""
    found = TunnelPort.of(text)
    assert found == expected
    assert TunnelPort.of(str(found)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "ssh", "=22", "ssh=", "ssh=0", "ssh=65536", "a b=1", "ssh=22@me", "ssh=22@", "-x=1"],
)
def test_what_is_no_port_is_refused_with_the_rule(text: str) -> None:
    """Never half understood."""
    with pytest.raises(ValueError):
        TunnelPort.of(text)


def test_no_port_is_open_unless_said() -> None:
    """The default is none; a variable has several, with commas between them."""
    assert load(ListenerSettings, {}, {}).tunnel_ports == ()
    found = load(ListenerSettings, {}, {"PUNCH_TUNNEL_PORTS": "ssh=22,web=80"})
    assert [str(each) for each in found.tunnel_ports] == ["ssh=22", "web=80"]
