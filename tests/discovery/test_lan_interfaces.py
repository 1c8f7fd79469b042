"""Interfaces of a LAN: which are used, several at a time, and addresses that one link has alone."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import attrs
import pytest
import trio
from made_up_peers import signed
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dialer import Router, open_router
from punch.discovery._listed import Listed
from punch.discovery._source import Nowhere, Sighting
from punch.discovery.lan import Event, Heard, Interface, Lan, LanKey, Said, lan_interfaces
from punch.discovery.lan._asking import PROTOCOL
from punch.discovery.lan._candidates import Candidates
from punch.discovery.lan._interfaces import MAX_INTERFACES
from punch.discovery.lan._records import parse, said_on
from punch.listener import Listener, open_listener
from punch.listener._listener import addresses_to_listen_on
from punch.network import Stream
from punch.testing import Air, MemoryNetwork
from punch.testing._memory import MemoryNode
from punch.testing._swarm import NAMESPACE
from punch.wire import decode_registration

NOBODY = "/ip4/10.99.9.9/tcp/1"
OPEN = LanKey.of_open(NAMESPACE)
SALT = b"s" * 16
PEER = PeerId("peer")


@pytest.fixture
async def network(autojump_clock: MockClock) -> AsyncIterator[MemoryNetwork]:
    """A network on which nobody is yet."""
    del autojump_clock
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            yield MemoryNetwork(nursery)
            nursery.cancel_scope.cancel()


# ---- which are used ----


def machine_of(monkeypatch: pytest.MonkeyPatch, **interfaces: str) -> None:
    """Have this machine these interfaces: flags, then addresses with their lengths, as one text."""
    stats, found = {}, {}
    for name, text in interfaces.items():
        flags, *networks = text.split()
        stats[name] = SimpleNamespace(isup="up" in flags.split(","), flags=flags)
        found[name] = [
            SimpleNamespace(
                family=socket.AF_INET6 if ":" in network else socket.AF_INET,
                address=network.partition("/")[0] + ("%" + name if "fe80" in network else ""),
                netmask=("ffff:ffff:ffff:ffff::" if ":" in network else "255.255.255.0"),
            )
            for network in networks
        ]
    monkeypatch.setattr("psutil.net_if_stats", lambda: stats)
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    names = list(interfaces)
    monkeypatch.setattr("socket.if_nametoindex", lambda name: names.index(name) + 1)


LAPTOP = {
    "lo": "up,loopback,running 127.0.0.1/8 ::1/128",
    "wlan0": "up,broadcast,running,multicast 192.168.1.7/24 fe80::7/64",
    "eth0": "up,broadcast,running,multicast fe80::8/64",
    "wg0": "up,pointopoint,running,noarp 10.8.0.2/24",
    "tailscale0": "up,pointopoint,multicast 100.64.0.3/24 fe80::9/64",
    "docker0": "up,broadcast,multicast 172.17.0.1/24",
    "eth1": "broadcast,multicast 192.168.9.7/24",
    "eth2": "up,broadcast,multicast",
}


def used(*names: str) -> list[str]:
    return [each.name for each in lan_interfaces(names)]


def test_vpns_containers_and_what_is_off_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a laptop with all of that: a cable with nothing but a link-local address counts."""
    machine_of(monkeypatch, **LAPTOP)
    assert used() == ["wlan0", "eth0"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("wg0",), ["wg0"]),
        (("wlan0", "tailscale0"), ["wlan0", "tailscale0"]),
        (("docker0",), ["docker0"]),
        (("eth1", "eth2", "nope"), []),
        (("lo",), []),  # What is there is of this machine alone.
        (("WLAN0",), []),
    ],
)
def test_who_names_interfaces_gets_those_and_no_other(
    names: tuple[str, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VPN too, for whoever wants its machines to be one LAN."""
    machine_of(monkeypatch, **LAPTOP)
    assert used(*names) == expected


def test_a_machine_with_many_interfaces_uses_a_bounded_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host of virtual networks is not a thread full of sockets."""
    flags = "up,broadcast,multicast"
    machine_of(monkeypatch, **{f"eth{n}": f"{flags} 10.0.{n}.1/24" for n in range(100)})
    assert used() == [f"eth{n}" for n in range(MAX_INTERFACES)]


# ---- the same peer on two ----


def lans(*several: Lan) -> Lan:
    """One machine's view of several LANs that do not hear each other."""

    @asynccontextmanager
    async def open_all(said: Mapping[Interface, Said | None]) -> AsyncIterator[SimpleNamespace]:
        send, events = trio.open_memory_channel[Event](1024)

        async def carry(heard: trio.MemoryReceiveChannel[Event]) -> None:
            async for event in heard:
                await send.send(event)

        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            for lan in several:
                (interface,) = lan._interfaces()
                ear = await stack.enter_async_context(lan._open({interface: said.get(interface)}))
                nursery.start_soon(carry, ear.events)
            yield SimpleNamespace(events=events, lost=0)
            nursery.cancel_scope.cancel()

    interfaces = tuple(each for lan in several for each in lan._interfaces())
    return Lan(open=open_all, interfaces=lambda: interfaces)


@asynccontextmanager
async def listening(network: MemoryNetwork, lan: Lan, *addresses: str) -> AsyncIterator[Listener]:
    node = network.node("alpha")
    node.addresses = addresses or node.addresses
    async with open_listener(
        MockBackend(MockScript()), node=node, bootstrap=NOBODY, namespace=NAMESPACE, lan=lan
    ) as listener:
        yield listener


@asynccontextmanager
async def dialing(network: MemoryNetwork, lan: Lan) -> AsyncIterator[Router]:
    async with open_router(
        node=network.node("dialer"), bootstrap=NOBODY, namespace=NAMESPACE, lan=lan
    ) as router:
        yield router


CABLE, RADIO = "/ip4/10.1.0.1/tcp/1", "/ip4/10.2.0.1/tcp/1"


async def test_a_peer_that_is_heard_on_two_interfaces_is_one_peer(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """On each it tells the address that it has there; it is asked once, and listed once."""
    cable, radio = Air(), Air()
    streams: list[Stream] = []
    alpha = lans(cable.lan("10.1.0.1/24"), radio.lan("10.2.0.1/24", name="wlan0"))
    ours = lans(cable.lan("10.1.0.2/24"), radio.lan("10.2.0.2/24", name="wlan0"))
    async with listening(network, alpha, CABLE, RADIO):
        await trio.sleep(1)
        handlers = network._nodes[PeerId("alpha")].handlers
        serve = handlers[PROTOCOL]

        async def count(stream: Stream) -> None:
            streams.append(stream)
            await serve(stream)

        handlers[PROTOCOL] = count
        async with dialing(network, ours) as router:
            await router.wait_for_peers()
            await trio.sleep(60)
            assert [each.hosts for air in (cable, radio) for each in air.said] == [
                ("10.1.0.1",),
                ("10.2.0.1",),
            ]
            assert [peer.peer_id for peer in router.peers] == ["alpha"]
            assert {each.name: each.listeners for each in router.sources}["LAN"] == 1
            assert len(streams) == 1
            assert (await router.ask("hello")).executor == "alpha"


async def test_a_peer_that_is_lost_on_one_interface_is_found_by_the_other(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """The cable is pulled: its streams end, and it is asked where it is still heard."""
    cable, radio = Air(), Air()
    alpha = lans(cable.lan("10.1.0.1/24"), radio.lan("10.2.0.1/24", name="wlan0"))
    ours = lans(cable.lan("10.1.0.2/24"), radio.lan("10.2.0.2/24", name="wlan0"))
    async with listening(network, alpha, CABLE, RADIO), dialing(network, ours) as router:
        await router.wait_for_peers()
        (said,) = cable.said
        cable.unsay("eth0", said.instance)
        network._nodes[PeerId("alpha")].addresses = (RADIO,)
        network.cut()
        await router.wait_for_peers(lambda peers: not peers)
        with trio.fail_after(10):
            await router.wait_for_peers()
        assert (await router.ask("hello")).executor == "alpha"


def record_on(interface: Interface, *hosts: str, zone: str = "", port: int = 7) -> Heard:
    """What a peer with these addresses says there."""
    return Heard(
        interface=interface.name,
        instance="abc",
        hosts=tuple(f"{host}{zone}" for host in hosts),
        port=port,
        properties={
            b"v": b"1",
            b"p": PEER.encode(),
            b"s": SALT.hex().encode(),
            b"t": OPEN.tag("record", SALT, PEER).hex().encode(),
            b"q": b"8",
        },
    )


ETH0 = Interface(name="eth0", index=2, networks=("192.168.1.10/24", "fe80::1/64"))
ETH1 = Interface(name="eth1", index=3, networks=("192.168.2.10/24", "fe80::2/64"))


def test_what_is_unheard_on_one_interface_stays_on_the_other() -> None:
    """A record has the same name on each, and is another record."""
    candidates = Candidates()
    for interface, host in ((ETH0, "192.168.1.9"), (ETH1, "192.168.2.9")):
        record = parse(record_on(interface, host), interface)
        assert record is not None
        candidate = candidates.hear(record, now=0.0)
    assert candidate is not None
    assert len(candidates) == 1
    assert {each.host for each in candidate.addresses} == {"192.168.1.9", "192.168.2.9"}
    candidates.unhear("eth1", "abc")
    assert {each.host for each in candidate.addresses} == {"192.168.1.9"}
    candidates.unhear("eth0", "abc")
    assert len(candidates) == 0


# ---- link-local addresses ----


@pytest.mark.parametrize(
    ("zone", "is_taken"),
    [("", True), ("%eth1", True), ("%3", True), ("%eth0", False), ("%2", False), ("%wlan9", False)],
)
def test_a_link_local_address_is_of_the_interface_on_which_it_was_heard(
    zone: str, is_taken: bool
) -> None:
    """Not of another that heard the same packet; over TCP, as QUIC cannot be told one."""
    found = parse(record_on(ETH1, "fe80::9", zone=zone), ETH1)
    assert (found is not None) is is_taken
    if found is not None:
        assert [str(each) for each in found.addresses] == ["/ip6zone/eth1/ip6/fe80::9/tcp/7"]


def test_link_local_addresses_are_tried_after_all_others() -> None:
    """Whichever record came last: on most LANs nobody needs them."""
    candidates = Candidates()
    for interface, host in ((ETH0, "192.168.1.9"), (ETH1, "fe80::9")):
        record = parse(record_on(interface, host), interface)
        assert record is not None
        candidate = candidates.hear(record, now=0.0)
    assert candidate is not None
    assert [each.host for each in candidate.addresses][-1] == "fe80::9"


def test_the_same_link_local_address_on_two_links_is_two_places() -> None:
    """Nothing keeps two links from having one machine each with the same one."""
    candidates = Candidates()
    for interface in (ETH0, ETH1):
        record = parse(record_on(interface, "fe80::9"), interface)
        assert record is not None
        candidate = candidates.hear(record, now=0.0)
    assert candidate is not None
    assert {each.zone for each in candidate.addresses} == {"eth0", "eth1"}


def test_link_local_addresses_are_said_on_their_own_link_alone() -> None:
    """Without a zone, which is this machine's word."""
    ours = ("/ip6zone/eth0/ip6/fe80::1/tcp/7", "/ip4/192.168.2.10/tcp/7")
    said = {
        each.name: said_on(each, ours, peer_id=PEER, instance="a", key=OPEN, salt=SALT)
        for each in (ETH0, ETH1, attrs.evolve(ETH0, name="eth9"))
    }
    hosts = {name: None if each is None else each.hosts for name, each in said.items()}
    assert hosts == {"eth0": ("fe80::1",), "eth1": ("192.168.2.10",), "eth9": None}


def test_an_interface_whose_name_is_no_zone_has_its_number() -> None:
    """As on Windows."""
    interface = Interface(name="Ethernet 2", index=12, networks=("fe80::1/64", "169.254.3.4/16"))
    assert [str(each) for each in interface.links] == [
        "/ip6zone/12/ip6/fe80::1/tcp/0",
        "/ip4/169.254.3.4/tcp/0",
    ]


@pytest.mark.parametrize(
    ("is_closed", "has_lan", "transport", "expected"),
    [
        (True, True, "tcp", ["/ip6zone/eth0/ip6/fe80::1/tcp/0"]),
        (True, True, "dual", ["/ip6zone/eth0/ip6/fe80::1/tcp/0"]),
        (True, True, "quic", []),
        (False, True, "tcp", ["/ip6zone/eth0/ip6/fe80::1/tcp/0"]),
        (True, False, "tcp", []),
    ],
)
async def test_a_listener_that_is_to_be_found_on_a_lan_listens_on_its_link(
    is_closed: bool, has_lan: bool, transport: str, expected: list[str]
) -> None:
    """That may be all that a machine has; without mDNS nobody would know of it."""
    lan = Air().lan("192.168.1.10/24", "fe80::1/64")
    places = await addresses_to_listen_on(
        [],
        transport=transport,  # type: ignore[arg-type]  # one of three words
        is_closed=is_closed,
        lan=lan if has_lan else None,
    )
    assert [each for each in places if "fe80" in each] == expected


LINK = "/ip6zone/eth0/ip6/fe80::5/tcp/1"


@pytest.mark.parametrize("link", [LINK, "/ip4/169.254.7.5/tcp/1"])
async def test_a_peer_with_a_link_local_address_alone_is_found_and_asked(
    network: MemoryNetwork, autojump_clock: MockClock, link: str
) -> None:
    """Its registration has no address at all: it is dialled where it was heard."""
    air = Air()
    node = network.node("alpha")
    node.addresses, node.on_link = (), (link,)
    lan = air.lan("fe80::5/64", "169.254.7.5/16")
    async with (
        open_listener(
            MockBackend(MockScript()), node=node, bootstrap=NOBODY, namespace=NAMESPACE, lan=lan
        ),
        dialing(network, air.lan("fe80::6/64", "169.254.7.6/16")) as router,
    ):
        await router.wait_for_peers()
        assert len(router.peers) == 1
        assert (await router.ask("hello")).executor == "alpha"
        assert router.warnings == ()
        network.cut()
        await router.wait_for_peers(lambda peers: not peers)
        await router.wait_for_peers()
        assert (await router.ask("hello again")).executor == "alpha"


async def test_a_link_local_address_in_a_registration_is_still_not_dialled(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """With a zone of its own machine too: only the source that heard the peer says where it is."""
    air, dialed = Air(), list[str]()

    class Noting(MemoryNode):
        async def open_stream(self, peer_id, addresses, protocol):  # type: ignore[no-untyped-def]  # as much of one as is used
            dialed.extend(each.partition("/p2p/")[0] for each in addresses)
            return await super().open_stream(peer_id, addresses, protocol)

    node = network.node("alpha")
    (own,) = node.addresses
    others = (
        "/ip6zone/eth0/ip6/fe80::77/tcp/22",
        "/ip6/fe80::78/tcp/22",
        "/ip4/169.254.1.1/tcp/22",
    )
    node.addresses = (own, *others)
    dialer = network.node("dialer")
    dialer.__class__ = Noting
    lan = air.lan(f"{own.split('/')[2]}/8", "fe80::5/64")
    async with (
        open_listener(
            MockBackend(MockScript()), node=node, bootstrap=NOBODY, namespace=NAMESPACE, lan=lan
        ),
        open_router(
            node=dialer,
            bootstrap=NOBODY,
            namespace=NAMESPACE,
            lan=air.lan("10.0.0.9/8", "fe80::6/64"),
        ) as router,
    ):
        await router.wait_for_peers()
        assert (await router.ask("hello")).executor == "alpha"
        assert set(dialed) == {own}


def test_where_a_peer_was_found_goes_with_it() -> None:
    """What its source said last counts, and nothing stays of a peer that is gone."""
    listed = Listed(Nowhere())
    us = PeerId("us")
    (registration, other) = (
        decode_registration(signed(name, ()).registration) for name in ("peer", "other")
    )
    for places in ((LINK,), (), (LINK, "/ip4/169.254.1.1/tcp/1")):
        listed.take(Sighting(present=(registration,), on_link={PEER: places}), us, set(), None)
        assert listed.on_link.get(PEER, ()) == places
    listed.take(Sighting(present=(other,)), us, set(), None)
    assert listed.on_link[PEER]
    listed.take(Sighting(gone=(PEER,)), us, set(), None)
    assert listed.on_link == {}
    listed.take(Sighting(present=(registration,), on_link={PEER: (LINK,)}), us, set(), None)
    listed.keep(lambda each: each.peer_id != PEER)
    assert listed.on_link == {}
