"""Meeting at a bootstrap, over a network in memory and in virtual time."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.bootstrap import open_bootstrap
from punch.capability import PeerId
from punch.discovery import Directory, KnownPeers, join_namespace, who_is_at
from punch.discovery._announcement import Announcement
from punch.exceptions import IdentityChanged, NoPeerAvailable
from punch.network import Address, Node, Stream, parse_address
from punch.testing import MemoryNetwork, Swarm
from punch.wire import (
    SIGNING_CONTEXT,
    FrameBuffer,
    Join,
    Ping,
    Pong,
    Registration,
    Roster,
    decode,
    decode_registration,
    encode,
    encode_registration,
)

LIMIT = 3600
MEET = "/punch/meet/1"


def mock() -> MockBackend:
    return MockBackend(MockScript())


def join(node: Node, address: Address, *roles: str) -> AbstractAsyncContextManager[Directory]:
    """Membership of the namespace ``n``."""
    return join_namespace(
        node, address, known=KnownPeers(None), namespace="n", roles=set(roles), incarnation=1
    )


async def test_a_listener_with_many_addresses_announces_where_a_relay_leads_to_it(
    swarm: Swarm,
) -> None:
    """It is one of eight, however many networks its machine is in."""
    node = swarm.network.node("hidden")
    relay = f"/p2p/12D3KooW{'x' * 44}/p2p-circuit/p2p/{node.peer_id}"
    circuit = f"/ip4/203.0.113.3/tcp/51820{relay}"
    homes = tuple(f"/ip4/10.0.{number}.7/tcp/51820" for number in range(9))
    node.addresses = (*homes, circuit)
    announce = Announcement(node, namespace="n", roles={"listener"}, incarnation=1)
    told = decode_registration(announce().registration)
    assert told.addresses == (*homes[:7], circuit)


async def test_two_namespaces_at_one_bootstrap_never_see_each_other(
    autojump_clock: MockClock,
) -> None:
    """Everybody is told of the listeners of their own namespace only."""
    seen: dict[str, set[PeerId]] = {}
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node = network.node("bootstrap")
            address = parse_address(node.addresses[0])
            async with open_bootstrap(node):

                async def member(name: str, namespace: str, role: str) -> None:
                    async with join_namespace(
                        network.node(name),
                        address,
                        known=KnownPeers(None),
                        namespace=namespace,
                        roles={role},
                        incarnation=1,
                    ) as membership:
                        await membership.joined.wait()
                        await trio.sleep(5)
                        seen[name] = set(membership.listeners)

                for namespace in ("red", "blue"):
                    for name, role in (("l1", "listener"), ("l2", "listener"), ("d", "dialer")):
                        nursery.start_soon(member, f"{namespace}-{name}", namespace, role)
                await trio.sleep(6)
            nursery.cancel_scope.cancel()

    assert seen["red-d"] == {"red-l1", "red-l2"}
    assert seen["blue-d"] == {"blue-l1", "blue-l2"}
    assert seen["red-l1"] == set(), "a listener dials nobody"


async def test_losing_the_bootstrap_disturbs_no_session_and_its_return_reunites(
    autojump_clock: MockClock,
    swarm: Swarm,
) -> None:
    """Answers go on without it; a listener that starts after its return is found."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        swarm.network.take_down(PeerId("bootstrap"))
        await trio.sleep(100)
        without = await router.ask("still there?")
        node = swarm.network.node("bootstrap")
        async with open_bootstrap(node) as server:
            await trio.sleep(10)
            registered = server.statistics().registrations
            await swarm.listener("b", mock())
            peers = await router.wait_for_peers(lambda found: len(found) == 2)

    assert without.executor == "a"
    assert registered == 2
    assert {peer.peer_id for peer in peers} == {"a", "b"}


async def test_a_listener_that_vanished_is_forgotten_when_its_registration_expires(
    autojump_clock: MockClock,
    swarm: Swarm,
) -> None:
    """A newcomer is not sent to a peer that has been gone for longer than its lifetime."""
    await swarm.listener("a", mock())
    swarm.kill("a")
    await trio.sleep(32)
    async with swarm.router(peers=0) as router:
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask("anybody?")

    assert caught.value.reasons == {}


