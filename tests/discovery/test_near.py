"""Who is on this machine, so that its loopback addresses and its names are dialled."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable

import attrs
import pytest
import trio
from closed_home import Home
from made_up_peers import signed
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dialer import open_router
from punch.discovery import join_namespace
from punch.discovery._listed import Listed, first_hand
from punch.discovery._meeting import PROTOCOL, FramedStream
from punch.discovery._source import Nowhere, Sighting
from punch.listener import open_listener
from punch.membership._places import told_places
from punch.network import Stream, parse_address
from punch.testing import Air, MemoryNetwork, Swarm
from punch.testing._memory import MemoryNode, MemoryStream
from punch.testing._swarm import NAMESPACE
from punch.wire import Join, Ping, Pong, Roster, decode_registration

FIT = "/ip4/10.9.9.9/tcp/7"
OWN_ONLY = (
    "/ip4/127.0.0.1/tcp/22",
    "/ip4/127.9.8.7/tcp/22",
    "/ip6/::1/tcp/22",
    "/ip6/::ffff:127.0.0.1/tcp/22",
    "/ip6/::127.0.0.1/tcp/22",
    "/ip6/64:ff9b::7f00:1/tcp/22",
    "/ip4/0.0.0.0/tcp/22",
    "/ip6/::/tcp/22",
    "/dns/localhost/tcp/22",
    "/dns4/localhost.example/tcp/22",
    "/dns6/localhost/udp/22/quic-v1",
    "/ip4/169.254.169.254/tcp/80",
    "/ip4/127.0.0.1/udp/22/quic-v1",
)
"""Addresses that mean another machine to each who reads them."""

# A registration has eight addresses at most.
PARTS = [OWN_ONLY[:7], OWN_ONLY[7:]]


class Watched(MemoryNode):
    """A node that counts where it dials."""

    dialed: Counter[str]

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> MemoryStream:
        self.dialed.update(address.partition("/p2p/")[0] for address in addresses)
        return await super().open_stream(peer_id, addresses, protocol)


def watched(network: MemoryNetwork, name: str) -> Watched:
    node = network._nodes.get(PeerId(name)) or network.node(name)
    node.__class__ = Watched
    assert isinstance(node, Watched)
    node.dialed = Counter()
    return node


async def registered(node: MemoryNode, server: MemoryNode, join: Join) -> FramedStream:
    """A member's stream to a meeting point, with *join* sent on it."""
    stream = await node.open_stream(server.peer_id, server.addresses, PROTOCOL)
    frames = FramedStream(stream)
    await frames.send(join)
    await frames.send(Ping(nonce=1))
    while not isinstance(await frames.receive(), Pong):
        pass
    return frames


def from_here(network: MemoryNetwork, *names: str) -> None:
    """Have what these peers send come from this machine, as the other end sees it."""
    for name in names:
        network._nodes[PeerId(name)].ip = "127.0.0.1"


@pytest.mark.parametrize("addresses", PARTS)
@pytest.mark.parametrize("comes_from", ["10.9.9.9", "::ffff:10.9.9.9", "fe80::9%eth0", None])
async def test_a_bootstrap_of_this_machine_makes_nobody_elsewhere_near(
    autojump_clock: MockClock, swarm: Swarm, addresses: tuple[str, ...], comes_from: str | None
) -> None:
    """Whatever the member says itself; its one fit address is dialled."""
    member, dialer = swarm.network.node("member"), watched(swarm.network, "dialer")
    from_here(swarm.network, "bootstrap", "dialer")
    member.ip = comes_from
    join = attrs.evolve(signed("member", (*addresses, FIT), minor=2), near=True)
    bootstrap = swarm.network._nodes[PeerId("bootstrap")]
    await registered(member, bootstrap, join)
    async with open_router(node=dialer, bootstrap=swarm.bootstrap, namespace=NAMESPACE) as router:
        await trio.sleep(5.0)
        assert set(dialer.dialed) == {str(swarm.bootstrap), FIT}
        assert list(router.unreachable) == ["member"]


