"""Peers that are wrong, rude or not what they say."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
import trio
from integration.libp2p_peer import (
    BOOM,
    ECHO,
    ask_state,
    peer,
    read_exactly,
)
from integration.nodes import QUIC, TCP, echoes, stranger, until
from libp2p.stream_muxer.yamux.yamux import Yamux

from punch.exceptions import PeerUnreachable
from punch.libp2p._node import open_node
from punch.network import Stream


async def test_an_exception_in_a_handler_ends_its_stream_only() -> None:
    """The stream ends, the process lives, its other streams go on."""
    with trio.fail_after(20):
        async with peer() as other, open_node() as node:
            steady = await node.open_stream(other.peer_id, other.addresses, ECHO)
            for _ in range(3):
                stream = await node.open_stream(other.peer_id, other.addresses, BOOM)
                assert await stream.receive_some() == b""
            await steady.send_all(b"on")
            assert await read_exactly(steady, 2) == b"on"
            assert other.process.poll() is None


async def test_another_identity_is_refused() -> None:
    """Somebody else at the right address is not the peer; the text says who it is."""
    with trio.fail_after(20):
        async with (
            open_node(listen=[TCP, QUIC], transport="dual") as listener,
            open_node(transport="dual") as node,
        ):
            wrong = stranger()
            addresses = tuple(each.partition("/p2p/")[0] for each in listener.addresses)
            with pytest.raises(PeerUnreachable) as caught:
                await node.open_stream(wrong, addresses, ECHO)
            assert str(caught.value).count(f"{listener.peer_id} answered there") == 2
            with pytest.raises(PeerUnreachable, match="the address of another peer"):
                await node.open_stream(wrong, listener.addresses, ECHO)
            await until(lambda: listener.statistics().connections == 0, 3)
            assert node.statistics().connections == 0


async def test_a_listener_that_speaks_plaintext_only_is_refused() -> None:
    """Nobody is whom he claims to be without a proof."""
    from libp2p import new_swarm
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
    from libp2p.tools.anyio_service import background_trio_service
    from multiaddr import Multiaddr

    key_pair = create_new_key_pair()
    attacker: Any = new_swarm(
        key_pair=key_pair,
        sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair, peerstore=None)},
    )
    with trio.fail_after(15):
        async with background_trio_service(attacker), open_node() as node:
            await attacker.listen(Multiaddr(TCP))
            (listener,) = attacker.listeners.values()
            address = str(listener.get_addrs()[0])
            with pytest.raises(PeerUnreachable, match="not a libp2p peer with Noise"):
                await node.open_stream(stranger(), (address,), ECHO)
            with pytest.raises(PeerUnreachable, match="not a libp2p peer with Noise"):
                await node.identify(address)


async def test_a_protocol_that_nobody_speaks_is_named() -> None:
    """The text says what the peer does not speak."""
    with trio.fail_after(15):
        async with open_node(listen=[TCP]) as listener, open_node() as node:
            with pytest.raises(PeerUnreachable, match="does not speak /nothing/1"):
                await node.open_stream(listener.peer_id, listener.addresses, "/nothing/1")
            assert await node.identify(listener.addresses[0]) == listener.peer_id


GARBAGE: list[Callable[[random.Random], bytes]] = [
    lambda rng: rng.randbytes(1000),
    lambda rng: b"",
    lambda rng: b"\xff\xff\xff\xff\x0f" + b"A" * 100,
    lambda rng: b"\x13/multistream/1.0.0\n" + rng.randbytes(500),
    lambda rng: b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff" + rng.randbytes(3000),
    lambda rng: b"\x13/multistream/1.0.0\n\x05\xff\xfe\xfd\xfc\n",
    lambda rng: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
]


async def test_garbage_connections_harm_nobody() -> None:
    """50 strangers on each transport, some of whom stay, and the listener is as before."""
    rng = random.Random(11)
    with trio.fail_after(40):
        async with peer(TCP, QUIC, transport="dual") as other, open_node() as node:
            before = await ask_state(node, other)
            async with contextlib.AsyncExitStack() as staying:
                for number in range(50):
                    stranger = await trio.open_tcp_stream("127.0.0.1", other.port("tcp"))
                    await stranger.send_all(GARBAGE[number % len(GARBAGE)](rng))
                    if number % 3:
                        await stranger.aclose()
                    else:
                        await staying.enter_async_context(stranger)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    target = ("127.0.0.1", other.port("quic"))
                    for number in range(50):
                        head = b"\xc3\x00\x00\x00\x01\x08" if number % 2 else b""
                        sock.sendto(head + rng.randbytes(rng.choice((1, 50, 1200))), target)
                assert await echoes(node, other)
                await trio.sleep(6)  # An upgrade may take 5 s.
                after = await ask_state(node, other)
            assert after["connections"] == before["connections"]
            assert after["fds"] <= before["fds"]
            assert other.process.poll() is None
            async with open_node(transport="quic") as quic_node:
                assert await echoes(quic_node, other)


async def test_a_host_that_hangs_leaves_room_for_others() -> None:
    """More connections without a word than there may be, made anew as soon as one has ended."""
    with trio.fail_after(30):
        async with (
            open_node(listen=[TCP, "/ip6/::1/tcp/0"]) as listener,
            open_node() as node,
            trio.open_nursery() as nursery,
        ):

            async def echo(stream: Stream) -> None:
                await stream.send_all(await stream.receive_some())

            listener.handle(ECHO, echo)
            port = int(listener.addresses[0].split("/")[4])
            ended = 0

            async def hang() -> None:
                nonlocal ended
                while True:
                    with contextlib.suppress(OSError, trio.BrokenResourceError):
                        stream = await trio.open_tcp_stream("127.0.0.1", port)
                        async with stream:
                            while await stream.receive_some():
                                pass
                    ended += 1
                    await trio.sleep(0.01)

            for _ in range(300):
                nursery.start_soon(hang)
            while not ended:
                await trio.sleep(0.05)
            at = tuple(each for each in listener.addresses if "/ip6/" in each)
            for _ in range(3):
                with trio.fail_after(5):
                    assert await echoes(node, listener, *at)
            print(f"{ended} connections of one host had ended when others were served")
            nursery.cancel_scope.cancel()


async def test_garbage_from_an_authenticated_peer_ends_its_connection_only() -> None:
    """Yamux frames of 4 GiB, bad versions, floods of streams, protocol names that are not
    text: the process lives and other peers are served.
    """  # noqa: D205
    rng = random.Random(13)
    head = struct.Struct(">BBHII")
    multistream = b"\x13/multistream/1.0.0\n"

    def stream(number: int, data: bytes) -> bytes:
        return head.pack(0, 1, 1, number, 0) + head.pack(0, 0, 0, number, len(data)) + data

    attacks = [
        rng.randbytes(1200),
        head.pack(0, 0, 0, 5, 0xFFFFFFFF) + bytes(60_000),
        head.pack(0, 0, 0, 999, 1 << 20) + bytes(60_000),
        head.pack(0, 7, 0, 1, 1),
        b"".join(head.pack(0, 1, 1, 1001 + 2 * n, 0) for n in range(3000)),
        stream(2001, multistream + b"\x05\xff\xfe\xfd\xfc\n"),
        stream(2001, multistream + b"\xff\xff\xff\xff\x0f" + bytes(100)),
        stream(2001, multistream + b"\x01\n"),
        stream(2001, rng.randbytes(300)),
        b"".join(head.pack(0, 2, 1, 0, n) for n in range(3000)),
    ]
    with trio.fail_after(40):
        async with peer() as other, open_node() as bystander:
            steady = await bystander.open_stream(other.peer_id, other.addresses, ECHO)
            for attack in attacks:
                async with open_node() as attacker:
                    await attacker.open_stream(other.peer_id, other.addresses, ECHO)
                    (connection,) = attacker._swarm.get_connections()
                    assert isinstance(connection.muxed_conn, Yamux)
                    session = connection.muxed_conn.secured_conn
                    with contextlib.suppress(Exception), trio.move_on_after(2):
                        for start in range(0, len(attack), 60_000):
                            await session.write(attack[start : start + 60_000])
                    await trio.sleep(0.1)
                await steady.send_all(b"steady")
                assert await read_exactly(steady, 6) == b"steady"
            assert other.process.poll() is None
            with trio.fail_after(5):  # The flood of 3000 streams takes a second to go away.
                while (await ask_state(bystander, other))["connections"] > 1:
                    await trio.sleep(0.1)
