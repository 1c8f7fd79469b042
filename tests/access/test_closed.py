"""A closed namespace at work: who gets in, who is told what, and who must leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import attrs
import pytest
import trio
from answers import text_of
from closed_home import Home
from made_up_peers import signed
from trio.testing import MockClock

from punch import Hints, chat_request, open_router
from punch.access import STRANGER
from punch.admission import Caps
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.discovery._meeting import PROTOCOL as MEET
from punch.discovery._meeting import FramedStream
from punch.exceptions import PunchError
from punch.testing import MemoryNetwork
from punch.wire import PROTOCOL as SESSION
from punch.wire import Goodbye, Roster, decode, decode_registration, encode, greeting

LIMIT = 3600


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


async def test_the_first_machine_vanishes_and_the_rest_go_on(
    autojump_clock: MockClock, home: Home
) -> None:
    """A machine that restarts and a newcomer get in through the others; nobody keeps a ghost."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        await home.start(nursery, "a")
        await home.start(nursery, "b", knows=("a",))
        await home.start(nursery, "c", knows=("a",))
        router = await stack.enter_async_context(home.router("asker", knows=("a",)))
        await router.wait_for_peers(lambda found: len(found) == 3)
        home.stop("a")
        await trio.sleep(10)
        assert len(router.peers) == 2
        assert text_of(await router.ask("still there?"))
        # A machine that restarts has what it remembered, and nothing else.
        home.stop("b")
        again = home.memberships["b"]
        again.extra_places = ()
        await trio.sleep(5)
        await home.start(nursery, "b", membership=again)
        newcomer = await stack.enter_async_context(home.router("new", knows=("c",)))
        with trio.fail_after(10):
            await newcomer.wait_for_peers(lambda found: len(found) == 2)
        assert text_of(await newcomer.ask("and you?"))
        with trio.fail_after(10):
            await router.wait_for_peers(lambda found: len(found) == 2)
        await trio.sleep(300)
        assert PeerId("a") not in newcomer._dispatch.membership.members
        assert PeerId("a") not in router._dispatch.membership.members
        nursery.cancel_scope.cancel()


async def test_what_a_removed_member_asked_for_ends(autojump_clock: MockClock, home: Home) -> None:
    """Its running answer, with a clear error, and the stored ones."""
    slow = MockBackend(MockScript(decode_rate=1.0))
    async with home.listener("a", backend=slow) as listener:
        async with home.router("out", knows=("a",)) as router:
            await router.wait_for_peers(lambda found: len(found) == 1)
            request = chat_request("hello", max_tokens=2)
            await router.ask(request)
            assert listener.statistics().recordings.kept == 1
            caught: list[PunchError] = []

            async def ask() -> None:
                try:
                    await router.ask("something long")
                except PunchError as error:
                    caught.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.sleep(3)
                assert listener.statistics().recordings.running == 1
                began = trio.current_time()
                removal = home.closed.remove(home.members["out"], by=home.desk)
                home.memberships["a"].add_revocations([removal])
                await trio.sleep(0.1)
                assert listener.statistics().recordings.running == 0
                assert listener.statistics().recordings.kept == 0
                assert listener.statistics().busy == 0
            print(trio.current_time() - began, repr(caught[0]))
    assert "removed" in str(caught[0])


async def test_peers_of_one_owner_are_told_from_others(
    autojump_clock: MockClock, home: Home
) -> None:
    """By the grants, and not by the machine: caps are for others, and `own` asks no other."""
    async with AsyncExitStack() as stack:
        mine = home.member("mine", owner="desk-key")
        await stack.enter_async_context(home.listener("mine", membership=mine))
        await stack.enter_async_context(home.listener("theirs", knows=("mine",)))
        asker = home.member("asker", owner="desk-key", knows=("mine",))
        router = await stack.enter_async_context(home.router("asker", membership=asker))
        await router.wait_for_peers(lambda found: len(found) == 2)
        for _ in range(5):
            response = await router.ask("hello", hints=Hints(privacy="own"))
            assert response.executor == "mine"
        pool = router._dispatch.pool
        sessions = {name: pool.session(PeerId(name)) for name in ("mine", "theirs")}
        owned = {name: session and session.is_own for name, session in sessions.items()}
        assert owned == {"mine": True, "theirs": False}


async def test_a_meeting_point_passes_on_whom_it_knows_from_others(
    autojump_clock: MockClock, home: Home
) -> None:
    """All members register at the same few; who reaches any other one hears of everybody."""
    names = [f"m{number:02}" for number in range(12)]
    async with trio.open_nursery() as nursery:
        for number, name in enumerate(names):
            await home.start(nursery, name, knows=names[:number][-1:])
        await trio.sleep(30)
        member = home.member("newcomer")
        node = home.network.node("newcomer")
        root = home.closed.namespace.key
        for name in names:
            there = home.network._nodes[PeerId(name)]
            frames = FramedStream(await node.open_stream(there.peer_id, there.addresses, MEET))
            await frames.send(
                signed(
                    "newcomer",
                    (),
                    namespace="home",
                    minor=2,
                    root=root,
                    grant=member.chain(),
                    roles={"dialer"},
                )
            )
            roster = await frames.receive()
            assert isinstance(roster, Roster)
            told = {decode_registration(join.registration).peer_id for join in roster.present}
            assert told == set(names), name
        nursery.cancel_scope.cancel()


async def test_the_last_one_forgets_the_other_that_is_gone_for_good(
    autojump_clock: MockClock, home: Home
) -> None:
    """Not at once: a network that is away for a moment takes nobody away."""
    async with trio.open_nursery() as nursery:
        await home.start(nursery, "a")
        async with home.router("b", knows=("a",)) as router:
            await router.wait_for_peers(lambda found: len(found) == 1)
            home.stop("a")
            await trio.sleep(20)
            assert PeerId("a") in router._dispatch.membership.members
            await trio.sleep(60)
            assert PeerId("a") not in router._dispatch.membership.members
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("caps", "why"),
    [
        (Caps(max_output=5), "at most 5"),
        (Caps(models=frozenset({"another"})), "does not offer"),
        (Caps(max_priority=0), "priority is 9"),
    ],
    ids=["tokens", "models", "priority"],
)
async def test_a_listener_limits_what_one_member_may_ask(
    autojump_clock: MockClock, home: Home, caps: Caps, why: str
) -> None:
    """By its machine; all others may ask as ever."""
    async with AsyncExitStack() as stack:
        limits = {"limited": caps}
        await stack.enter_async_context(home.listener("a", limits=limits))
        limited = await stack.enter_async_context(home.router("limited", knows=("a",)))
        other = await stack.enter_async_context(home.router("other", knows=("a",)))
        for router in (limited, other):
            await router.wait_for_peers(lambda found: len(found) == 1)
        model = other.peers[0].capability.models[0].name
        request = attrs.evolve(
            chat_request("hello", model=model, max_tokens=10, timeout=20.0), priority=9
        )
        assert text_of(await other.ask(request))
        request = attrs.evolve(request, request_id="another")
        with pytest.raises(PunchError) as caught:
            await limited.ask(request)
        assert why in str(caught.value)
