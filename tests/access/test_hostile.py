"""What a hostile bootstrap, a removed member and strangers try at a closed namespace, in vain."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import attrs
import pytest
import trio
from closed_home import Home
from made_up_members import MadeUpNamespace
from made_up_peers import signed
from trio.testing import MockClock

from punch.access import STRANGER
from punch.bootstrap import _locks as locks
from punch.bootstrap import open_bootstrap
from punch.capability import PeerId
from punch.discovery._meeting import PROTOCOL as MEET
from punch.discovery._meeting import FramedStream
from punch.exceptions import PeerUnreachable
from punch.network import Stream
from punch.testing import MemoryNetwork
from punch.testing._memory import MemoryNode
from punch.wire import PROTOCOL as SESSION
from punch.wire import (
    FrameBuffer,
    Goodbye,
    Hello,
    Join,
    Ping,
    Pong,
    Roster,
    Standing,
    decode,
    encode,
    greeting,
)

LIMIT = 3600


@pytest.fixture
async def home(autojump_clock: MockClock) -> AsyncIterator[Home]:
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            yield Home(MemoryNetwork(nursery))
            nursery.cancel_scope.cancel()


class Lying:
    """A bootstrap that lists what it likes, and says of removals what it likes."""

    def __init__(self, node: MemoryNode, *, minor: int = 2) -> None:
        self.node = node
        self.present: tuple[Join, ...] = ()
        self.revocations: tuple[bytes, ...] = ()
        self.minor = minor
        self.heard: list[object] = []
        node.handle(MEET, self.serve)

    async def serve(self, stream: Stream) -> None:
        frames = FramedStream(stream)
        while (message := await frames.receive()) is not None:
            self.heard.append(message)
            if isinstance(message, Ping):
                await frames.send(Pong(nonce=message.nonce))
            elif isinstance(message, Join):
                await frames.send(Standing(revocations=self.revocations))
                await frames.send(
                    Roster(namespace="home", whole=True, present=self.present, minor=self.minor)
                )


class Trap:
    """A node that notes what is said to it as a listener."""

    def __init__(self, node: MemoryNode) -> None:
        self.node = node
        self.heard: list[object] = []
        node.handle(SESSION, self.serve)

    async def serve(self, stream: Stream) -> None:
        self.heard.append(decode((await stream.receive_some())[4:]))


async def test_a_grant_is_shown_to_nobody_but_members(
    autojump_clock: MockClock, home: Home
) -> None:
    """Whatever a hostile bootstrap lists, with grants of others, of itself, of another root."""
    network, root = home.network, home.closed.namespace.key
    honest = home.member("honest")
    other = MadeUpNamespace("home", root="another-root")
    theirs = other.machine("trap", by=other.admin("their-desk")).encoded
    process_of = home.closed.machine("somebody", by=home.desk).encoded
    trap, lying = Trap(network.node("trap")), Lying(network.node("lying"))
    where = trap.node.addresses
    lying.present = (
        signed("trap", where, namespace="home"),
        signed("trap", where, namespace="home", minor=2, root=root),
        signed("trap", where, namespace="home", minor=2, root=root, grant=honest.chain()),
        signed("trap", where, namespace="home", minor=2, root=root, grant=process_of),
        signed("trap", where, namespace="home", minor=2, root=root, grant=theirs),
        signed("trap", where, namespace="home", minor=2, root=b"another-root", grant=theirs),
        signed("trap", where, namespace="home", minor=2, root=root, grant=b"\x81garbage"),
    )
    async with home.router("asker", bootstrap=lying.node.addresses[0]) as router:
        await trio.sleep(30)
        members = dict(router._dispatch.membership.members)
    assert (trap.heard, members) == ([], {})


async def test_what_was_signed_for_an_open_namespace_is_not_shown_in_a_closed_one(
    autojump_clock: MockClock, home: Home
) -> None:
    """A member's own registration, with its own grant put beside it; nor the other way round."""
    network, root = home.network, home.closed.namespace.key
    member = home.member("both")
    trap, lying = Trap(network.node("both")), Lying(network.node("lying"))
    opened = signed("both", trap.node.addresses, namespace="home", minor=2)
    lying.present = (attrs.evolve(opened, grant=member.chain(), root=root),)
    async with home.router("asker", bootstrap=lying.node.addresses[0]) as router:
        await trio.sleep(30)
        assert dict(router._dispatch.membership.members) == {}
    closed = signed(
        "both", trap.node.addresses, namespace="home", minor=2, root=root, grant=member.chain()
    )
    lying.present = (attrs.evolve(closed, root=None, grant=None),)
    async with home.open_router("guest", bootstrap=lying.node.addresses[0]) as router:
        await trio.sleep(30)
        assert dict(router._dispatch.membership.members) == {}
    assert trap.heard == []


