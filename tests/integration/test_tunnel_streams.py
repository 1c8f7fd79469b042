"""Tunnels over streams of a node: in memory and over libp2p, the same interface as over TLS."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs
import pytest
import trio
from integration.programs import limit
from integration.tunnel_targets import HERE, Serve, echo, open_target, read_all, show

from punch.exceptions import NotPermitted, PeerUnreachable
from punch.libp2p import open_node
from punch.network import Node
from punch.testing import MemoryNetwork
from punch.tunnels import NearStreams, TunnelOpening, door_of, open_near_stream
from punch.tunnels.streams._relay import WINDOW_BYTES

LEASE = TunnelOpening(lease="one")

Nodes = Callable[[AsyncExitStack], object]


@attrs.frozen(kw_only=True)
class Opened:
    """A tunnel, and what it was made of."""

    near: NearStreams
    here: Node
    there: Node
    target: int

    async def connect(self) -> trio.SocketStream:
        """As a program of this machine."""
        return await trio.open_tcp_stream(HERE, self.near.port)


@asynccontextmanager
async def open_nodes(kind: str) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes that reach each other."""
    if kind == "memory":
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery)
            yield network.node("near"), network.node("far")
            nursery.cancel_scope.cancel()
        return
    async with open_node(listen=["/ip4/127.0.0.1/tcp/0"]) as far, open_node() as near:
        yield near, far


@asynccontextmanager
async def open_tunnel(kind: str, serve: Serve = echo) -> AsyncIterator[Opened]:
    """A tunnel of a lease to *serve*."""
    async with open_target(serve) as target, open_nodes(kind) as (here, there):
        async with (
            door_of(there).lend("one", borrower=here.peer_id, port=target),
            open_near_stream(here, there.peer_id, there.addresses, LEASE) as near,
        ):
            yield Opened(near=near, here=here, there=there, target=target)


both = pytest.mark.parametrize("kind", ["memory", "libp2p"])


@both
@limit(60)
async def test_what_is_sent_arrives_whole_both_ways_and_so_does_each_end(kind: str) -> None:
    """Five megabytes at once in both directions, and small ones to and fro."""
    sent = os.urandom(5_000_000)
    async with open_tunnel(kind) as tunnel:
        async with await tunnel.connect() as stream:
            got = b""

            async def receive() -> None:
                nonlocal got
                got = await read_all(stream)

            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await stream.send_all(sent)
                await stream.send_eof()
            show(f"5 MB there and back, {kind}", f"{trio.current_time() - began:.2f} s")
        assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
        async with await tunnel.connect() as stream:
            for number in range(50):
                await stream.send_all(b"%8d" % number)
                assert await stream.receive_some() == b"%8d" % number
        await trio.sleep(0.1)
        counted = tunnel.near.statistics()
        assert (counted.bytes_up, counted.bytes_down) == (len(sent) + 400, len(sent) + 400)
        assert (counted.connections, counted.connections_total) == (0, 2)
        measured = await tunnel.near.measure()
        show("measured", measured)
        assert measured.carrier == "stream"
        assert 0 < measured.rtt < 1
        assert measured.rate > 1e5


@both
@limit(60)
async def test_the_end_of_one_direction_leaves_the_other_as_it_is(kind: str) -> None:
    """Which a stream of the node cannot say, and a frame does."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"%d" % len(await read_all(stream)))
        await stream.send_eof()

    async with open_tunnel(kind, serve) as tunnel, await tunnel.connect() as stream:
        await stream.send_all(b"x" * 300_000)
        await stream.send_eof()
        assert await read_all(stream) == b"300000"


@limit(60)
async def test_a_reader_that_stalls_for_longer_than_a_stream_may_loses_nothing() -> None:
    """A stream that is not read for ten seconds is ended; a tunnel's is read, and holds 1 MB."""
    may_read = trio.Event()
    got = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal got
        await may_read.wait()
        got = len(await read_all(stream))
        await stream.send_eof()

    async with open_tunnel("memory", serve) as tunnel, await tunnel.connect() as stream:

        async def send() -> None:
            for _ in range(300):
                await stream.send_all(bytes(100_000))
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            stalled_at = -1
            while stalled_at != tunnel.near.statistics().bytes_up or not stalled_at:
                stalled_at = tunnel.near.statistics().bytes_up
                await trio.sleep(0.4)
            assert tunnel.near.statistics().bytes_up == stalled_at
            # Its kernel took some too.
            show("a stalled reader", f"{stalled_at} bytes taken")
            assert stalled_at < 12 * WINDOW_BYTES
            may_read.set()
            assert await read_all(stream) == b""
        assert got == 30_000_000


@both
@limit(60)
async def test_a_lease_is_for_its_borrower_and_ends_at_once(kind: str) -> None:
    """Another peer is refused, in the words for a lease that is not there; an end is felt."""
    async with open_target(echo) as target, open_nodes(kind) as (here, there):
        door = door_of(there)
        assert door_of(there) is door
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(door.lend("one", borrower=here.peer_id, port=target))
            await stack.enter_async_context(door.lend("other", borrower=there.peer_id, port=target))
            said = []
            for lease in ("other", "none"):
                with pytest.raises(NotPermitted) as refused:
                    async with open_near_stream(
                        here, there.peer_id, there.addresses, TunnelOpening(lease=lease)
                    ):
                        pass
                said.append((refused.value.rule, str(refused.value)))
            assert said == [("unknown", "no such lease")] * 2
            async with open_near_stream(here, there.peer_id, there.addresses, LEASE) as near:
                async with await trio.open_tcp_stream(HERE, near.port) as stream:
                    await stream.send_all(b"x")
                    assert await stream.receive_some() == b"x"
                    await stack.aclose()
                    with trio.fail_after(1):
                        with suppress(trio.BrokenResourceError):
                            assert await stream.receive_some() == b""
                        await near.lost.wait()
                with pytest.raises(OSError, match="all attempts to connect"):
                    await trio.open_tcp_stream(HERE, near.port)


@limit(60)
async def test_a_peer_that_is_gone_is_lost_and_one_that_was_never_there_is_said(
    nursery: trio.Nursery,
) -> None:
    """The connection of the nodes is cut: pings are not answered."""
    network = MemoryNetwork(nursery)
    here, there = network.node("near"), network.node("far")
    with pytest.raises(PeerUnreachable):
        async with open_near_stream(here, there.peer_id, there.addresses, LEASE):
            pass
    async with (
        open_target(echo) as target,
        door_of(there).lend("one", borrower=here.peer_id, port=target),
        open_near_stream(here, there.peer_id, there.addresses, LEASE) as near,
    ):
        network.stall(there.peer_id)
        with trio.fail_after(4):
            await near.lost.wait()
        assert near.why == "the other side said nothing for 2.75 s"
