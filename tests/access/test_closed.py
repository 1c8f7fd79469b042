"""A closed namespace at work: who gets in, who is told what, and who must leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
from answers import text_of
from made_up_members import FakeMembership, MadeUpMember, MadeUpNamespace
from made_up_peers import signed
from trio.testing import MockClock

from punch import Router, open_router
from punch.access import STRANGER
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.discovery._meeting import PROTOCOL as MEET
from punch.listener import Listener, open_listener
from punch.testing import MemoryNetwork
from punch.wire import PROTOCOL as SESSION
from punch.wire import Goodbye, decode, encode, greeting

LIMIT = 3600


class Home:
    """A closed namespace on a network in memory."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.closed = MadeUpNamespace("home")
        self.desk = self.closed.admin("desk-key")
        self.members: dict[str, MadeUpMember] = {}
        self.memberships: dict[str, FakeMembership] = {}

    def member(self, name: str, *, knows: tuple[str, ...] = ()) -> FakeMembership:
        """The membership of the node of this name, which knows where others are."""
        self.members[name] = self.closed.machine(name, by=self.desk)
        self.memberships[name] = self.members[name].membership()
        nodes = (self.network._nodes[name] for name in knows)  # type: ignore[index]
        self.memberships[name].extra_places = tuple(
            f"{node.addresses[0]}/p2p/{node.peer_id}" for node in nodes
        )
        return self.memberships[name]

    @asynccontextmanager
    async def listener(self, name: str, *, knows: tuple[str, ...] = ()) -> AsyncIterator[Listener]:
        async with open_listener(
            MockBackend(MockScript()),
            node=self.network.node(name),
            bootstrap=None,
            namespace="home",
            calibrate=False,
            membership=self.member(name, knows=knows),
        ) as listener:
            yield listener

    @asynccontextmanager
    async def router(self, name: str, *, knows: tuple[str, ...] = ()) -> AsyncIterator[Router]:
        async with open_router(
            node=self.network.node(name),
            bootstrap=None,
            namespace="home",
            membership=self.member(name, knows=knows),
        ) as router:
            yield router


@pytest.fixture
async def home(autojump_clock: MockClock) -> AsyncIterator[Home]:
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            yield Home(MemoryNetwork(nursery))
            nursery.cancel_scope.cancel()


async def test_members_ask_each_other(autojump_clock: MockClock, home: Home) -> None:
    """With nothing but the address of one of them."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(home.listener("a"))
        await stack.enter_async_context(home.listener("b", knows=("a",)))
        await stack.enter_async_context(home.listener("c", knows=("a",)))
        router = await stack.enter_async_context(home.router("d", knows=("c",)))
        with trio.fail_after(10):
            await router.wait_for_peers(lambda found: len(found) == 3)
        assert text_of(await router.ask("hello"))


async def test_a_stranger_is_told_the_same_whatever_it_guesses(
    autojump_clock: MockClock, home: Home
) -> None:
    """At the session and at the meeting point, with the name, another, and minor 0."""
    async with home.listener("a") as listener:
        await trio.sleep(4)
        node = home.network.node("stranger")
        heard = set()
        for namespace in ("home", "work"):
            for minor in (0, 1, 2):
                hello = attrs.evolve(
                    greeting(namespace=namespace, incarnation=1, version="1"), minor=minor
                )
                stream = await node.open_stream(listener.peer_id, listener.addresses, SESSION)
                await stream.send_all(encode(hello))
                heard.add(decode((await stream.receive_some())[4:]))
                join = signed("stranger", (), namespace=namespace, minor=minor)
                stream = await node.open_stream(listener.peer_id, listener.addresses, MEET)
                await stream.send_all(encode(join))
                heard.add(decode((await stream.receive_some())[4:]))
    assert heard == {Goodbye(code="not_permitted", message=STRANGER.reason)}


async def test_a_removed_member_is_out_everywhere_within_two_seconds(
    autojump_clock: MockClock, home: Home
) -> None:
    """Ten members: sessions, registrations, answers; and nothing that it holds lets it back in."""
    names = [f"m{number}" for number in range(10)]
    async with AsyncExitStack() as stack:
        listeners = {}
        routers = {}
        for number, name in enumerate(names):
            knows = (names[number - 1],) if number else ()
            listeners[name] = await stack.enter_async_context(home.listener(name, knows=knows))
        for name in names:
            routers[name] = await stack.enter_async_context(open_router(listener=listeners[name]))
        for router in routers.values():
            with trio.fail_after(30):
                await router.wait_for_peers(lambda found: len(found) == 10)
        out = "m5"
        # The one at the end of the chain hears of it first.
        began = trio.current_time()
        home.memberships["m9"].add_revocations(
            [home.closed.remove(home.members[out], by=home.desk)]
        )

        def is_out() -> bool:
            others = [name for name in names if name != out]
            return all(
                routers[name]._dispatch.pool.session(PeerId(out)) is None
                and PeerId(out) not in listeners[name].directory.members
                and listeners[name].statistics().sessions == 9
                for name in others
            )

        with trio.fail_after(2):
            while not is_out():
                await trio.sleep(0.01)
        took = trio.current_time() - began
        print(f"out everywhere after {took:.2f} s")
        await trio.sleep(60)
        assert is_out()
        assert [peer.peer_id for peer in routers[out].peers] == [out]
    assert took < 2
