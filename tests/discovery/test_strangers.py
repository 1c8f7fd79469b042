"""Rosters of listeners that somebody made up, and how long those who are there wait for them."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
import trio
from answers import text_of
from hypothesis import given
from hypothesis import strategies as st
from made_up_peers import signed
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dialer import open_router
from punch.discovery import _session_pool as pool_rules
from punch.discovery._dials import MAX_ACCOUNTS, MAX_DIALS, Accounts, Dials
from punch.discovery._meeting import PROTOCOL, FramedStream
from punch.exceptions import PeerUnreachable
from punch.network import Address, Stream, parse_address, site_of, unfit
from punch.testing import MemoryNetwork, Swarm
from punch.testing._memory import MemoryNode, MemoryStream
from punch.testing._swarm import NAMESPACE
from punch.wire import Join, Ping, Pong, Roster

THOUSAND = 1024


def made_up(
    number: int = THOUSAND, *, host: str = "10.{0}.{1}.{2}", prefix: str = "made-up"
) -> list[Join]:
    """Listeners with eight addresses each, where nobody is."""
    return [
        signed(
            f"{prefix}-{n}",
            (
                f"/ip4/{host.format(100 + n // 256, n % 256, k + 1)}/tcp/{4000 + k}"
                for k in range(8)
            ),
        )
        for n in range(number)
    ]


class HostileBootstrap:
    """A bootstrap that lists what it likes."""

    def __init__(self, network: MemoryNetwork, joins: list[Join], name: str = "hostile") -> None:
        self.node = network.node(name)
        self.joins = joins
        self.node.handle(PROTOCOL, self.serve)

    @property
    def address(self) -> Address:
        return parse_address(self.node.addresses[0])

    async def serve(self, stream: Stream) -> None:
        frames = FramedStream(stream)
        while (message := await frames.receive()) is not None:
            if isinstance(message, Ping):
                await frames.send(Pong(nonce=message.nonce))
                continue
            for start in range(0, len(self.joins), 100):
                page = tuple(self.joins[start : start + 100])
                whole = start == 0
                await frames.send(Roster(namespace=NAMESPACE, whole=whole, present=page, minor=1))


class CountingNode(MemoryNode):
    """A node that counts its dials; where nobody is it waits, as behind a firewall that drops."""

    patience = 5.0

    def watch(self) -> CountingNode:
        self.dialed: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        return self

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> MemoryStream:
        self.dialed.update(addresses)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await super().open_stream(peer_id, addresses, protocol)
        except PeerUnreachable:
            await trio.sleep(self.patience * len(addresses))
            raise
        finally:
            self.at_once -= 1


def counting(network: MemoryNetwork, *, patience: float) -> CountingNode:
    node = network.node("dialer")
    node.__class__ = CountingNode
    assert isinstance(node, CountingNode)
    node.patience = patience
    return node.watch()


@pytest.mark.parametrize(
    ("place", "patience"),
    [
        pytest.param(0, 0.0, id="first-refused"),
        pytest.param(THOUSAND, 5.0, id="last-silent"),
        # Each takes seconds, and both places and both answers are above.
        pytest.param(0, 5.0, id="first-silent", marks=pytest.mark.slow),
        pytest.param(THOUSAND, 0.0, id="last-refused", marks=pytest.mark.slow),
    ],
)
async def test_a_thousand_made_up_listeners_cost_little_and_hide_nobody(
    autojump_clock: MockClock, swarm: Swarm, patience: float, place: int
) -> None:
    """Dials are few at a time and few a second, and who really listens is met meanwhile."""
    honest = await swarm.listener("honest", MockBackend(MockScript()))
    joins = made_up()
    joins.insert(place, signed("honest", honest.node.addresses))
    hostile = HostileBootstrap(swarm.network, joins)
    node = counting(swarm.network, patience=patience)
    async with open_router(node=node, bootstrap=hostile.address, namespace=NAMESPACE) as router:
        began = trio.current_time()
        await router.wait_for_peers(lambda found: len(found) >= 1)
        assert trio.current_time() - began < 6.0
        assert text_of(await router.ask("hello"))
        await trio.sleep(11.0 - (trio.current_time() - began))
        assert node.most_at_once <= MAX_DIALS
        assert sum(node.dialed.values()) <= 128 + MAX_DIALS + 11 * 64


async def test_a_listener_in_the_middle_of_many_is_met_in_time(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The worst place there is: all are refused at once, and each has a machine of its own."""
    honest = await swarm.listener("honest", MockBackend(MockScript()))
    joins = made_up(THOUSAND // 2)
    joins.insert(THOUSAND // 4, signed("honest", honest.node.addresses))
    hostile = HostileBootstrap(swarm.network, joins)
    node = counting(swarm.network, patience=0.0)
    async with open_router(node=node, bootstrap=hostile.address, namespace=NAMESPACE) as router:
        began = trio.current_time()
        await router.wait_for_peers(lambda found: len(found) >= 1)
        assert trio.current_time() - began < 10.0


async def test_one_victim_is_not_dialled_for_a_thousand_identities(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """One port there gets eight dials at once and one a second, whoever is said to be at it."""
    await swarm.listener("honest", MockBackend(MockScript()))
    joins = [signed(f"m-{n}", ["/ip4/203.0.113.9/tcp/80"]) for n in range(THOUSAND)]
    hostile = HostileBootstrap(swarm.network, joins)
    node = counting(swarm.network, patience=0.0)
    places = [hostile.address, swarm.bootstrap]
    async with open_router(node=node, bootstrap=places, namespace=NAMESPACE) as router:
        await router.wait_for_peers(lambda found: len(found) >= 1)
        await trio.sleep(20.0)
        assert node.dialed["/ip4/203.0.113.9/tcp/80"] <= 8 + 20 + 1


async def test_a_hostile_source_takes_no_turns_of_an_honest_one(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """What is found by another source is dialled at once, however many the first one lists."""
    hostile = HostileBootstrap(swarm.network, made_up(1500))
    node = counting(swarm.network, patience=0.0)
    places = [hostile.address, swarm.bootstrap]
    async with open_router(node=node, bootstrap=places, namespace=NAMESPACE) as router:
        await trio.sleep(5.0)
        for name in "abc":
            await swarm.listener(name, MockBackend(MockScript()))
        began = trio.current_time()
        await router.wait_for_peers(lambda found: len(found) >= 3)
        assert trio.current_time() - began < 2.0


async def test_more_listeners_than_places_all_get_their_turn(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was never met gives its place to the next."""
    monkeypatch.setattr(pool_rules, "MAX_LISTENERS", 16)
    honest = await swarm.listener("honest", MockBackend(MockScript()))
    joins = [*made_up(200), signed("honest", honest.node.addresses)]
    hostile = HostileBootstrap(swarm.network, joins)
    node = counting(swarm.network, patience=0.0)
    async with open_router(node=node, bootstrap=hostile.address, namespace=NAMESPACE) as router:
        with trio.fail_after(30.0):
            await router.wait_for_peers(lambda found: len(found) >= 1)


async def test_addresses_that_only_their_own_machine_has_are_not_dialled(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Unless the source is on this machine too; the reason is told."""
    loopback, other = "/ip4/127.0.0.1/tcp/22", "/ip4/10.99.0.1/tcp/22"
    joins = [signed("mixed", [loopback, "/ip4/169.254.169.254/tcp/80", other])]
    joins.append(signed("own", [loopback, "/ip6/::1/tcp/22"]))
    hostile = HostileBootstrap(swarm.network, joins)
    node = counting(swarm.network, patience=0.0)
    async with open_router(node=node, bootstrap=hostile.address, namespace=NAMESPACE) as router:
        await trio.sleep(5.0)
        assert set(node.dialed) == {str(hostile.address), other}
        why = router._dispatch.pool.unreachable()[PeerId("own")]
        assert "127.0.0.1/tcp/22: it is a loopback address" in why

    hostile.node.ip = "127.0.0.1"
    node = counting(swarm.network, patience=0.0)
    async with open_router(node=node, bootstrap=hostile.address, namespace=NAMESPACE):
        await trio.sleep(5.0)
        assert {loopback, other} <= set(node.dialed)


DRESSES = (
    "/ip6/::ffff:{0}/tcp/1",
    "/ip6/::{0}/tcp/1",
    "/ip6/64:ff9b::{0}/tcp/1",
    "/ip6/64:ff9b:1::{0}/udp/1/quic-v1",
    "/ip4/{0}/tcp/1",
    "/ip4/{0}/udp/1/quic-v1",
)


@given(
    st.sampled_from(["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/8", "240.0.0.0/4"]),
    st.integers(0, (1 << 32) - 1),
    st.sampled_from(DRESSES),
)
def test_no_dress_makes_a_forbidden_address_fit(network: str, noise: int, dress: str) -> None:
    """IPv4 in IPv6, translated, compatible, and by either transport."""
    block = ipaddress.IPv4Network(network)
    ip = block.network_address + (noise & int(block.hostmask))
    if dress.startswith("/ip6/::{0}") and int(ip) < 2:
        return
    assert unfit(parse_address(dress.format(ip))) is not None


@pytest.mark.parametrize(
    "bad",
    [
        "/ip6/::1/tcp/1",
        "/ip6/::/tcp/1",
        "/ip6/fe80::1/tcp/1",
        "/ip6/ff02::1/tcp/1",
        "/ip6/2002:7f00:1::1/tcp/1",
        "/dns4/localhost/tcp/1",
        "/dns/example.com/tcp/1",
        "/ip4/192.0.2.1/tcp/0",
    ],
)
def test_addresses_of_no_other_machine_are_unfit(bad: str) -> None:
    """With a reason."""
    assert unfit(parse_address(bad))


@given(st.ip_addresses(v=4).filter(lambda ip: ip.is_global or ip.is_private))
def test_addresses_of_machines_are_fit(ip: ipaddress.IPv4Address) -> None:
    """Public ones, and those of a LAN."""
    odd = (
        ip.is_loopback
        or ip.is_link_local
        or ip.is_multicast
        or int(ip) >> 24 in (0, *range(240, 256))
    )
    assert (unfit(parse_address(f"/ip4/{ip}/tcp/1")) is None) == (not odd)
    assert unfit(parse_address("/ip6/2001:db8::1/tcp/1")) is None
    assert unfit(parse_address("/ip6/fd00::1/udp/1/quic-v1")) is None


def test_a_household_is_one_machine_by_64_bits() -> None:
    """An address below that is anybody's to make up."""
    assert site_of("2001:db8::1") == site_of("2001:db8::dead:beef") != site_of("2001:db8:0:1::1")
    assert site_of("::ffff:192.0.2.1") == site_of("192.0.2.1")
    # A link is no household.
    assert site_of("fe80::1%eth0") == site_of("fe80::1") != site_of("fe80::2")


def test_accounts_are_bounded_and_forget_those_that_owe_least() -> None:
    """A made-up host for each failure fills no memory."""
    accounts = Accounts(1.0, 0.001)
    accounts.charge("owes", 0.0)
    accounts.charge("owes", 0.0)
    for number in range(3 * MAX_ACCOUNTS):
        accounts.charge(f"made-up {number}", 0.0)
    assert len(accounts) <= MAX_ACCOUNTS
    assert accounts.owes("owes", 0.0) == 2.0


async def test_a_listener_that_was_met_before_waits_for_no_account(
    autojump_clock: MockClock,
) -> None:
    """Whoever announces its address a thousand times cannot keep us from it."""
    dials = Dials()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dials.run)
        for _ in range(100):
            with trio.move_on_after(0.1):
                async with dials.turn(["/ip4/10.0.0.1/tcp/1"], sources={"s"}, tries=0) as dial:
                    dial.has_failed = True
        began = trio.current_time()
        async with dials.turn(["/ip4/10.0.0.1/tcp/1"], sources={"s"}, tries=-1):
            assert trio.current_time() == began
        assert (dials.running, dials.waiting) == (0, 0)
        nursery.cancel_scope.cancel()