@pytest.mark.parametrize("minor", [0, 1])
async def test_no_closed_namespace_stays_at_a_bootstrap_that_knows_none(
    autojump_clock: MockClock, home: Home, minor: int
) -> None:
    """It is told so, and goes on with what else there is."""
    lying = Lying(home.network.node("lying"), minor=minor)
    async with home.router("asker", bootstrap=lying.node.addresses[0]) as router:
        await trio.sleep(5)
        assert f"minor {minor}" in str(router.trouble)


async def test_a_removed_member_is_not_served_by_a_machine_that_was_off(
    autojump_clock: MockClock, home: Home
) -> None:
    """It hears of the removal with its first roster, before it serves anybody."""
    home.network.delay = 0.05
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(home.listener("a"))
        out = home.member("out", knows=("a",))
        removal = home.closed.remove(home.members["out"], by=home.desk)
        home.memberships["a"].add_revocations([removal])
        answers: list[object] = []
        node = home.network.node("out")

        async def knock() -> None:
            hello = attrs.evolve(
                greeting(namespace="home", incarnation=1, version="1"), grant=out.chain()
            )
            while True:
                late = home.network._nodes.get(PeerId("late"))
                if late is not None and SESSION in late.handlers:
                    stream = await node.open_stream(late.peer_id, late.addresses, SESSION)
                    await stream.send_all(encode(hello))
                    answers.append(decode((await stream.receive_some())[4:]))
                await trio.sleep(0.01)

        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(knock)
        await trio.sleep(1)
        await stack.enter_async_context(home.listener("late", knows=("a",)))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert len(answers) > 20
    assert not any(isinstance(answer, Hello) for answer in answers)
    assert all("removed" in answer.message for answer in answers if isinstance(answer, Goodbye))


