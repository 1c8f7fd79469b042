"""One scenario for each work-around, run in a process of its own.

``libp2p_scenarios.py NAME [WORKAROUND ...]`` plays scenario NAME without the named
work-arounds and prints its result, ``true`` if everything went as it should.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing
from integration.libp2p_peer import (
    ECHO,
    NUMBERS,
    RETURN,
    SILENT,
    SINK,
    peer,
    read_all,
    read_exactly,
    serve_everything,
)

TCP = "/ip4/127.0.0.1/tcp/0"
QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
ANY_ERROR = (Exception,)


@asynccontextmanager
async def two_nodes(listen: str = TCP) -> AsyncIterator[tuple[Any, Any]]:
    """A listener that serves everything, and a dialer."""
    from punch.libp2p._node import open_node

    transport: Any = "quic" if "quic" in listen else "tcp"
    async with (
        open_node(listen=[listen], transport=transport) as listener,
        open_node(transport=transport) as dialer,
    ):
        serve_everything(listener)
        yield listener, dialer


async def open_to(dialer: Any, listener: Any, protocol: str) -> Any:
    """A stream from *dialer* to *listener*."""
    return await dialer.open_stream(listener.peer_id, listener.addresses, protocol)


async def echoes(dialer: Any, listener: Any, seconds: float = 3.0) -> bool:
    """True if a new stream to the listener works."""
    with suppress(*ANY_ERROR), trio.fail_after(seconds):
        stream = await open_to(dialer, listener, ECHO)
        await stream.send_all(b"still there?")
        answer = await read_exactly(stream, 12)
        await stream.aclose()
        return answer == b"still there?"
    return False


def connection_of(node: Any) -> Any:
    """libp2p's muxed connection of a node that has one."""
    (connection,) = node._swarm.get_connections()
    return connection.muxed_conn


async def noise_only() -> bool:
    """A listener refuses somebody who can only speak plaintext."""
    from libp2p import new_swarm
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID
    from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
    from libp2p.tools.anyio_service import background_trio_service
    from multiaddr import Multiaddr

    key_pair = create_new_key_pair()
    attacker: Any = new_swarm(
        key_pair=key_pair,
        sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair, peerstore=None)},
    )
    attacker.retry_config.max_retries = 0
    async with two_nodes() as (listener, _), background_trio_service(attacker):
        address = listener.addresses[0].partition("/p2p/")[0]
        try:
            await attacker.dial_addr(Multiaddr(address), ID.from_base58(listener.peer_id))
        except ANY_ERROR:
            return True
        return False


async def quiet_logging() -> bool:
    """The application's root logger stays as it was."""
    async with two_nodes() as (listener, dialer):
        await echoes(dialer, listener)
    return not logging.getLogger().handlers


async def connection_tasks() -> bool:
    """An unexpected exception in one connection leaves the node alive."""
    from punch.libp2p._node import open_node

    async def fail(stream: Any) -> None:
        raise RuntimeError("unexpected")

    async with open_node() as other:
        try:
            async with two_nodes() as (listener, dialer):
                serve = listener._swarm.common_stream_handler
                listener._swarm.set_stream_handler(fail)
                with suppress(*ANY_ERROR):
                    await open_to(dialer, listener, ECHO)
                listener._swarm.set_stream_handler(serve)
                return await echoes(other, listener)
        except ANY_ERROR:
            return False


async def inbound_limiter() -> bool:
    """The place of a connection that ended can be taken again."""
    async with two_nodes() as (listener, dialer):
        listener._swarm._inbound_limiter.total_tokens = 3
        for _ in range(6):
            if not await echoes(dialer, listener):
                return False
            await dialer._connections.close()
            await trio.sleep(0.2)
        return True


