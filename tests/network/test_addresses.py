"""Addresses as people write them."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock

from punch.exceptions import ConfigurationError
from punch.network import is_this_machine, links_to, own_links, parse_address, places_here, ways_to
from punch.network._own import NAME_SECONDS

# An address that a link has alone.
LINK = "fe80::7"
PEER = "12D3KooWGYqKxZBhTRg1mKCkJhm8U3Rc6jUDdVyc7MJgAywKosw2"


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/51820",
        f"/ip4/192.168.1.10/tcp/51820/p2p/{PEER}",
        "/ip4/10.0.0.1/udp/4001/quic-v1",
        f"/ip6/::1/udp/4001/quic-v1/p2p/{PEER}",
        "/dns4/punch.example/tcp/1",
        "/ip6zone/eth0/ip6/fe80::1/tcp/51820",
        f"/ip6zone/12/ip6/fe80::1/tcp/51820/p2p/{PEER}",
    ],
)
def test_an_address_is_spelled_as_it_was_read(text: str) -> None:
    """Reading and writing are inverse."""
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not of this form"),
        ("127.0.0.1:51820", "not of this form"),
        ("/ip4/127.0.0.1", "not of this form"),
        ("/ip4/127.0.0.1/tcp/70000", "port 70000 is above 65535"),
        ("/ip4/300.0.0.1/tcp/1", "300.0.0.1 is not an ip4 address"),
        ("/ip6/127.0.0.1/tcp/1", "127.0.0.1 is not an ip6 address"),
        ("/ip4/127.0.0.1/udp/1", "udp goes with /quic-v1"),
        ("/ip4/127.0.0.1/tcp/1/quic-v1", "udp goes with /quic-v1"),
        ("/ip4/127.0.0.1/tcp/1/p2p/nonsense", "not of this form"),
        ("/ip6/fe80::1%eth0/tcp/1", "not an ip6 address"),
        ("/ip6zone/eth0/ip6/fd00::1/tcp/1", "a zone is only of a link-local address"),
        ("/ip6zone/eth0/ip6/::1/tcp/1", "a zone is only of a link-local address"),
        ("/ip6zone/eth0/ip4/169.254.1.1/tcp/1", "a zone is only of a link-local address"),
        ("/ip6zone/eth0/dns6/a/tcp/1", "a zone is only of a link-local address"),
        ("/ip6zone//ip6/fe80::1/tcp/1", "not of this form"),
        ("/ip6zone/a b/ip6/fe80::1/tcp/1", "not of this form"),
        (f"/ip6zone/{'x' * 65}/ip6/fe80::1/tcp/1", "not of this form"),
        ("/dns4/a..b/tcp/1", "a..b is not a host name"),
        (f"/dns/{'x' * 70}/tcp/1", "not a host name"),
        ("/dns/\ud800/tcp/1", "not a host name"),
    ],
)
def test_a_bad_address_is_refused_with_the_value_the_rule_and_an_example(
    text: str, why: str
) -> None:
    """The error has the setting's name, what was written, and how to write it."""
    with pytest.raises(ConfigurationError) as caught:
        parse_address(text, setting="--bootstrap")

    message = str(caught.value)
    assert message.startswith(f"--bootstrap is {text!r}: ")
    assert why in message
    assert "/ip4/192.168.1.10/tcp/51820" in message


def test_the_same_place_by_another_transport() -> None:
    """Only the transport changes; identities are filed under host and port."""
    address = parse_address("/ip4/127.0.0.1/tcp/51820")

    assert str(address.over("quic")) == "/ip4/127.0.0.1/udp/51820/quic-v1"
    assert address.place == address.over("quic").place == "127.0.0.1:51820"


def test_an_address_of_quic_is_not_quietly_dialled_over_tcp() -> None:
    """The other way round is fine: QUIC listens at the same port number."""
    quic = parse_address("/ip4/127.0.0.1/udp/51820/quic-v1")

    assert quic.over("tcp").reached_by("quic", setting="x") == quic
    assert quic.reached_by("dual", setting="x") == quic
    with pytest.raises(ConfigurationError, match="an address of QUIC"):
        quic.reached_by("tcp", setting="x")


