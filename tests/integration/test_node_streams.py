"""Bytes between two nodes: order, loss, cancelling, closing."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
from typing import Any

import pytest
import trio
from integration.libp2p_peer import (
    ECHO,
    SILENT,
    SINK,
    SOURCE,
    ask_state,
    peer,
    read_all,
    read_exactly,
    serve_everything,
)
from integration.nodes import LISTEN, QUIC, TCP, both_transports, echoes, stranger, until

from punch.exceptions import PeerUnreachable
from punch.libp2p._node import open_node

# Talking.


@both_transports
async def test_a_peer_in_another_process_answers(transport: Any) -> None:
    """Listen, dial, identify, echo, and an orderly end, on both transports."""
    with trio.fail_after(15):
        async with (
            peer(LISTEN[transport], transport=transport) as other,
            open_node(transport=transport) as node,
        ):
            assert await node.identify(other.addresses[0]) == other.peer_id
            stream = await node.open_stream(other.peer_id, other.addresses, ECHO)
            assert stream.peer_id == other.peer_id
            for size in (1, 100, 70_000):
                data = os.urandom(size)
                await stream.send_all(data)
                assert await read_exactly(stream, size) == data
            await stream.aclose()
            assert await stream.receive_some() == b""


@both_transports
async def test_a_slow_reader_gets_every_byte(transport: Any) -> None:
    """10 MB to a reader that pauses first: the hash is the same."""
    with trio.fail_after(40):
        async with (
            peer(LISTEN[transport], transport=transport) as other,
            open_node(transport=transport) as node,
        ):
            data = random.Random(7).randbytes(10_000_000)
            stream = await node.open_stream(other.peer_id, other.addresses, SINK)
            await stream.send_all(struct.pack(">QI", len(data), 1500) + data)
            assert await read_exactly(stream, 32) == hashlib.sha256(data).digest()


@both_transports
async def test_what_was_sent_before_the_end_arrives(transport: Any) -> None:
    """A handler may send and return: the reader gets all of it, and then the end."""
    with trio.fail_after(20):
        async with (
            peer(LISTEN[transport], transport=transport) as other,
            open_node(transport=transport) as node,
        ):
            stream = await node.open_stream(other.peer_id, other.addresses, SOURCE)
            await stream.send_all(struct.pack(">Q", 1_000_000))
            assert await read_all(stream) == bytes(1_000_000)


@both_transports
async def test_a_thousand_short_answers_all_arrive(transport: Any) -> None:
    """Fifty streams at a time, and at the end none of them is left."""
    with trio.fail_after(30):
        async with (
            peer(LISTEN[transport], transport=transport) as other,
            open_node(transport=transport) as node,
        ):
            answers: list[bytes] = []

            async def ask() -> None:
                stream = await node.open_stream(other.peer_id, other.addresses, SOURCE)
                await stream.send_all(struct.pack(">Q", 2000))
                answers.append(await read_all(stream))
                await stream.aclose()

            for _ in range(20):
                async with trio.open_nursery() as nursery:
                    for _ in range(50):
                        nursery.start_soon(ask)
            assert answers == [bytes(2000)] * 1000
            await until(lambda: node.statistics().outbound_streams == 0, 1)
            assert (await ask_state(node, other))["inbound"] == 1


@both_transports
async def test_a_thousand_cancelled_tasks_harm_nobody(transport: Any) -> None:
    """2000 cancels in and around sends and reads leave the stream in order."""
    rng = random.Random(5)
    with trio.fail_after(40):
        async with (
            peer(LISTEN[transport], transport=transport) as other,
            open_node(transport=transport) as node,
        ):
            stream = await node.open_stream(other.peer_id, other.addresses, ECHO)
            (connection,) = node._swarm.get_connections()
            lock, sent, got, cancelled = trio.Lock(), bytearray(), bytearray(), 0

            async def send(number: int) -> None:
                nonlocal cancelled
                with trio.move_on_after(rng.uniform(0, 0.01)) as scope:
                    async with lock:
                        data = struct.pack(">I", number) * rng.randrange(1, 50)
                        sent.extend(data)
                        await stream.send_all(data)
                    await trio.sleep(rng.uniform(0, 0.005))
                cancelled += scope.cancelled_caught

            async def read() -> None:
                nonlocal cancelled
                while True:
                    with trio.move_on_after(rng.uniform(0, 0.002)) as scope:
                        got.extend(await stream.receive_some())
                    cancelled += scope.cancelled_caught

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                for start in range(0, 2000, 50):
                    async with trio.open_nursery() as senders:
                        for number in range(start, start + 50):
                            senders.start_soon(send, number)
                await until(lambda: len(got) >= len(sent), 10)
                nursery.cancel_scope.cancel()
            assert got == sent
            assert cancelled > 200
            assert not connection.is_closed


async def test_a_cancelled_open_leaves_nothing() -> None:
    """Opening streams under a time limit that is too short harms nobody."""
    rng = random.Random(9)
    with trio.fail_after(20):
        async with peer() as other, open_node() as node:
            assert await echoes(node, other)
            (connection,) = node._swarm.get_connections()
            for _ in range(200):
                with trio.move_on_after(rng.uniform(0, 0.004)):
                    stream = await node.open_stream(other.peer_id, other.addresses, ECHO)
                    await stream.aclose()
            assert await echoes(node, other)
            assert node._swarm.get_connections() == [connection]
            await until(lambda: node.statistics().outbound_streams == 0, 2)
            assert (await ask_state(node, other))["inbound"] == 1


@both_transports
async def test_closing_wakes_the_reader(transport: Any) -> None:
    """A task that waits for data gets ``b""`` when another task closes the stream."""
    with trio.fail_after(15):
        async with (
            open_node(listen=[LISTEN[transport]], transport=transport) as listener,
            open_node(transport=transport) as node,
        ):
            serve_everything(listener)
            stream = await node.open_stream(listener.peer_id, listener.addresses, SILENT)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_all, stream)
                await trio.testing.wait_all_tasks_blocked(0.05)
                with trio.fail_after(0.2):
                    await stream.aclose()
                    await stream.aclose()
            with pytest.raises(PeerUnreachable, match="is closed"):
                await stream.send_all(b"x")
            await until(lambda: listener.statistics().inbound_streams == 1, 1)


# Connections.


async def test_callers_at_the_same_time_share_one_connection() -> None:
    """Ten opens at once make one connection, and ten failures take as long as one."""
    with trio.fail_after(20):
        async with open_node(listen=[TCP]) as listener, open_node() as node:
            serve_everything(listener)
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(echoes, node, listener)
            assert node.statistics().connections == 1

            with socket.socket() as deaf:
                deaf.bind(("127.0.0.1", 0))
                deaf.listen()
                address = f"/ip4/127.0.0.1/tcp/{deaf.getsockname()[1]}"
                nobody = stranger()

                async def fail() -> None:
                    with pytest.raises(PeerUnreachable, match="no answer within 5 s"):
                        await node.open_stream(nobody, (address,), ECHO)

                with trio.fail_after(7):
                    async with trio.open_nursery() as nursery:
                        for _ in range(10):
                            nursery.start_soon(fail)


async def test_two_nodes_may_dial_each_other_at_once() -> None:
    """Both get their stream, whichever connection it is on."""
    with trio.fail_after(20):
        async with open_node(listen=[TCP]) as one, open_node(listen=[TCP]) as two:
            serve_everything(one)
            serve_everything(two)
            for _ in range(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(echoes, one, two)
                    nursery.start_soon(echoes, two, one)
                await one._connections.close()
                await until(lambda: two.statistics().connections == 0, 2)


async def test_one_node_speaks_tcp_and_quic() -> None:
    """A dual node talks to a peer on each transport, and prefers TCP where it has both."""
    with trio.fail_after(20):
        async with (
            open_node(listen=[TCP], transport="tcp") as on_tcp,
            open_node(listen=[QUIC], transport="quic") as on_quic,
            open_node(listen=[QUIC, TCP], transport="dual") as on_both,
            open_node(transport="dual") as node,
        ):
            for listener in (on_tcp, on_quic, on_both):
                serve_everything(listener)
                assert await echoes(node, listener)
            kinds = {
                str(each.muxed_conn.peer_id): type(each.muxed_conn).__name__
                for each in node._swarm.get_connections()
            }
            assert kinds == {
                on_tcp.peer_id: "Yamux",
                on_quic.peer_id: "QUICConnection",
                on_both.peer_id: "Yamux",
            }
            with pytest.raises(PeerUnreachable, match="transport that this node does not dial"):
                await on_tcp.open_stream(on_quic.peer_id, on_quic.addresses, ECHO)


@both_transports
async def test_an_idle_connection_is_closed(transport: Any) -> None:
    """A second after the last stream both ends have forgotten each other."""
    with trio.fail_after(15):
        async with (
            open_node(listen=[LISTEN[transport]], transport=transport) as listener,
            open_node(transport=transport) as node,
        ):
            serve_everything(listener)
            stream = await node.open_stream(listener.peer_id, listener.addresses, ECHO)
            await trio.sleep(2)
            assert node.statistics().connections == 1, "it has a stream"
            await stream.aclose()
            await until(lambda: node.statistics().connections == 0, 3)
            await until(lambda: listener.statistics().connections == 0, 3)
            assert node.statistics() == listener.statistics()
            assert await echoes(node, listener)