async def read_exactly_() -> bool:
    """A message of a handshake that arrives in more than a hundred pieces is one message."""
    async with two_nodes() as (listener, dialer), trio.open_nursery() as nursery:
        target = int(listener.addresses[0].split("/")[4])

        async def forward(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for data in source:
                    for start in range(len(data)):
                        await sink.send_all(data[start : start + 1])
                        await trio.sleep(0.0002)
            await sink.aclose()

        async def serve(client: trio.SocketStream) -> None:
            server = await trio.open_tcp_stream("127.0.0.1", target)
            async with trio.open_nursery() as both:
                both.start_soon(forward, client, server)
                both.start_soon(forward, server, client)

        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        address = f"/ip4/127.0.0.1/tcp/{port}"
        try:
            with trio.fail_after(5):
                stream = await dialer.open_stream(listener.peer_id, (address,), ECHO)
                await stream.send_all(bytes(300))
                await read_exactly(stream, 300)
                await stream.aclose()
            return True
        except ANY_ERROR:
            return False
        finally:
            nursery.cancel_scope.cancel()


async def negotiation() -> bool:
    """A stranger's line is text, and no longer than lines are."""
    from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
    from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

    class Reader:
        def __init__(self, data: bytes) -> None:
            self.data = data

        async def read(self, n: int) -> bytes:
            data, self.data = self.data[:n], self.data[n:]
            return data

    for line in (b"\x05\xff\xfe\xfd\xfc\n", b"\xff\xff\xff\x01" + bytes(1 << 20)):
        reader: Any = Reader(line)
        try:
            await MultiselectCommunicator(reader).read()
        except MultiselectCommunicatorError:
            if len(line) - len(reader.data) > 1024:
                return False
        except UnicodeDecodeError:
            return False
    return True


async def tcp_ports() -> bool:
    """A second listener on the same TCP port fails."""
    from libp2p.transport.tcp import tcp
    from multiaddr import Multiaddr

    async with two_nodes() as (listener, _):
        second = tcp.TCP().create_listener(trio.aclose_forcefully)  # type: ignore[arg-type]  # never called
        try:
            await second.listen(Multiaddr(listener.addresses[0].partition("/p2p/")[0]))
        except ANY_ERROR:
            return True
        finally:
            await second.close()
        return False


async def quic_ports() -> bool:
    """A second listener on the same UDP port fails."""
    from libp2p.transport.quic.listener import QUICListener

    self: Any = SimpleNamespace()
    first = await QUICListener._create_socket(self, "127.0.0.1", 0)
    try:
        port = first.getsockname()[1]
        (await QUICListener._create_socket(self, "127.0.0.1", port)).close()
    except ANY_ERROR:
        return True
    finally:
        first.close()
    return False


async def quic_listening() -> bool:
    """A node whose UDP port is taken between its check and its listening takes the next one."""
    from punch.libp2p import _ports
    from punch.libp2p._node import open_node

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]
        check, checked = _ports.check_free, []

        def was_free(address: Any) -> None:
            checked.append(address)
            if len(checked) > 1:
                check(address)

        _ports.check_free = was_free
        place = "/ip4/127.0.0.1/udp/0/quic-v1"
        try:
            async with open_node(listen=[place], ports=[taken], transport="quic") as node:
                return bool(node.addresses)
        except ANY_ERROR:
            return False
        finally:
            _ports.check_free = check


async def tcp_keepalive() -> bool:
    """Both ends of a connection ask the system whether the other is still there."""
    async with two_nodes() as (listener, dialer):
        await echoes(dialer, listener)
        sockets = [
            connection_of(node).secured_conn.conn.read_writer.read_write_closer.stream.stream
            for node in (listener, dialer)
        ]
        return all(each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1 for each in sockets)


async def tcp_reads() -> bool:
    """Many small messages that are there together take few reads."""
    from libp2p.io.trio import TrioTCPStream

    ours, theirs = trio.testing.memory_stream_pair()
    reads = 0
    receive_some = ours.receive_some

    async def counted(most: int | None = None) -> bytes:
        nonlocal reads
        reads += 1
        return bytes(await receive_some(most))

    pipe: Any = ours
    pipe.receive_some = counted
    await theirs.send_all(b"\x00\x03abc" * 100)
    stream = TrioTCPStream(pipe)
    found = [(await stream.read(2), await stream.read(3)) for _ in range(100)]
    return found == [(b"\x00\x03", b"abc")] * 100 and reads < 10


