"""The work-arounds for QUIC in libp2p 0.8.1 (on aioquic 1.x), one function each.

Installed by `apply` of `_swarm`, like all work-arounds.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio
from aioquic.quic import connection as aioquic
from aioquic.quic.packet import QuicFrameType
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.quic import listener, stream
from libp2p.transport.quic.config import QUICTransportConfig
from libp2p.transport.quic.connection import QUICConnection
from libp2p.transport.quic.exceptions import QUICError, QUICListenError, QUICStreamResetError

from . import _swarm as defects

WINDOW_BYTES = 1 << 20
"""Bytes that a peer may send on one stream before it is read."""

IDLE_SECONDS = 10.0
"""Silence after which a connection is dead. A dead peer is never noticed any sooner, since
UDP has no connections; `keep_alive` makes sure that a live one is never silent for long."""

KEEP_ALIVE_SECONDS = 3.0
"""Time between two pings: three may be lost within `IDLE_SECONDS`."""

_MAX_GONE_STREAMS = 1024
"""Closed streams of one connection whose last data may still be on the way."""

_NEVER_SECONDS = 1e9
"""For upstream's time limits that must not fire: thirty years."""


def transport_config() -> QUICTransportConfig:
    """Limits for QUIC connections.

    Defects: `QUICStream.read` ends a stream when a peer is silent for 30 s
    (`STREAM_READ_TIMEOUT`); a connection whose peer was killed stays for 600 s
    (`idle_timeout`). Draft 29 is switched off: it is a second way in that nobody needs.
    """
    return QUICTransportConfig(
        idle_timeout=IDLE_SECONDS,
        # Above 1200, the least that every path carries, and below what a VPN leaves.
        max_datagram_size=1280,
        enable_draft29=False,
        CONNECTION_HANDSHAKE_TIMEOUT=defects.HANDSHAKE_SECONDS,
        CONNECTION_CLOSE_TIMEOUT=1,
        # Above `MAX_STREAMS_PER_PEER`, so that it is the node that refuses: upstream drops
        # the data of a stream too many, and leaves the peer waiting.
        MAX_INCOMING_STREAMS=1024,
        MAX_OUTGOING_STREAMS=defects.MAX_OUTBOUND_STREAMS,
        STREAM_OPEN_TIMEOUT=defects.HANDSHAKE_SECONDS,
        STREAM_READ_TIMEOUT=_NEVER_SECONDS,
        STREAM_WRITE_TIMEOUT=defects.STALL_SECONDS,
        STREAM_FLOW_CONTROL_WINDOW=WINDOW_BYTES,
        CONNECTION_FLOW_CONTROL_WINDOW=2 * WINDOW_BYTES,
        MAX_STREAM_RECEIVE_BUFFER=2 * WINDOW_BYTES,
    )


