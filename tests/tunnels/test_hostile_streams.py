"""Streams of tunnels whose other end is let in and does what no end of ours does."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from punch.exceptions import NetworkError
from punch.network import Stream
from punch.testing import MemoryNetwork
from punch.tunnels import TunnelOpening, TunnelOutcome, open_near_stream
from punch.tunnels._framing import DATA, FILL, PING, PONG, TAKEN
from punch.tunnels.streams._messages import PROTOCOL, hear, say
from punch.tunnels.streams._relay import FramedStream, Relay


@pytest.mark.parametrize(
    "counts",
    [(1 << 63,), (1, 0), (0,)],
    ids=["more than was sent", "less than before", "nothing"],
)
async def test_what_was_not_sent_is_not_measured(
    nursery: trio.Nursery, autojump_clock: MockClock, counts: Sequence[int]
) -> None:
    """A worker that claims it would have layers which are better elsewhere."""
    network = MemoryNetwork(nursery)
    here, there = network.node("near"), network.node("far")

    async def lie(stream: Stream) -> None:
        await hear(stream, TunnelOpening, seconds=3)
        await say(stream, TunnelOutcome())
        framed, rest = FramedStream(stream), list(counts)
        while found := await framed.receive():
            for kind, payload in found:
                if kind == PING:
                    await framed.send(PONG, payload)
                elif kind == FILL and rest:
                    await framed.send(TAKEN, rest.pop(0).to_bytes(8, "big"))

    there.handle(PROTOCOL, lie)
    opening = TunnelOpening(lease="one")
    async with open_near_stream(here, there.peer_id, there.addresses, opening) as near:
        with pytest.raises(NetworkError):
            await near.measure()


async def test_small_pieces_for_a_program_that_stalls_take_no_more_than_their_bytes() -> None:
    """What waits is bounded by bytes; pieces of one byte each would take two hundred times that."""
    relay = Relay(None, None)  # type: ignore[arg-type] # It is only given frames.
    tracemalloc.start()
    try:
        for _ in range(100_000):
            await relay._take(DATA, memoryview(b"x"))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1 << 20