async def test_a_listener_that_leaves_is_gone_at_once(autojump_clock: MockClock) -> None:
    """A farewell does not wait for the expiry."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node = network.node("bootstrap")
            address = parse_address(node.addresses[0])
            async with (
                open_bootstrap(node) as server,
                join(network.node("d"), address, "dialer") as dialer,
            ):
                async with join(network.node("l"), address, "listener") as listener:
                    await listener.joined.wait()
                    await trio.sleep(1)
                    before = set(dialer.listeners)
                await trio.sleep(1)
                after = set(dialer.listeners)
                left = server.statistics().registrations
            nursery.cancel_scope.cancel()

    assert (before, after, left) == ({"l"}, set(), 1)


async def test_nobody_can_register_somebody_else(autojump_clock: MockClock) -> None:
    """A registration must be signed by whom it names, and sent by them."""
    registration = Registration(
        peer_id=PeerId("victim"),
        namespace="n",
        roles=frozenset({"listener"}),
        incarnation=1,
        sequence=0,
        lifetime=30,
    )
    encoded = encode_registration(registration)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node, thief, victim = map(network.node, ("bootstrap", "thief", "victim"))
            async with open_bootstrap(node) as server:
                replies = []
                for signer in (thief, victim):
                    stream = await thief.open_stream(node.peer_id, node.addresses, MEET)
                    signature = signer.sign(SIGNING_CONTEXT + encoded)
                    await stream.send_all(encode(Join(registration=encoded, signature=signature)))
                    replies.append(await stream.receive_some())
                    await stream.aclose()
                registered = server.statistics().registrations
            nursery.cancel_scope.cancel()

    assert b"is not its own" in replies[0]
    assert b"may not register victim" in replies[1]
    assert registered == 0


async def test_garbage_ends_only_the_stream_it_came_on(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whoever sends nonsense is turned away; the others stay members."""
    await swarm.listener("a", mock())
    rude = swarm.network.node("rude")
    for garbage in (b"\xff" * 100, b"\0\0\0\1\xc0", bytes(10_000)):
        stream = await rude.open_stream(PeerId("bootstrap"), (str(swarm.bootstrap),), MEET)
        await stream.send_all(garbage)
        assert b"goodbye" in await stream.receive_some()
    async with swarm.router() as router:
        response = await router.ask("hello")

    assert response.executor == "a"


