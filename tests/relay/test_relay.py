"""Whom a relay serves, what it carries, and where it ends."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock

from punch.exceptions import PeerUnreachable
from punch.network import Stream
from punch.relay import ACCEPT, CONNECT, OK, RESERVE, Relay, RelayLimits, read_line, say
from punch.relay._lines import MAX_LINE_BYTES
from punch.relay._relay import CHECK_SECONDS, IDLE_SECONDS, LINE_SECONDS, Permits
from punch.testing import MemoryNetwork, MemoryNode

LIMIT = 900


class Town:
    """A relay, and peers around it, none of which lets anybody in."""

    def __init__(self, nursery: trio.Nursery, permits: Permits, limits: RelayLimits) -> None:
        self.network = MemoryNetwork(nursery)
        self.hub = self.network.node("hub")
        self.relay = Relay(self.hub, permits=permits, limits=limits)

    def peer(self, name: str) -> MemoryNode:
        """A peer at home, which answers whom the relay leads there with the same bytes."""

        async def accept(stream: Stream) -> None:
            source, rest = await read_line(stream)
            await say(stream, OK)
            await stream.send_all(source.encode() + b":")
            while rest := rest or await stream.receive_some():
                await stream.send_all(rest)
                rest = b""

        node = self.network.node(name)
        self.network.firewalled.add(node.peer_id)
        node.handle(ACCEPT, accept)
        return node

    async def opened(self, node: MemoryNode, protocol: str) -> Stream:
        """A stream of *node* to the relay."""
        return await node.open_stream(self.hub.peer_id, self.hub.addresses, protocol)

    async def reserved(self, node: MemoryNode) -> tuple[Stream, str]:
        """What comes of asking for a reservation."""
        stream = await self.opened(node, RESERVE)
        return stream, (await read_line(stream))[0]

    async def connected(self, node: MemoryNode, target: MemoryNode) -> tuple[Stream, str]:
        """What comes of asking for a circuit."""
        stream = await self.opened(node, CONNECT)
        await say(stream, target.peer_id)
        return stream, (await read_line(stream))[0]


@asynccontextmanager
async def town(
    permits: Permits = lambda one, other: True, limits: RelayLimits | None = None
) -> AsyncIterator[Town]:
    """A town, which ends within the test's time."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            yield Town(nursery, permits, limits or RelayLimits())
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds."""
    while not condition():
        await trio.sleep(0.01)


async def test_bytes_go_both_ways_between_two_that_let_nobody_in(
    autojump_clock: MockClock,
) -> None:
    """The one that accepts is told who comes; both then speak with each other."""
    async with town() as home:
        asker, hidden = home.peer("asker"), home.peer("hidden")
        _, granted = await home.reserved(hidden)
        stream, answer = await home.connected(asker, hidden)
        assert (granted, answer) == (OK, OK)
        await stream.send_all(b"hello")
        heard = b""
        while len(heard) < len(b"asker:hello"):
            heard += await stream.receive_some()
        assert heard == b"asker:hello"
        await stream.aclose()
        await until(lambda: home.relay.statistics().circuits == 0)
        assert home.relay.statistics().carried == len(b"asker:hellohello")


async def test_nobody_is_led_to_a_peer_that_has_not_asked_for_it(
    autojump_clock: MockClock,
) -> None:
    """Nor after its reservation has ended, which it does with its stream."""
    async with town() as home:
        asker, hidden = home.peer("asker"), home.peer("hidden")
        assert (await home.connected(asker, hidden))[1] == "no_reservation"
        stream, _ = await home.reserved(hidden)
        await stream.aclose()
        await until(lambda: home.relay.statistics().reservations == 0)
        assert (await home.connected(asker, hidden))[1] == "no_reservation"


async def test_whom_the_owner_does_not_permit_gets_neither(autojump_clock: MockClock) -> None:
    """It is asked for each circuit anew: a member that was removed is led nowhere."""
    barred: set[str] = set()
    async with town(lambda one, other: not {one, other} & barred) as home:
        asker, hidden = home.peer("asker"), home.peer("hidden")
        barred.add("asker")
        # It does not learn either who has one.
        assert (await home.connected(asker, hidden))[1] == "not_permitted"
        await home.reserved(hidden)
        assert (await home.reserved(asker))[1] == "not_permitted"
        assert (await home.connected(asker, hidden))[1] == "not_permitted"
        barred.clear()
        assert (await home.connected(asker, hidden))[1] == OK


async def test_what_a_relay_gives_is_bounded_for_each_peer_and_in_all(
    autojump_clock: MockClock,
) -> None:
    """One too many is refused; a place that is given back can be had again."""
    limits = RelayLimits(reservations=1, circuits=3, peer_circuits=2)
    async with town(limits=limits) as home:
        asker, other, hidden = (home.peer(name) for name in ("asker", "other", "hidden"))
        await home.reserved(hidden)
        assert (await home.reserved(other))[1] == "full"
        # A peer that comes back has its own place still.
        assert (await home.reserved(hidden))[1] == OK
        first, _ = await home.connected(asker, hidden)
        assert (await home.connected(asker, hidden))[1] == OK
        assert (await home.connected(other, hidden))[1] == "full"
        await first.aclose()
        await until(lambda: home.relay.statistics().circuits == 1)
        assert (await home.connected(other, hidden))[1] == OK


async def test_a_peer_has_a_few_circuits_to_one_other_and_room_for_others(
    autojump_clock: MockClock,
) -> None:
    """A dialer with a fault takes none of what others have to the same peer."""
    async with town(limits=RelayLimits(pair_circuits=3)) as home:
        asker, other, hidden = (home.peer(name) for name in ("asker", "other", "hidden"))
        await home.reserved(hidden)
        streams = [await home.connected(asker, hidden) for _ in range(4)]
        assert [answer for _, answer in streams] == [OK, OK, OK, "full"]
        assert (await home.connected(other, hidden))[1] == OK
        await streams[0][0].aclose()
        await until(lambda: home.relay.statistics().circuits == 3)
        assert (await home.connected(asker, hidden))[1] == OK


async def test_a_circuit_that_carries_nothing_for_a_minute_ends(autojump_clock: MockClock) -> None:
    """One that carries a byte now and then, either way, goes on."""
    async with town() as home:
        asker, other, hidden = (home.peer(name) for name in ("asker", "other", "hidden"))
        await home.reserved(hidden)
        idle, _ = await home.connected(asker, hidden)
        alive, _ = await home.connected(other, hidden)
        for _ in range(4):
            await alive.send_all(b".")
            await trio.sleep(0.7 * IDLE_SECONDS)
        assert home.relay.statistics().circuits == 1
        while await idle.receive_some():
            pass
        await trio.sleep(IDLE_SECONDS)
        assert home.relay.statistics().circuits == 0
        assert home.relay.statistics().reservations == 1


async def test_who_is_permitted_no_longer_loses_what_it_has_within_seconds(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A member that was removed or has left; one that is away for a moment loses nothing."""
    caplog.set_level(logging.INFO)
    barred: set[str] = set()
    async with town(lambda one, other: not {one, other} & barred) as home:
        asker, other, hidden = (home.peer(name) for name in ("asker", "other", "hidden"))
        await home.reserved(hidden)
        await home.reserved(asker)
        streams = [(await home.connected(each, hidden))[0] for each in (asker, other)]

        async def talk(stream: Stream) -> None:
            with suppress(PeerUnreachable):
                while True:
                    await stream.send_all(b".")
                    await stream.receive_some()
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(talk, stream)
            barred.add("asker")
            await trio.sleep(CHECK_SECONDS + 1)
            barred.clear()
            await trio.sleep(10 * CHECK_SECONDS)
            given = home.relay.statistics()
            assert (given.reservations, given.circuits) == (2, 2)
            barred.add("asker")
            await trio.sleep(3 * CHECK_SECONDS)
            given = home.relay.statistics()
            assert (given.reservations, given.circuits) == (1, 1)
            nursery.cancel_scope.cancel()
    # A peer that asks again and again fills no log.
    assert not [each for each in caplog.records if each.name.startswith("punch.relay")]