async def test_a_flood_of_greetings_keeps_no_removed_member_in(
    autojump_clock: MockClock, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine greets as more processes than are remembered; its session ends all the same."""
    monkeypatch.setattr("punch.session._door.MAX_KNOWN", 8)
    async with home.listener("a") as listener:
        home.member("out")
        out = home.members["out"]

        async def greet(peer_id: str, grant: bytes) -> Stream:
            stream = await home.network.node(peer_id).open_stream(
                listener.peer_id, listener.addresses, SESSION
            )
            said = greeting(namespace="home", incarnation=1, version="1")
            await stream.send_all(encode(attrs.evolve(said, grant=grant)))
            buffer = FrameBuffer(1 << 16)
            while (body := buffer.next_body()) is None:
                buffer.feed(await stream.receive_some())
            assert isinstance(decode(body), Hello)
            return stream

        stays = await greet("out", out.encoded)
        for number in range(20):
            process = home.closed.process(f"p{number}", on=out, ends=int(time.time()) + 3600)
            await (await greet(f"p{number}", process.encoded)).aclose()
        began = trio.current_time()
        home.memberships["a"].add_revocations([home.closed.remove(out, by=home.desk)])
        heard = b""
        with trio.move_on_after(2):
            while data := await stays.receive_some():
                heard += data
        print(f"the removed one heard {heard[-200:]!r} within {trio.current_time() - began:.2f} s")
        assert b"was removed from the namespace" in heard
        assert trio.current_time() - began < 2


async def test_who_does_not_renew_is_told_no_more_of_who_is_there(
    autojump_clock: MockClock, home: Home
) -> None:
    """A member that answers pings for ever, and is removed once its registration is forgotten."""
    root = home.closed.namespace.key
    async with home.listener("a") as listener:
        out, node = home.member("out"), home.network.node("out")
        stream = await node.open_stream(listener.peer_id, listener.addresses, MEET)
        frames = FramedStream(stream)
        join = signed(
            "out", (), namespace="home", minor=2, root=root, grant=out.chain(), roles={"dialer"}
        )
        await frames.send(join)
        heard: list[object] = []

        async def pings() -> None:
            for nonce in range(40):
                try:
                    await frames.send(Ping(nonce=nonce))
                except PeerUnreachable:
                    return
                await trio.sleep(5)

        async def hears() -> None:
            while (message := await frames.receive()) is not None:
                heard.append(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pings)
            nursery.start_soon(hears)
            await trio.sleep(45)
            home.memberships["a"].add_revocations(
                [home.closed.remove(home.members["out"], by=home.desk)]
            )
            await trio.sleep(1)
            heard.clear()
            async with home.listener("b", knows=("a",)):
                await trio.sleep(60)
            nursery.cancel_scope.cancel()
    print(f"who was removed heard {[type(each).__name__ for each in heard]}")
    assert heard == []


async def test_old_removals_and_old_registrations_bring_nobody_back(
    autojump_clock: MockClock, home: Home
) -> None:
    """A bootstrap that hides the removal and lists what it had changes nothing at who knows."""
    root = home.closed.namespace.key
    out = home.member("out")
    trap, lying = Trap(home.network.node("out")), Lying(home.network.node("lying"))
    lying.present = (
        signed("out", trap.node.addresses, namespace="home", minor=2, root=root, grant=out.chain()),
    )
    lying.revocations = (b"garbage", home.closed.remove(PeerId("nobody"), by=home.desk))
    asker = home.member("asker")
    asker.add_revocations([home.closed.remove(home.members["out"], by=home.desk)])
    async with home.router("asker", bootstrap=lying.node.addresses[0], membership=asker) as router:
        await trio.sleep(30)
        assert dict(router._dispatch.membership.members) == {}
    assert trap.heard == []


async def test_a_strangers_bootstrap_judges_by_the_root(
    autojump_clock: MockClock, home: Home
) -> None:
    """With no secret: members meet there, strangers of any kind do not, and a removal counts."""
    bootstrap = home.network.node("bootstrap")
    where = bootstrap.addresses[0]
    root = home.closed.namespace.key
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_bootstrap(bootstrap))
        await stack.enter_async_context(home.listener("a", bootstrap=where))
        await stack.enter_async_context(home.listener("b", bootstrap=where))
        router = await stack.enter_async_context(home.router("c", bootstrap=where))
        await router.wait_for_peers(lambda found: len(found) == 2)
        stranger = home.network.node("stranger")
        for join, told in (
            (signed("stranger", (), namespace="home", minor=2, root=root), STRANGER.reason),
            (signed("stranger", (), namespace="home", minor=2, root=b"own-root"), STRANGER.reason),
            (
                signed(
                    "stranger",
                    (),
                    namespace="home",
                    minor=2,
                    root=root,
                    grant=home.memberships["a"].chain(),
                ),
                "a grant serves no other key",
            ),
            (signed("a", (), namespace="home", minor=2, root=root), "may not register"),
        ):
            stream = await stranger.open_stream(bootstrap.peer_id, bootstrap.addresses, MEET)
            await stream.send_all(encode(join))
            answer = decode((await stream.receive_some())[4:])
            assert isinstance(answer, Goodbye)
            assert told in answer.message
        assert server.statistics().registrations == 3
        removal = home.closed.remove(home.members["b"], by=home.desk)
        home.memberships["c"].add_revocations([removal])
        await trio.sleep(1)
        assert server.statistics().registrations == 2
        assert [peer.peer_id for peer in router.peers] == ["a"]


async def test_an_open_and_a_closed_namespace_of_one_name_do_not_meet(
    autojump_clock: MockClock, home: Home
) -> None:
    """At one bootstrap, neither is told of the other."""
    bootstrap = home.network.node("bootstrap")
    where = bootstrap.addresses[0]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_bootstrap(bootstrap))
        await stack.enter_async_context(home.listener("closed", bootstrap=where))
        await stack.enter_async_context(home.open_listener("open", bootstrap=where))
        member = await stack.enter_async_context(home.router("member", bootstrap=where))
        guest = await stack.enter_async_context(home.open_router("guest", bootstrap=where))
        await trio.sleep(10)
        assert [peer.peer_id for peer in member.peers] == ["closed"]
        assert [peer.peer_id for peer in guest.peers] == ["open"]


async def test_a_flood_of_garbage_costs_a_bounded_number_of_signatures(
    autojump_clock: MockClock, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By host and second; and a member of another host gets in meanwhile."""
    bootstrap = home.network.node("bootstrap")
    checked = 0
    verify = bootstrap.verify

    def counting(peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        nonlocal checked
        checked += 1
        return verify(peer_id, data, signature)

    monkeypatch.setattr(bootstrap, "verify", counting)
    root = home.closed.namespace.key
    real = home.closed.machine("flood-0", by=home.desk)
    forged = attrs.evolve(real.chain[-1], signature=bytes(32))
    from punch.access import encode_chain

    grant = encode_chain((*real.chain[:-1], forged))

    async def flood(number: int) -> None:
        node = home.network.node(f"flood-{number}")
        node.ip = "192.0.2.66"
        join = signed(f"flood-{number}", (), namespace="home", minor=2, root=root, grant=grant)
        while True:
            stream = await node.open_stream(bootstrap.peer_id, bootstrap.addresses, MEET)
            await stream.send_all(encode(join))
            await stream.receive_some()
            await stream.aclose()

    async with open_bootstrap(bootstrap), trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(flood, number)
        await trio.sleep(1)
        before, began = checked, trio.current_time()
        async with home.listener("a", bootstrap=bootstrap.addresses[0]):
            async with home.router("c", bootstrap=bootstrap.addresses[0]) as router:
                with trio.fail_after(3):
                    await router.wait_for_peers(lambda found: len(found) == 1)
            await trio.sleep(9)
        rate = (checked - before) / (trio.current_time() - began)
        nursery.cancel_scope.cancel()
    print(f"{before} at once, then {rate:.0f} a second")
    assert before <= 4 * locks.HOST_BURST + 200
    assert rate <= 6 * locks.HOST_RATE
