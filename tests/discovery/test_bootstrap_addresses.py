"""The address of a bootstrap, in all the ways in which people write it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from punch.discovery import MAX_BOOTSTRAPS, KnownPeers, bootstrap_sources, parse_bootstraps
from punch.exceptions import ConfigurationError
from punch.testing import MemoryNetwork


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/ip4/10.0.0.7/tcp/4001", "/ip4/10.0.0.7/tcp/4001"),
        ("/ip4/127.0.0.1/udp/51820/quic-v1", "/ip4/127.0.0.1/udp/51820/quic-v1"),
        ("10.0.0.7:4001", "/ip4/10.0.0.7/tcp/4001"),
        ("10.0.0.7", "/ip4/10.0.0.7/tcp/51820"),
        ("attic", "/dns/attic/tcp/51820"),
        (" attic.example.org:99 ", "/dns/attic.example.org/tcp/99"),
        ("localhost", "/dns/localhost/tcp/51820"),
        ("[::1]:77", "/ip6/::1/tcp/77"),
        ("[fd00::2]", "/ip6/fd00::2/tcp/51820"),
        ("fd00::2", "/ip6/fd00::2/tcp/51820"),
        ("[fe80::2%eth0]:77", "/ip6zone/eth0/ip6/fe80::2/tcp/77"),
        ("fe80::2%12", "/ip6zone/12/ip6/fe80::2/tcp/51820"),
    ],
)
def test_an_address_is_a_multiaddress_a_host_with_a_port_or_a_name(text: str, meant: str) -> None:
    """Without a port it is 51820; TCP unless a multiaddress says otherwise."""
    assert [str(address) for address in parse_bootstraps(text)] == [meant]


@pytest.mark.parametrize(
    "text",
    [
        "51820",
        "10.0.0.7:",
        "10.0.0.7:0",
        "10.0.0.7:65536",
        "10.0.0.300",
        "10.0.0.7:x",
        "http://attic:51820",
        "attic/51820",
        "at tic",
        "[attic]:51820",
        "[10.0.0.7]:51820",
        "10.0.0.7%eth0",
        "attic%eth0",
        "[fd00::2%eth0]:77",
        "[fe80::2%]:77",
        "[::1",
        "::1]:51820",
        "-attic",
        "user@attic",
    ],
)
def test_what_is_no_address_is_refused_with_the_forms_that_there_are(text: str) -> None:
    """The error names the setting and the text, and shows what to write."""
    with pytest.raises(ConfigurationError) as caught:
        parse_bootstraps(text, setting="--bootstrap")

    assert f"--bootstrap is {text!r}" in str(caught.value)
    assert "HOST:PORT" in str(caught.value)


def test_several_come_as_a_list_or_with_commas_and_each_counts_once() -> None:
    """The order stays: it is the order in which they are shown."""
    found = parse_bootstraps(["attic, cellar:1", "attic:51820", ",/ip4/10.0.0.7/tcp/4,"])

    assert [str(address) for address in found] == [
        "/dns/attic/tcp/51820",
        "/dns/cellar/tcp/1",
        "/ip4/10.0.0.7/tcp/4",
    ]


@pytest.mark.parametrize("nothing", ["", " , ", []])
def test_no_address_at_all_is_an_error(nothing: list[Any] | str) -> None:
    """Nobody could ever be found."""
    with pytest.raises(ConfigurationError, match="is empty"):
        parse_bootstraps(nothing)


async def test_too_many_bootstraps_are_refused(nursery: trio.Nursery) -> None:
    """Each is a stream that is renewed for ever."""
    node = MemoryNetwork(nursery).node("a")
    places = parse_bootstraps([f"host{number}" for number in range(MAX_BOOTSTRAPS + 1)])

    with pytest.raises(ConfigurationError, match="at most 16"):
        bootstrap_sources(node, places, known=KnownPeers(None), namespace="n")