async def tcp_ipv6() -> bool:
    """Both ends know where a stream over IPv6 comes from."""
    async with two_nodes("/ip6/::1/tcp/0") as (listener, dialer):
        heard = []

        async def note(stream: Any) -> None:
            heard.append(stream.ip)
            await stream.send_all(b"noted")

        listener.handle("/note/1", note)
        stream = await open_to(dialer, listener, "/note/1")
        await stream.receive_some()
        return [stream.ip, *heard] == ["::1", "::1"]


async def tcp_zones() -> bool:
    """What is dialled and bound names its interface, and so does what is listened at."""
    from libp2p.transport.exceptions import OpenConnectionError
    from libp2p.transport.tcp import tcp
    from multiaddr import Multiaddr

    from punch.libp2p.defects import _swarm as defects

    address = "/ip6zone/lo/ip6/fe80::1/tcp/5"
    asked = []

    async def note(host: str, port: int) -> Any:
        asked.append(host)
        raise OSError("nobody is there")

    defects.replace(tcp, "trio", SimpleNamespace(open_tcp_stream=note))
    with suppress(OpenConnectionError):
        await tcp.TCP().dial(Multiaddr(address))
    bound = SimpleNamespace(
        family=socket.AF_INET6, getsockname=lambda: ("fe80::1", 5, 0, socket.if_nametoindex("lo"))
    )
    said = str(tcp._multiaddr_from_socket(bound))  # type: ignore[arg-type]  # as libp2p calls it
    return (asked, said) == (["fe80::1%lo"], address)


async def yamux_write() -> bool:
    """Cancelled writes leave the connection intact."""
    rng = random.Random(1)
    async with two_nodes() as (listener, dialer):
        stream = await open_to(dialer, listener, SINK)
        await stream.send_all(struct.pack(">QI", 1 << 40, 0))

        async def write_and_cancel() -> None:
            while True:
                with suppress(*ANY_ERROR), trio.move_on_after(rng.uniform(0, 0.003)):
                    await stream._muxed.write(bytes(500))
                await trio.lowlevel.checkpoint()

        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(write_and_cancel)
        return not stream._muxed.conn.is_closed and await echoes(dialer, listener)


async def yamux_stopped() -> bool:
    """Closing a connection to a stopped process that reads nothing takes a moment."""
    from punch.libp2p._node import open_node

    async with peer() as other, open_node() as dialer:
        stream = await dialer.open_stream(other.peer_id, other.addresses, SINK)
        os.kill(other.pid, signal.SIGSTOP)
        muxed = stream._muxed
        async with trio.open_nursery() as nursery:

            async def fill() -> None:
                while True:
                    muxed.send_window = 1 << 20
                    await muxed.write(bytes(32 << 10))

            async def swallow() -> None:
                with suppress(*ANY_ERROR):
                    await fill()

            nursery.start_soon(swallow)
            await trio.sleep(0.5)
            before = trio.current_time()
            with trio.CancelScope(shield=True, deadline=before + 4):
                await muxed.conn.close()
            took = trio.current_time() - before
            os.kill(other.pid, signal.SIGKILL)
            nursery.cancel_scope.cancel()
            return took < 2


async def yamux_send_window() -> bool:
    """A reader that pauses for six seconds still gets everything."""
    async with two_nodes() as (listener, dialer):
        stream = await open_to(dialer, listener, SINK)
        size = 1 << 20
        try:
            await stream.send_all(struct.pack(">QI", size, 6000) + bytes(size))
            return len(await read_exactly(stream, 32)) == 32
        except ANY_ERROR:
            return False