async def test_a_circuit_goes_no_faster_than_its_share(autojump_clock: MockClock) -> None:
    """A relay at home keeps some of its line for itself; what goes there and back counts twice."""
    async with town(limits=RelayLimits(rate=1000.0)) as home:
        asker, hidden = home.peer("asker"), home.peer("hidden")
        await home.reserved(hidden)
        stream, _ = await home.connected(asker, hidden)
        began, heard = trio.current_time(), 0
        for _ in range(10):
            await stream.send_all(bytes(500))
        while heard < 5000 + len("asker:"):
            heard += len(await stream.receive_some())
        assert 9.0 <= trio.current_time() - began <= 11.0


async def test_a_peer_that_says_nothing_holds_no_place(autojump_clock: MockClock) -> None:
    """Its stream ends after a few seconds."""
    async with town() as home:
        stream = await home.opened(home.peer("asker"), CONNECT)
        began = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - began == pytest.approx(LINE_SECONDS, abs=0.1)


@pytest.mark.parametrize(
    "said", [b"x" * (MAX_LINE_BYTES + 1), b"\xff\n", b"a\x00b\n", b"never ends"]
)
async def test_what_is_no_line_ends_the_stream_and_nothing_else(
    said: bytes, autojump_clock: MockClock
) -> None:
    """Nothing of a peer is kept or answered."""
    async with town() as home:
        asker, hidden = home.peer("asker"), home.peer("hidden")
        await home.reserved(hidden)
        stream = await home.opened(asker, CONNECT)
        await stream.send_all(said)
        assert await stream.receive_some() == b""
        assert (await home.connected(asker, hidden))[1] == OK


async def test_a_target_that_is_gone_is_said_to_be(autojump_clock: MockClock) -> None:
    """One that does not accept, or has no connection any more."""
    async with town() as home:
        asker, hidden = home.peer("asker"), home.peer("hidden")

        async def refuses(stream: Stream) -> None:
            await read_line(stream)
            await say(stream, "not_asked")

        hidden.handle(ACCEPT, refuses)
        await home.reserved(hidden)
        assert (await home.connected(asker, hidden))[1] == "gone"


async def test_a_line_may_come_in_pieces_and_with_what_follows_it() -> None:
    """The bytes after it are the circuit's."""

    class Pieces:
        peer_id = "p"

        def __init__(self, *pieces: bytes) -> None:
            self.pieces = list(pieces)

        async def receive_some(self) -> bytes:
            return self.pieces.pop(0) if self.pieces else b""

    stream = Pieces(b"o", b"k\nrest")
    assert await read_line(stream) == (OK, b"rest")  # type: ignore[arg-type]  # reads only
    with pytest.raises(PeerUnreachable):
        await read_line(stream)  # type: ignore[arg-type]  # reads only