@pytest.mark.parametrize("comes_from", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
async def test_a_member_of_this_machine_is_dialled_on_loopback(
    autojump_clock: MockClock, swarm: Swarm, comes_from: str
) -> None:
    """By every kind of address that means this machine here, and by names."""
    member, dialer = swarm.network.node("member"), watched(swarm.network, "dialer")
    from_here(swarm.network, "bootstrap", "dialer")
    member.ip = comes_from
    bootstrap = swarm.network._nodes[PeerId("bootstrap")]
    await registered(member, bootstrap, signed("member", OWN_ONLY[:7], minor=2))
    async with open_router(node=dialer, bootstrap=swarm.bootstrap, namespace=NAMESPACE):
        await trio.sleep(5.0)
        assert set(OWN_ONLY[:7]) <= set(dialer.dialed)


async def test_a_member_that_comes_back_from_elsewhere_is_near_no_longer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The same registration, on a stream from another machine: the members are told."""
    member, dialer = swarm.network.node("member"), watched(swarm.network, "dialer")
    from_here(swarm.network, "bootstrap", "dialer", "member")
    bootstrap = swarm.network._nodes[PeerId("bootstrap")]
    join = signed("member", ["/ip4/127.0.0.1/tcp/22"], minor=2)
    await registered(member, bootstrap, join)
    async with join_namespace(
        dialer, swarm.bootstrap, namespace=NAMESPACE, roles={"dialer"}, incarnation=1
    ) as directory:
        await trio.sleep(1.0)
        assert directory.members[member.peer_id].addresses
        member.ip = "10.9.9.9"
        await registered(member, bootstrap, join)
        await trio.sleep(1.0)
        assert not directory.members[member.peer_id].addresses


class Lister:
    """A meeting point that says of members what it likes."""

    def __init__(self, network: MemoryNetwork, joins: Iterable[Join], *, minor: int) -> None:
        self.node = network.node("lister")
        self.node.handle(PROTOCOL, self.serve)
        self.joins = tuple(joins)
        self.minor = minor

    async def serve(self, stream: Stream) -> None:
        frames = FramedStream(stream)
        while (message := await frames.receive()) is not None:
            if isinstance(message, Ping):
                await frames.send(Pong(nonce=message.nonce))
                await frames.send(
                    Roster(namespace=NAMESPACE, whole=True, present=self.joins, minor=self.minor)
                )


@pytest.mark.parametrize(
    ("is_here", "minor", "says", "is_near"),
    [
        (True, 2, True, True),
        (True, 2, False, False),
        (True, 1, False, True),  # It cannot say; see `NEAR_MINOR`.
        (False, 2, True, False),
        (False, 1, True, False),
    ],
)
async def test_who_is_near_is_the_word_of_a_meeting_point_of_this_machine_alone(
    autojump_clock: MockClock, swarm: Swarm, is_here: bool, minor: int, says: bool, is_near: bool
) -> None:
    """What one on another machine calls near is near to that one."""
    join = attrs.evolve(signed("member", [OWN_ONLY[0]], minor=2), near=says)
    lister = Lister(swarm.network, [join], minor=minor)
    if is_here:
        from_here(swarm.network, "lister")
    dialer = watched(swarm.network, "dialer")
    place = parse_address(lister.node.addresses[0])
    async with open_router(node=dialer, bootstrap=place, namespace=NAMESPACE):
        await trio.sleep(5.0)
        assert (OWN_ONLY[0] in dialer.dialed) == is_near


def test_what_is_passed_on_is_near_to_who_passes_it_on() -> None:
    """A member that a far meeting point calls near is not near to us."""
    joins = {
        name: attrs.evolve(signed(name, [OWN_ONLY[0]]), near=says)
        for name, says in (("far", True), ("near", False))
    }
    listed = Listed(Nowhere(), is_working=True)
    present = tuple(decode_registration(join.registration) for join in joins.values())
    near = frozenset({PeerId("near")})
    listed.take(Sighting(present=present, near=near, is_whole=True), PeerId("us"), set(), None)
    told = first_hand([listed], lambda peer_id: joins[peer_id])
    assert {peer: join.near for peer, join in told.items()} == {"far": False, "near": True}
    listed.take(Sighting(gone=(PeerId("near"),)), PeerId("us"), set(), None)
    assert listed.near == frozenset()


# ---- closed namespaces: each listener is a meeting point ----


@pytest.fixture
async def home(autojump_clock: MockClock) -> AsyncIterator[Home]:
    del autojump_clock
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            yield Home(MemoryNetwork(nursery))
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("addresses", PARTS)
@pytest.mark.parametrize("comes_from", ["10.0.0.77", "127.0.0.1"])
async def test_at_a_listeners_own_meeting_point_only_its_own_machine_is_near(
    autojump_clock: MockClock, home: Home, addresses: tuple[str, ...], comes_from: str
) -> None:
    """A member names its listener's loopback: neither it nor what is kept for later is dialled."""
    async with home.listener("desk") as desk, home.listener("guest", knows=("desk",)):
        own = watched(home.network, "desk")
        guest = home.network._nodes[PeerId("guest")]
        fit = guest.addresses[0]
        await trio.sleep(10.0)
        guest.ip, guest.addresses = comes_from, (fit, *addresses)
        home.network.cut(lambda dialer, listener: dialer == "guest")
        moved, guest.moved = guest.moved, trio.Event()
        moved.set()
        await trio.sleep(30.0)
        member = desk.directory.members[guest.peer_id]
        kept = home.memberships["desk"].remembered[guest.peer_id].addresses
        if comes_from == "127.0.0.1":
            assert member.addresses == kept == guest.addresses
            return
        assert member.addresses == kept == (fit,)
        assert len(member.unfit) == len(addresses)
        home.network.cut()
        await trio.sleep(120.0)
        assert not set(own.dialed) & set(addresses)
        assert not any(
            each in place for place in home.memberships["desk"].places() for each in addresses
        )


async def test_a_member_that_is_met_on_a_lan_is_not_near(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its registration names loopback beside the address at which it was heard."""
    air, node, dialer = Air(), swarm.network.node("alpha"), watched(swarm.network, "dialer")
    own = node.addresses[0]
    node.addresses = (own, *OWN_ONLY[:7])
    nobody = "/ip4/10.99.9.9/tcp/1"
    async with (
        open_listener(
            MockBackend(MockScript()),
            node=node,
            bootstrap=nobody,
            namespace=NAMESPACE,
            lan=air.lan(f"{own.split('/')[2]}/8"),
        ),
        open_router(
            node=dialer, bootstrap=nobody, namespace=NAMESPACE, lan=air.lan("10.0.0.99/8")
        ) as router,
    ):
        await router.wait_for_peers()
        assert (await router.ask("hello")).executor == "alpha"
        assert set(dialer.dialed) == {own}


@pytest.mark.parametrize(
    ("at", "is_here"),
    [
        ("/ip4/192.0.2.7/tcp/1", False),
        ("/ip6/2001:db8::7/tcp/1", False),
        ("/dns/desk/tcp/1", False),
        ("/ip6zone/eth0/ip6/fe80::7/tcp/1", False),
        ("/ip4/127.0.0.1/tcp/1", True),
        ("/ip6/::1/tcp/1", True),
    ],
)
def test_what_the_member_says_that_has_let_us_in_is_kept_by_the_same_rule(
    at: str, is_here: bool
) -> None:
    """A newcomer dials no loopback of its own for a machine that it has reached elsewhere."""
    loopback = ("/ip4/127.0.0.1/tcp/22", "/ip6/::1/tcp/22", "/dns4/localhost/tcp/22")
    kept = told_places([*loopback, FIT, "/ip4/169.254.169.254/tcp/80", "nonsense"], at=at)
    assert kept == ((*loopback, FIT) if is_here else (FIT,))