async def test_trust_on_first_use_and_a_changed_identity(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The first answer is remembered in a file; another one later is refused, with the remedy."""
    path = tmp_path / "known_peers"
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        ours, theirs = network.node("ours"), network.node("bootstrap")
        address = parse_address(theirs.addresses[0])
        first = await who_is_at(ours, address, KnownPeers(path))
        again = await who_is_at(ours, address, KnownPeers(path))
        path.write_text(f"{address.place} somebody-else\n")
        with pytest.raises(IdentityChanged) as caught:
            await who_is_at(ours, address, KnownPeers(path))

    assert (first, again) == ("bootstrap", "bootstrap")
    assert "answers as bootstrap, and was somebody-else before" in str(caught.value)
    assert f"remove the line of {address.place} from {path}" in str(caught.value)


async def test_a_changed_identity_keeps_a_router_out(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The router says why instead of talking to whoever is there now."""
    await swarm.listener("a", mock())
    known = KnownPeers(None)
    known.remember(swarm.bootstrap.place, PeerId("somebody-else"))
    from punch.dialer import open_router

    async with open_router(
        node=swarm.network.node("d"),
        bootstrap=swarm.bootstrap,
        namespace="testing",
        known=known,
    ) as router:
        with pytest.raises(IdentityChanged):
            await router.ask("hello")


async def test_a_namespace_with_hundreds_of_listeners_can_be_joined(
    autojump_clock: MockClock,
) -> None:
    """The roster comes in pages, and heartbeats do not get between them."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node = network.node("bootstrap")
            address = parse_address(node.addresses[0])

            async def listener(name: str) -> None:
                async with join(network.node(name), address, "listener"):
                    await trio.sleep_forever()

            async with open_bootstrap(node):
                for index in range(250):
                    nursery.start_soon(listener, f"l{index}")
                await trio.sleep(1)
                async with join(network.node("d"), address, "dialer") as dialer:
                    await trio.sleep(30)
                    seen = len(dialer.listeners)
                    trouble = dialer.trouble
            nursery.cancel_scope.cancel()

    assert (seen, trouble) == (250, None)


async def test_a_peer_that_only_opens_streams_takes_one_place_and_not_for_long(
    autojump_clock: MockClock,
) -> None:
    """A new stream of a peer ends its old one; one that does not join is given up."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node, rude = network.node("bootstrap"), network.node("rude")
            async with open_bootstrap(node) as server:
                for _ in range(20):
                    await rude.open_stream(node.peer_id, node.addresses, MEET)
                await trio.sleep(1)
                crowd = server.statistics().members
                await trio.sleep(11)
                later = server.statistics().members
            nursery.cancel_scope.cancel()

    assert (crowd, later) == (1, 0)


async def test_a_peer_of_both_roles_needs_one_identity_and_one_stream(
    autojump_clock: MockClock,
) -> None:
    """It is found by others, and finds them; itself it leaves out."""
    seen: dict[str, set[PeerId]] = {}
    everybody: dict[str, set[PeerId]] = {}
    workers: dict[str, dict[str, tuple[str, ...]]] = {}
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node = network.node("bootstrap")
            address = parse_address(node.addresses[0])

            async def member(name: str, roles: set[str]) -> None:
                async with join(network.node(name), address, *roles) as membership:
                    await trio.sleep(50)
                    seen[name] = set(membership.listeners)
                    everybody[name] = set(membership.members)
                    workers[name] = {
                        peer: member.addresses for peer, member in membership.workers.items()
                    }

            async with open_bootstrap(node) as server:
                for name in ("both", "twin"):
                    nursery.start_soon(member, name, {"listener", "dialer", "unheard of"})
                nursery.start_soon(member, "l", {"listener"})
                nursery.start_soon(member, "w", {"worker"})
                nursery.start_soon(member, "d", {"dialer"})
                await trio.sleep(40)
                registered = server.statistics().registrations
                await trio.sleep(20)
            nursery.cancel_scope.cancel()

    assert registered == 5
    assert seen["d"] == {"both", "twin", "l"}
    assert seen["both"] == {"twin", "l"}
    assert seen["twin"] == {"both", "l"}
    assert seen["l"] == seen["w"] == set(), "they dial nobody"
    assert everybody["d"] == {"both", "twin", "l", "w"}
    assert workers["d"] == {"w": network.node("w").addresses}
    assert workers["l"] == {}


class Old:
    """A bootstrap of minor 0, by hand: notes what it hears and sends what it is told to."""

    stream: Stream

    def __init__(self, node: Node) -> None:
        self.joins: list[Registration] = []
        self.streams = 0
        node.handle(MEET, self.serve)

    async def serve(self, stream: Stream) -> None:
        self.streams += 1
        self.stream = stream
        buffer = FrameBuffer(4096)
        while data := await stream.receive_some():
            buffer.feed(data)
            while (body := buffer.next_body()) is not None:
                message = decode(body)
                if isinstance(message, Join):
                    assert len(message.registration) <= 2048
                    self.joins.append(decode_registration(message.registration))
                    if len(self.joins) == 1:
                        await self.send(Roster(namespace="n", whole=True))
                elif isinstance(message, Ping):
                    await self.send(Pong(nonce=message.nonce))

    async def send(self, message: Pong | Roster) -> None:
        await self.stream.send_all(encode(message, minor=0))


def signed_by(node: Node, role: str = "listener") -> Join:
    """A registration of a node, signed."""
    registration = Registration(
        peer_id=node.peer_id,
        namespace="n",
        roles=frozenset({role}),
        incarnation=1,
        sequence=0,
        lifetime=30.0,
    )
    encoded = encode_registration(registration)
    return Join(registration=encoded, signature=node.sign(SIGNING_CONTEXT + encoded))


async def test_a_peer_of_both_roles_makes_an_old_bootstrap_tell_and_list_it(
    autojump_clock: MockClock,
) -> None:
    """It tells those whose first word was that they dial, and lists peers by their latest word."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node, other = network.node("bootstrap"), network.node("other")
            old = Old(node)
            async with join(
                network.node("both"), parse_address(node.addresses[0]), "listener", "dialer"
            ) as membership:
                await membership.joined.wait()
                await old.send(Roster(namespace="n", present=(signed_by(other),)))
                await trio.sleep(25)
                found = set(membership.listeners)
            nursery.cancel_scope.cancel()

    assert old.streams == 1
    assert [join.role for join in old.joins] == ["dialer", "listener", "listener", "listener"]
    assert [bool(join.addresses) for join in old.joins] == [False, True, True, True]
    assert [join.sequence for join in old.joins] == sorted({join.sequence for join in old.joins})
    assert found == {"other"}


async def test_a_role_that_a_member_does_not_know_ends_no_meeting(
    autojump_clock: MockClock,
) -> None:
    """A peer that only lends memory is listed and not dialled."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            node, worker, other = map(network.node, ("bootstrap", "worker", "other"))
            old = Old(node)
            async with join(
                network.node("d"), parse_address(node.addresses[0]), "dialer"
            ) as membership:
                await membership.joined.wait()
                one = signed_by(worker, "worker")
                await old.send(Roster(namespace="n", present=(one, signed_by(other))))
                await trio.sleep(1)
                found, everybody = set(membership.listeners), set(membership.members)
                trouble = membership.trouble
            nursery.cancel_scope.cancel()

    assert (found, everybody, trouble) == ({"other"}, {"other", "worker"}, None)
    assert old.streams == 1


def test_known_peers_that_cannot_be_written_are_remembered_all_the_same(tmp_path: Path) -> None:
    """And written with the next one, once there is room; nothing half done is left."""
    path = tmp_path / "folder" / "known_peers"
    path.parent.write_text("no folder")
    known = KnownPeers(path)
    known._in_file = dict  # type: ignore[method-assign]  # Of a folder that is none, not readable.
    known.remember("a:1", PeerId("one"))
    assert known.get("a:1") == "one"
    path.parent.unlink()
    known.remember("b:1", PeerId("two"))
    assert path.read_text() == "a:1 one\nb:1 two\n"
    assert [each.name for each in path.parent.iterdir()] == ["known_peers"]