async def yamux_read() -> bool:
    """Cancelled reads lose nothing, and a local end wakes the reader."""
    rng = random.Random(3)
    async with two_nodes() as (listener, dialer):
        stream = await open_to(dialer, listener, NUMBERS)
        count = 20_000
        await stream.send_all(struct.pack(">I", count))
        got = b""
        with suppress(*ANY_ERROR), trio.move_on_after(15):
            while len(got) < 4 * count:
                with trio.move_on_after(rng.choice((0, 0.00002, 0.00005, 0.0001, 0.0005))):
                    got += await stream._muxed.read(64)
        if got != b"".join(struct.pack(">I", number) for number in range(count)):
            return False
        woken = False
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                nonlocal woken
                with suppress(*ANY_ERROR):
                    await stream._muxed.read(1)
                woken = True

            nursery.start_soon(wait)
            await trio.sleep(0.1)
            await stream._muxed.reset()
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        return woken


async def yamux_last_words() -> bool:
    """What a peer said just before it ended the connection is heard."""
    async with two_nodes() as (listener, dialer):

        async def speak(stream: Any) -> None:
            await stream.send_all(b"last words")
            await listener._connections.close()

        listener.handle("/test/last/1", speak)
        stream = await open_to(dialer, listener, "/test/last/1")
        await trio.sleep(0.5)
        return await read_all(stream) == b"last words"


async def yamux_receive_window() -> bool:
    """A peer cannot make us keep more than it was granted."""
    async with two_nodes() as (listener, dialer):
        stream = await open_to(dialer, listener, SILENT)
        (inbound,) = connection_of(listener).streams.values()
        stream._muxed.send_window = 1 << 30
        with suppress(*ANY_ERROR), trio.move_on_after(2):
            await stream.send_all(bytes(8 << 20))
            await trio.sleep(0.3)
        kept = len(inbound.conn.stream_buffers.get(inbound.stream_id, b""))
        return kept <= 1 << 18 and await echoes(dialer, listener)


async def yamux_open() -> bool:
    """The stream after the last one fails at once, and a cancelled one takes no place."""
    from punch.libp2p.defects import _swarm as defects

    defects.MAX_STREAMS_PER_PEER = 1000
    async with two_nodes() as (listener, dialer):
        stream = await open_to(dialer, listener, ECHO)
        conn = stream._muxed.conn
        for _ in range(300):
            with trio.move_on_after(0):
                await conn.open_stream()
        opened = 0
        for _ in range(257):
            refused = False
            with trio.move_on_after(1) as scope:
                try:
                    await conn.open_stream()
                    opened += 1
                except ANY_ERROR:
                    refused = True
            if refused or scope.cancelled_caught:
                return refused and opened >= 200
        return False


async def quic_read() -> bool:
    """A local reset wakes the reader; a short answer and its end arrive together."""
    async with two_nodes(QUIC) as (listener, dialer):
        stream = await open_to(dialer, listener, SILENT)
        woken = False
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                nonlocal woken
                with suppress(*ANY_ERROR):
                    await stream._muxed.read(1)
                woken = True

            nursery.start_soon(wait)
            await trio.sleep(0.1)
            await stream._muxed.reset()
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        return woken


async def quic_slow_reader() -> bool:
    """A slow reader gets every byte, and keeps only as many as it granted."""
    from punch.libp2p.defects import _quic as _quic_defects

    async with two_nodes(QUIC) as (listener, dialer):
        stream = await open_to(dialer, listener, SINK)
        size = 4 << 20
        most = 0
        with suppress(*ANY_ERROR), trio.move_on_after(7):
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    with suppress(*ANY_ERROR):
                        await stream.send_all(struct.pack(">QI", size, 1500) + bytes(size))

                nursery.start_soon(send)
                with trio.move_on_after(1.4):
                    while True:
                        await trio.sleep(0.05)
                        for each in connection_of(listener)._streams.values():
                            most = max(most, len(each._receive_buffer))
                digest = await read_all(stream)
                nursery.cancel_scope.cancel()
                return len(digest) == 32 and most <= _quic_defects.WINDOW_BYTES
        return False