def quic_read() -> None:
    """Deliver what arrived, all of it, and then say that it ended.

    Defects: `QUICStream.handle_data_received` drops what exceeds its buffer although it
    was acknowledged, so that a slow reader gets corrupt data without an error; `read` looks
    at the buffer and at the end under two locks, so that about one short answer in 200 is
    lost; a local `reset` leaves the reader waiting; and every read copies the whole buffer.
    """

    async def read(self: Any, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        limit = 1 << 16 if n is None or n < 0 else n
        while True:
            buffer = self._receive_buffer
            if buffer:
                data = bytes(buffer[:limit])
                del buffer[:limit]
                _consumed(self, len(data))
                return data
            if self.is_reset():
                raise QUICStreamResetError("the stream was reset")
            if self._read_closed or self._connection.is_closed:
                raise stream._QUICStreamEOF
            if self._receive_event.is_set():
                self._receive_event = trio.Event()
            await self._receive_event.wait()

    async def handle_data_received(self: Any, data: bytes, end_stream: bool) -> None:
        if self.is_reset() or self.__dict__.get("_hung_up"):
            return
        if len(self._receive_buffer) + len(data) > self.MAX_RECEIVE_BUFFER_SIZE:
            # Cannot happen while `quic_windows` is in force; an error beats silence.
            await self.reset(error_code=1)
            return
        self._receive_buffer += data
        if end_stream:
            self._read_closed = True
            closed = self._write_closed
            self._state = stream.StreamState.CLOSED if closed else stream.StreamState.READ_CLOSED
        self._receive_event.set()

    reset = stream.QUICStream.reset

    async def reset_and_wake(self: Any, error_code: int = 0) -> None:
        await reset(self, error_code)
        _wake(self)

    defects.replace(stream.QUICStream, "read", read)
    defects.replace(stream.QUICStream, "handle_data_received", handle_data_received)
    defects.replace(stream.QUICStream, "reset", reset_and_wake)


def _consumed(self: Any, size: int) -> None:
    """Count *size* bytes as read, and let the peer know when that opens its window."""
    quic_stream = self._connection._quic._streams.get(self._stream_id)
    if quic_stream is None:
        return
    consumed = quic_stream.__dict__.get("consumed", 0) + size
    quic_stream.consumed = consumed
    if consumed + WINDOW_BYTES // 2 >= quic_stream.max_stream_data_local:
        self._connection._signal_activity()


def _wake(self: Any) -> None:
    self._receive_event.set()
    self._backpressure_event.set()


def quic_windows() -> None:
    """Let a peer send as much as was read, not as much as arrived.

    Defect: `aioquic.quic.connection.QuicConnection._write_stream_limits` doubles a
    stream's window whenever half of it has arrived, read or not. Without this, a fast
    sender fills the memory of a slow reader (or, with upstream's limit, loses data).
    """

    def write_stream_limits(self: Any, builder: Any, space: Any, stream: Any) -> None:
        window = self._configuration.max_stream_data
        limit = stream.__dict__.get("consumed", 0) + window
        # A stream in one direction, ours, has no window: nothing arrives on it.
        if 0 < stream.max_stream_data_local <= limit - window // 2:
            stream.max_stream_data_local = limit
        if stream.max_stream_data_local_sent == stream.max_stream_data_local:
            return
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=aioquic.MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        frame.push_uint_var(stream.stream_id)
        frame.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local

    defects.replace(aioquic.QuicConnection, "_write_stream_limits", write_stream_limits)


def quic_end() -> None:
    """Forget a connection that ended.

    Defects: `QUICConnection._handle_connection_terminated` and `close` cancel the task
    they run in before they have told the listener, which then keeps the connection and its
    8 connection ids for ever (85 KB each); `close` leaves `accept_stream`, and with it the
    swarm's task and the whole connection, waiting for ever; neither wakes the writers; and
    the end of a connection that the peer closed is told only after aioquic's draining
    period, which is for packets that may still come, seconds later.
    """
    process = QUICConnection._process_quic_events_batched
    terminated = QUICConnection._handle_connection_terminated
    close = QUICConnection.close

    def finish(self: Any, streams: list[Any]) -> None:
        for each in streams:
            _wake(each)
        self._closed_event.set()
        self._stream_accept_event.set()

    async def terminate(self: Any, event: Any) -> None:
        streams = list(self._streams.values())
        with defects.shielded(2.0):
            await terminated(self, event)
        finish(self, streams)

    async def close_all(self: Any) -> None:
        streams = list(self._streams.values())
        with defects.shielded(2.0):
            await close(self)
        finish(self, streams)

    async def process_events(self: Any) -> bool:
        found = await process(self)
        event = self._quic._close_event
        if event is not None and self._quic._state in aioquic.END_STATES and not self._closed:
            await self._handle_connection_terminated(event)
        return found

    defects.replace(QUICConnection, "_process_quic_events_batched", process_events)
    defects.replace(QUICConnection, "_handle_connection_terminated", terminate)
    defects.replace(QUICConnection, "close", close_all)


def quic_late_data() -> None:
    """Do not mistake the rest of an old stream for a new one.

    Defect: `QUICConnection._handle_stream_data` creates an inbound stream for data of any
    stream it does not know, also of one that was closed here a moment ago. Without this,
    such a stream is negotiated again, with whatever bytes come next.
    """
    remove = QUICConnection._remove_stream
    handle = QUICConnection._handle_stream_data

    def remove_stream(self: Any, stream_id: int) -> None:
        gone = self.__dict__.setdefault("_gone", set())
        gone.add(stream_id)
        if len(gone) > _MAX_GONE_STREAMS:
            # What the oldest ones still had on the way has arrived long ago.
            gone.difference_update(sorted(gone)[: _MAX_GONE_STREAMS // 2])
        remove(self, stream_id)

    async def handle_stream_data(self: Any, event: Any) -> None:
        if event.stream_id not in self.__dict__.get("_gone", ()):
            await handle(self, event)

    defects.replace(QUICConnection, "_remove_stream", remove_stream)
    defects.replace(QUICConnection, "_handle_stream_data", handle_stream_data)


def quic_handshakes() -> None:
    """Bound what strangers can make a listener remember.

    Defect: `QUICListener._handle_new_connection` builds a connection (100 KB) for any
    datagram that looks like a first one, and keeps it for 15 s or more, without a limit.
    """
    new = listener.QUICListener._handle_new_connection

    async def handle_new_connection(self: Any, data: bytes, address: Any, packet: Any) -> Any:
        if len(self._registry._pending) >= defects.MAX_HANDSHAKES:
            return None
        return await new(self, data, address, packet)

    defects.replace(listener.QUICListener, "_handle_new_connection", handle_new_connection)


def quic_ipv6() -> None:
    """Speak IPv6.

    Defect: an IPv6 socket names a sender with four values. `QUICListener` unpacks two of
    them and fails; aioquic takes the answer to come from somewhere else than it dialed.
    Without this, no QUIC connection over IPv6 succeeds.
    """
    process = listener.QUICListener._process_packet
    receive = aioquic.QuicConnection.receive_datagram

    async def process_packet(self: Any, data: bytes, address: Any) -> None:
        await process(self, data, address[:2])

    def receive_datagram(self: Any, data: bytes, addr: Any, now: float) -> None:
        receive(self, data, addr[:2], now)

    defects.replace(listener.QUICListener, "_process_packet", process_packet)
    defects.replace(aioquic.QuicConnection, "receive_datagram", receive_datagram)


def quic_ports() -> None:
    """Own a UDP port alone; see `tcp_ports` of `_swarm`.

    Defect: `QUICListener._create_socket` sets SO_REUSEADDR and SO_REUSEPORT, either of
    which lets two processes share a UDP port.
    """

    async def create_socket(self: Any, host: str, port: int) -> trio.socket.SocketType:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = trio.socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind((host, port))
        except OSError as error:
            sock.close()
            raise QUICListenError(str(error)) from error
        return sock

    defects.replace(listener.QUICListener, "_create_socket", create_socket)


def quic_listening() -> None:
    """Let a QUIC listener fail as those of TCP do, for which `Swarm.listen` has a rule.

    Defect: `QUICListener.listen` raises `QUICListenError`, which `Swarm.listen` lets through; the
    listeners that start beside it are cancelled, and the process ends with a traceback.
    """
    upstream = listener.QUICListener.listen

    async def listen(self: Any, maddr: Any) -> None:
        try:
            await upstream(self, maddr)
        except QUICListenError as error:
            raise OpenConnectionError(str(error)) from error

    defects.replace(listener.QUICListener, "listen", listen)


def keep_alive(connection: Any) -> None:
    """Ping a QUIC connection, so that only a dead peer is silent for `IDLE_SECONDS`."""
    if not connection.is_closed:
        connection._quic.send_ping(0)
        connection._signal_activity()


def room(stream: Any) -> int:
    """Bytes that a stream of QUIC takes without a wait: its packets are sent by a coroutine."""
    return 0


def hang_up(self: Any) -> None:
    """End a QUIC stream on this side: nothing more is read or written here."""
    self.__dict__["_hung_up"] = True
    self._read_closed = self._write_closed = True
    self._receive_buffer.clear()
    _wake(self)


async def say_goodbye(self: Any) -> None:
    """Tell the peer that a QUIC stream ended in both directions, after all that was written.

    Defect: `QUICStream.close` does not ask the peer to stop sending, so that its writer
    goes on until it has no more credit, and then waits.
    """
    connection = self._connection
    quic = connection._quic
    self._state = stream.StreamState.CLOSED
    # aioquic has all these ways to say that the stream or the connection ended before.
    with suppress(QUICError, OSError, ValueError, AssertionError, RuntimeError):
        # aioquic would make a new stream of one that both sides have finished.
        if not connection.is_closed and self._stream_id in quic._streams:
            quic.send_stream_data(self._stream_id, b"", end_stream=True)
            quic.stop_stream(self._stream_id, 0)
            connection._signal_activity()
            await connection._transmit()
    with suppress(RuntimeError):  # The nursery that counts streams ended with the swarm.
        await self._cleanup_resources()


PATCHES: tuple[Callable[[], None], ...] = (
    quic_read,
    quic_windows,
    quic_end,
    quic_late_data,
    quic_handshakes,
    quic_ipv6,
    quic_ports,
    quic_listening,
)
"""What `apply` installs for QUIC, in this order."""