async def test_our_own_addresses_are_known_from_others() -> None:
    """Loopback and the wildcard are ours; a documentation address (RFC 5737) is not."""
    for text in ("/ip4/127.0.0.1/tcp/1", "/ip4/127.9.9.9/tcp/1", "/ip4/0.0.0.0/tcp/1"):
        place = parse_address(text)
        assert await places_here(place) == (place,)
    assert await places_here(parse_address("/ip4/192.0.2.1/tcp/1")) == ()
    assert await places_here(parse_address("/dns4/nosuch.invalid/tcp/1")) == ()
    local = await places_here(parse_address("/dns4/localhost/tcp/7"))
    assert local == (parse_address("/ip4/127.0.0.1/tcp/7"),)


@pytest.mark.parametrize("name", ["desk", "desk.local", "desk."])
async def test_a_name_that_hides_its_machine_behind_loopback_means_all_of_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Debian files a machine's own name under 127.0.1.1, where no other machine finds it."""

    async def looked_up(host: str, port: int, *_: object) -> list[object]:
        return [(socket.AF_INET, 1, 6, "", ("127.0.1.1", port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", looked_up)
    place = parse_address(f"/dns4/{name}/tcp/51820")

    assert await places_here(place) == (parse_address("/ip4/0.0.0.0/tcp/51820"),)
    assert await ways_to(place) == ("0.0.0.0",)


async def test_a_resolver_that_says_nothing_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A name that cannot be looked up is of no machine, after a bounded time."""

    async def silent(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", silent)
    began = trio.current_time()

    assert await places_here(parse_address("/dns4/desk/tcp/1")) == ()
    assert await ways_to(parse_address("/dns4/desk/tcp/1")) == ()
    assert trio.current_time() - began == 2 * NAME_SECONDS


def test_a_link_local_address_is_no_proof_of_being_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine on another link may have the very same one, or take it."""
    monkeypatch.setattr("punch.network._own.own_hosts", lambda: ("192.168.1.7", LINK))
    found = [is_this_machine(ip) for ip in ("192.168.1.7", "::ffff:192.168.1.7", LINK, "::1")]
    assert found == [True, True, False, True]
    assert not is_this_machine(f"{LINK}%eth0")


def test_own_links_have_the_interfaces_that_they_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its zone, as it is dialled and listened at; of IPv4 without."""
    entries = {
        "eth0": [(socket.AF_INET6, "fe80::7%eth0"), (socket.AF_INET6, "fd00::7")],
        "eth1": [(socket.AF_INET6, "fe80::8"), (socket.AF_INET, "169.254.3.4")],
        "eth2": [(socket.AF_INET6, "fe80::9%eth2")],
    }
    found = {
        name: [SimpleNamespace(family=family, address=address) for family, address in each]
        for name, each in entries.items()
    }
    up = {name: SimpleNamespace(isup=name != "eth2") for name in entries}
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    monkeypatch.setattr("psutil.net_if_stats", lambda: up)
    assert own_links() == {"fe80::7": "eth0", "fe80::8": "eth1", "169.254.3.4": ""}


def test_a_link_local_address_without_a_zone_is_on_any_of_our_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every other address is where it says."""
    links = {"fe80::1": "eth0", "169.254.0.9": "", "fe80::2": "wlan0"}
    monkeypatch.setattr("punch.network._own.own_links", lambda: links)
    ways = links_to(parse_address(f"/ip6/{LINK}/tcp/1"))
    assert [str(way) for way in ways] == [
        f"/ip6zone/{zone}/ip6/{LINK}/tcp/1" for zone in ("eth0", "wlan0")
    ]
    for text in (f"/ip6zone/eth1/ip6/{LINK}/tcp/1", "/ip6/fd00::7/tcp/1", "/ip4/169.254.0.7/tcp/1"):
        assert [str(way) for way in links_to(parse_address(text))] == [text]