async def quic_end() -> bool:
    """A listener forgets connections that ended, on either side."""
    async with two_nodes(QUIC) as (listener, dialer):
        for number in range(6):
            await echoes(dialer, listener)
            await (dialer if number % 2 else listener)._connections.close()
            await trio.sleep(0.3)
        await trio.sleep(1)
        (quic,) = listener._swarm.listeners.values()
        return not quic._registry._connections and not quic._conn_by_quic_id


async def quic_late_data() -> bool:
    """Data for a stream that was closed does not open another one."""
    from libp2p.utils import encode_delim

    async with two_nodes(QUIC) as (listener, dialer):
        await open_to(dialer, listener, ECHO)
        quic = connection_of(dialer)
        muxed = await quic.open_stream()
        data = encode_delim(b"/multistream/1.0.0") + encode_delim(RETURN.encode())
        with suppress(RuntimeError):
            # All of it is on its way before the news that the other end hung up.
            for _ in range(50):
                quic._quic.send_stream_data(muxed._stream_id, data)
                await quic._transmit()
                data = bytes(1000)
        await trio.sleep(0.2)
        accepted: int = connection_of(listener)._stats["streams_accepted"]
        return accepted == 2


async def quic_handshakes() -> bool:
    """Strangers fill no memory."""
    from punch.libp2p.defects import _swarm as defects

    defects.MAX_HANDSHAKES = 8
    async with two_nodes(QUIC) as (listener, _):
        (quic,) = listener._swarm.listeners.values()
        port = quic._socket.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(30):
                ids = b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
                packet = b"\xc3\x00\x00\x00\x01" + ids + b"\x00\x44\x9e" + os.urandom(1170)
                sock.sendto(packet, ("127.0.0.1", port))
                await trio.sleep(0.01)
        return len(quic._registry._pending) <= 8


async def quic_ipv6() -> bool:
    """A listener on IPv6 hears its peers."""
    async with two_nodes("/ip6/::1/udp/0/quic-v1") as (listener, dialer):
        return await echoes(dialer, listener)


async def passive() -> bool:
    """A node dials nobody by itself."""
    from libp2p.peer.id import ID
    from multiaddr import Multiaddr

    from punch.libp2p._node import open_node

    async with two_nodes() as (listener, dialer), open_node(listen=[TCP]) as known:
        address = Multiaddr(known.addresses[0].partition("/p2p/")[0])
        dialer._swarm.peerstore.add_addrs(ID.from_base58(known.peer_id), [address], 100)
        await echoes(dialer, listener)
        await dialer._connections.close()
        await trio.sleep(0.7)
        return known.statistics().connections == 0


SCENARIOS: dict[str, Callable[[], Any]] = {
    **{
        each.__name__.rstrip("_"): each
        for each in (
            noise_only,
            quiet_logging,
            connection_tasks,
            inbound_limiter,
            read_exactly_,
            negotiation,
            tcp_ports,
            tcp_keepalive,
            tcp_reads,
            tcp_ipv6,
            tcp_zones,
            yamux_write,
            yamux_stopped,
            yamux_send_window,
            yamux_read,
            yamux_last_words,
            yamux_receive_window,
            yamux_open,
            quic_read,
            quic_slow_reader,
            quic_end,
            quic_late_data,
            quic_handshakes,
            quic_ports,
            quic_listening,
            quic_ipv6,
            passive,
        )
    }
}


def main() -> None:
    """Play the scenario that the command line names."""
    from punch.libp2p.defects import _swarm as defects

    name, *without = sys.argv[1:]
    if "noise_only" in without:
        without.remove("noise_only")
        defects.noise_only = lambda key_pair: None  # type: ignore[assignment, return-value]
    if "passive" in without:
        without.remove("passive")
        defects.passive = lambda swarm: swarm.set_resource_manager(None)
    defects.apply(without=without)

    async def play() -> bool:
        with trio.move_on_after(30):
            return bool(await SCENARIOS[name]())
        return False

    print(json.dumps(trio.run(play)), flush=True)


if __name__ == "__main__":
    main()
