"""Members of a closed namespace on a LAN: a few are followed, and nobody is missed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio
from closed_home import Home
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dialer import Router, open_router
from punch.discovery import Directory
from punch.discovery.attendance import MAX_MEETINGS, ranked
from punch.discovery.attendance._rank import rank_of
from punch.discovery.lan import LanKey
from punch.discovery.lan._candidates import MIN_RETRY_SECONDS, TELLING_SECONDS, Candidates
from punch.discovery.lan._following import ENOUGH_FOLLOWED
from punch.discovery.lan._records import LanRecord
from punch.exceptions import PeerUnreachable
from punch.listener import open_listener
from punch.network import parse_address
from punch.testing import Air, MemoryNetwork
from punch.testing._memory import MemoryNode, MemoryStream
from punch.testing._swarm import NAMESPACE

MANY = 8
LONG = 1e6


@pytest.fixture
async def home(autojump_clock: MockClock) -> AsyncIterator[Home]:
    """A closed namespace in which nobody is yet."""
    del autojump_clock
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            yield Home(MemoryNetwork(nursery))
            nursery.cancel_scope.cancel()


class Mute(MemoryNode):
    """A node that reaches nobody, and is reached."""

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> MemoryStream:
        raise PeerUnreachable("its firewall lets nothing out", peer_id=peer_id)


def on_lan(router: Router) -> int:
    """How many listeners the LAN itself tells of."""
    return next(each.listeners for each in router.sources if each.name == "LAN")


def directory_of(router: Router) -> Directory:
    found = router._dispatch.membership
    assert isinstance(found, Directory)
    return found


async def with_many(home: Home, air: Air, stack: AsyncExitStack, number: int = MANY) -> None:
    for each in range(number):
        await stack.enter_async_context(home.listener(f"l{each}", air=air))


async def test_a_dialer_follows_a_few_and_knows_everybody(
    autojump_clock: MockClock, home: Home
) -> None:
    """Those are meeting points, and tell of all others; whoever comes and goes is told of too."""
    air = Air()
    async with AsyncExitStack() as stack:
        await with_many(home, air, stack)
        async with home.router("dialer", air=air) as router:
            with trio.fail_after(10):
                await router.wait_for_peers(lambda peers: len(peers) == MANY)
            await trio.sleep(30)
            assert len(router.peers) == MANY
            assert on_lan(router) == ENOUGH_FOLLOWED == MAX_MEETINGS
            async with home.listener("newcomer", air=air):
                with trio.fail_after(5):
                    await router.wait_for_peers(lambda peers: len(peers) == MANY + 1)
                await trio.sleep(30)
                assert on_lan(router) == ENOUGH_FOLLOWED
            await trio.sleep(5)
            assert len(directory_of(router).listeners) == MANY


async def test_all_follow_the_same_few(autojump_clock: MockClock, home: Home) -> None:
    """So that the others serve no streams for it; the first in rank, each machine once."""
    air = Air()
    async with AsyncExitStack() as stack:
        await with_many(home, air, stack)
        routers = [
            await stack.enter_async_context(home.router(f"d{each}", air=air)) for each in range(3)
        ]
        await trio.sleep(30)
        names = [PeerId(f"l{each}") for each in range(MANY)]
        first = ranked(names, key=home.closed.namespace.key, machine_of=lambda peer_id: peer_id)
        for router in routers:
            found = {
                member.peer_id
                for member in directory_of(router).listeners.values()
                if "LAN" in member.sources
            }
            assert found == set(first[:ENOUGH_FOLLOWED])


async def test_a_member_that_reaches_nobody_is_found_by_its_record(
    autojump_clock: MockClock, home: Home
) -> None:
    """No meeting point tells of it, so that it is followed beside the few, for as long as it is."""
    air = Air()
    async with AsyncExitStack() as stack:
        await with_many(home, air, stack)
        router = await stack.enter_async_context(home.router("dialer", air=air))
        await router.wait_for_peers(lambda peers: len(peers) == MANY)
        # One that is not among the few.
        key = home.closed.namespace.key
        name = max((PeerId(f"mute{each}") for each in range(50)), key=lambda p: rank_of(p, key))
        node = home.network.node(name)
        node.__class__ = Mute
        membership = home.member(name)
        async with open_listener(
            MockBackend(MockScript()),
            node=node,
            bootstrap=None,
            namespace="home",
            calibrate=False,
            membership=membership,
            lan=home.lan(node.peer_id, air),
        ):
            with trio.fail_after(TELLING_SECONDS + 4):
                await router.wait_for_peers(lambda peers: len(peers) == MANY + 1)
            for _ in range(40):
                await trio.sleep(1)
                assert len(router.peers) == MANY + 1


async def test_a_dialer_outlives_all_that_it_follows(autojump_clock: MockClock, home: Home) -> None:
    """Five of them are taken down at once, without a word: others are chosen."""
    air = Air()
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        for each in range(MANY):
            await home.start(nursery, f"l{each}", air=air)
        router = await stack.enter_async_context(home.router("dialer", air=air))
        await router.wait_for_peers(lambda peers: len(peers) == MANY)
        await trio.sleep(30)
        listeners = directory_of(router).listeners.values()
        gone = [each.peer_id for each in listeners if "LAN" in each.sources]
        for name in gone:
            home.stop(name)
        with trio.fail_after(5):
            await router.wait_for_peers(lambda peers: len(peers) == MANY - len(gone))
        await trio.sleep(30)
        assert len(router.peers) == MANY - len(gone)
        assert on_lan(router) == MANY - len(gone)
        nursery.cancel_scope.cancel()


async def test_a_dialer_of_an_open_namespace_follows_everybody(
    autojump_clock: MockClock, home: Home
) -> None:
    """Nobody is a meeting point there, and nobody else tells who is on the LAN."""
    air, network = Air(), home.network
    async with AsyncExitStack() as stack:
        for each in range(MANY):
            node = network.node(f"l{each}")
            await stack.enter_async_context(
                open_listener(
                    MockBackend(MockScript()),
                    node=node,
                    bootstrap="/ip4/10.99.9.9/tcp/1",
                    namespace=NAMESPACE,
                    calibrate=False,
                    lan=home.lan(node.peer_id, air),
                )
            )
        node = network.node("dialer")
        async with open_router(
            node=node,
            bootstrap="/ip4/10.99.9.9/tcp/1",
            namespace=NAMESPACE,
            lan=home.lan(node.peer_id, air),
        ) as router:
            await trio.sleep(30)
            assert len(router.peers) == on_lan(router) == MANY


# ---- who is chosen: no I/O, and no clock ----


def heard(candidates: Candidates, name: str, *addresses: str, now: float = 0.0) -> None:
    places = addresses or ("/ip4/10.0.0.1/tcp/1",)
    record = LanRecord(
        peer_id=PeerId(name),
        interface="eth0",
        instance=name,
        addresses=tuple(map(parse_address, places)),
        salt=b"s" * 16,
        tag=LanKey.of_closed(b"r" * 32).tag("record", b"s" * 16, PeerId(name)),
    )
    assert candidates.hear(record, now=now) is not None


def wanted(candidates: Candidates, *besides: str, now: float) -> str:
    found = candidates.wanted(2, order=sorted, besides=[PeerId(name) for name in besides], now=now)
    return "".join(sorted(found))


def candidates_of(names: str) -> Candidates:
    candidates = Candidates()
    for name in names:
        heard(candidates, name)
    return candidates


def test_whom_nobody_tells_of_is_wanted_a_moment_later() -> None:
    """The few at once, and all others as long as no other source lists them."""
    candidates = candidates_of("abcd")
    assert wanted(candidates, now=0.0) == "ab"
    assert wanted(candidates, "c", now=TELLING_SECONDS) == "abd"
    heard(candidates, "e", now=LONG)
    assert wanted(candidates, "c", "d", now=LONG) == "ab"
    assert wanted(candidates, "c", now=LONG + TELLING_SECONDS) == "abde"


def test_one_that_does_not_answer_takes_no_place_among_the_few() -> None:
    """The next one in order has it, until that one answers again."""
    candidates = candidates_of("abcd")
    first = candidates.next_due(0.0, {PeerId("a")})
    assert not isinstance(first, float)
    assert first is not None
    candidates.began(first)
    candidates.ended(first, now=0.0)
    assert wanted(candidates, *"abcd", now=LONG) == "bc"
    assert candidates.next_due(0.5, {PeerId("a")}) == MIN_RETRY_SECONDS
    candidates.began(first)
    assert wanted(candidates, *"abcd", now=LONG) == "bc"
    candidates.met(first)
    assert wanted(candidates, *"abcd", now=LONG) == "ab"


def test_who_is_on_our_link_alone_is_always_wanted() -> None:
    """Where it is no registration says; one that has another address beside is as all others."""
    candidates = candidates_of("ab")
    heard(candidates, "y", "/ip4/10.0.0.1/tcp/1", "/ip4/169.254.1.1/tcp/1")
    heard(candidates, "z", "/ip4/169.254.1.1/tcp/1")
    assert wanted(candidates, *"abyz", now=LONG) == "abz"
    heard(candidates, "z")
    assert wanted(candidates, *"abyz", now=LONG) == "ab"


def test_only_those_are_let_go_of_whom_others_hear_from_themselves() -> None:
    """Two members that know a third from each other alone would both lose it."""
    candidates = candidates_of("abcde")
    for each in candidates:
        candidates.began(each)
        candidates.met(each)
    chosen = {PeerId("a"), PeerId("b")}
    besides = {PeerId("a"): True, PeerId("c"): True, PeerId("d"): False}
    spare = list(candidates.spare(chosen, besides))
    assert [each.peer_id for each in spare] == ["c"]
    candidates.let_go(spare[0])
    assert candidates.next_due(0.0, {PeerId("c")}) is spare[0]


def test_the_first_of_each_machine_goes_before_all_seconds() -> None:
    """A machine that makes itself keys that go before all others has one place."""
    key = b"k" * 32
    names = sorted((PeerId(f"p{each}") for each in range(50)), key=lambda p: rank_of(p, key))
    machine = {name: PeerId("evil") for name in names[:8]}
    order = ranked(names, key=key, machine_of=machine.get)
    assert order == [names[0], *names[8:], *names[1:8]]
