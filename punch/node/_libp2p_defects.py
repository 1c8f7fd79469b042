"""Every work-around for a defect of libp2p 0.8.1, one function each.

The functions that `apply` calls replace private methods for the whole process;
the others make a value that `_libp2p` passes when it builds its swarm. Each
docstring says what is wrong, where, and what happens without the work-around.
The ones for QUIC live in `_quic_defects`.

Three defects need no function, because `_libp2p` does not use the code they are
in: `BasicHost` (it runs identify in trio's system tasks, where one unexpected
exception ends the process), `Swarm.dial_peer` (it waits 250 ms for an address
that has already answered, refuses a peer for 60 s after one failure, and forgets
addresses after 120 s) and `ResourceManager` (it lowers its own limits by 20 to
50 % when one is reached and then refuses everybody for 60 s). Metrics stay off:
nobody reads their channel of 100 entries, and the host stops when it is full.
"""

from __future__ import annotations

import importlib.metadata
import logging
import socket
import struct
import sys
from collections.abc import Callable, Collection
from typing import Any, cast

import multiaddr
import trio
from libp2p.abc import IMuxedConn, ISecureTransport
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError, ParseError
from libp2p.io import msgio, utils
from libp2p.io import trio as io_trio
from libp2p.io.exceptions import IncompleteReadError, IOException
from libp2p.network import swarm as swarm_module
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection import swarm_connection
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp import tcp
from libp2p.utils.varint import decode_uvarint_from_stream

from ..exceptions import ConfigurationError

LIBP2P_VERSION = "0.8.1"
"""The version whose private methods are replaced here."""

STALL_SECONDS = 10.0
"""A write that makes no progress for so long has failed.

Twice the silence after which a session gives a peer up (5 s), so that the session
is the one that notices; short enough that a stopped process frees its connections.
"""

MAX_CONNECTIONS = 4096
"""Connections of one node. A process may usually open 1024 to 65536 files."""

MAX_CONNECTIONS_PER_PEER = 16
"""Connections of one peer: both sides dialed on both transports, a few times over."""

MAX_STREAMS_PER_PEER = 64
"""Streams that one peer may have open here: one session, and its tunnels."""

MAX_OUTBOUND_STREAMS = 256
"""Streams that we open on one connection; the limit that upstream has, too."""

MAX_WINDOW_BYTES = 2 << 20
"""Bytes that a peer may send on one stream before it is read. 2 MiB fill a path of
50 ms at 40 MB/s; together with `MAX_STREAMS_PER_PEER` they bound a peer's memory here."""

MAX_NEGOTIATION_BYTES = 1024
"""Longest line of multistream-select (its specification, section *Protocol*)."""

HANDSHAKE_SECONDS = 5.0
"""Time for a connection, or a stream, to agree on its protocols."""

_MAX_QUEUED_FRAMES = 4096
"""Answers (12 bytes each) that wait for a peer that sends requests and reads nothing."""

_FRAME = struct.Struct(yamux.YAMUX_HEADER_FORMAT)

_applied: frozenset[str] | None = None


def replace(owner: Any, name: str, new: object) -> None:
    """Put *new* where upstream's attribute *name* was; fail if there was none."""
    if not hasattr(owner, name):
        raise ConfigurationError(f"{owner!r} has no {name!r}: this is not libp2p {LIBP2P_VERSION}")
    setattr(owner, name, new)


def check_version() -> None:
    """Refuse any libp2p but the one that was studied.

    Raises:
      ConfigurationError: if another version is installed.

    """
    found = importlib.metadata.version("libp2p")
    if found != LIBP2P_VERSION:
        raise ConfigurationError(
            f"libp2p {found} is installed, punch needs libp2p {LIBP2P_VERSION} exactly, because it "
            f"repairs private parts of it. Run: pip install 'libp2p=={LIBP2P_VERSION}'"
        )


def apply(*, without: Collection[str] = ()) -> None:
    """Install the process-wide work-arounds, once.

    Args:
      without: Names of work-arounds to leave out, such as ``yamux_read``: for the tests
        that show that each of them is needed. Only the first call counts.

    Raises:
      ConfigurationError: if libp2p is not 0.8.1.

    """
    global _applied
    if _applied is not None:
        return
    check_version()
    from . import _quic_defects

    patches: tuple[Callable[[], None], ...] = (*PATCHES, *_quic_defects.PATCHES)
    unknown = set(without) - {patch.__name__ for patch in patches}
    if unknown:
        raise ConfigurationError(f"no work-around is called {', '.join(sorted(unknown))}")
    for patch in patches:
        if patch.__name__ not in without:
            patch()
    _applied = frozenset(without)


# Values for the swarm.


def noise_only(key_pair: KeyPair) -> dict[TProtocol, ISecureTransport]:
    """The security transports to offer and accept: Noise, and nothing else.

    Defect: `libp2p.new_swarm` also enables ``/plaintext/2.0.0`` (and secio). Plaintext
    proves nothing: without this, anybody is accepted under any peer id, as a listener
    and as a dialer.
    """
    return {NOISE: Noise(key_pair, noise_privkey=create_x25519_key_pair().private_key)}


def connection_config() -> ConnectionConfig:
    """Limits without the connection manager's own initiatives.

    Defect: by default (`libp2p.network.config`) the swarm dials known peers whenever it
    has fewer than 100 connections, and allows 250 inbound ones in all.
    """
    return ConnectionConfig(
        max_connections=MAX_CONNECTIONS,
        min_connections=0,
        low_watermark=0,
        high_watermark=MAX_CONNECTIONS,
        max_connections_per_peer=MAX_CONNECTIONS_PER_PEER,
        auto_connect_interval=86400.0,
        # Otherwise connections younger than 20 s do not count against the limit per peer.
        grace_period=0.0,
        inbound_upgrade_timeout=HANDSHAKE_SECONDS,
        outbound_upgrade_timeout=HANDSHAKE_SECONDS,
        inbound_stream_protocol_negotiation_timeout=HANDSHAKE_SECONDS,
        outbound_stream_protocol_negotiation_timeout=HANDSHAKE_SECONDS,
    )


# The whole process.


def quiet_logging() -> None:
    """Let libp2p log only where the application asked for it.

    Defect: the logger ``libp2p`` has no handler and does not propagate, so that its
    warnings go to stderr (1 to 7 lines for every peer that is away); and
    `network.connection.swarm_connection` calls `logging.debug`, which installs a handler
    on the root logger of the application.
    """
    logger = logging.getLogger("libp2p")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    replace(swarm_connection, "logging", logging.getLogger("libp2p.network.connection"))


def connection_tasks() -> None:
    """Let an error in one connection end that connection only.

    Defect: `Swarm.add_conn` runs `Yamux.start` and `SwarmConn.start` as tasks of the
    service manager, and `TrioManager._run_and_manage_task` answers an exception in any
    task by stopping the service. Without this, one unexpected exception while serving
    one peer ends the node.
    """
    for owner in (yamux.Yamux, swarm_connection.SwarmConn):
        replace(owner, "start", _contained(owner.start))


def _contained(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def start(self: Any) -> None:
        try:
            await original(self)
        except Exception:  # noqa: BLE001 - Whatever it was, it must stay this connection's.
            logging.getLogger("libp2p").debug("a connection's task failed", exc_info=True)
            with trio.CancelScope(shield=True, relative_deadline=1.0):
                await self.close()

    return start


def inbound_limiter() -> None:
    """Give an inbound connection's place back when the connection ends.

    Defect: `Swarm._do_handle_inbound_connection` waits for the end of the *swarm* while
    it holds a token of the limiter. Without this, a listener refuses everybody after
    250 (here: 4096) connections, and keeps a task for each one that ever was.
    """

    async def handle(self: Any, stream: Any, address: Any, failure: Any) -> None:
        try:
            if isinstance(stream, IMuxedConn):  # QUIC: encrypted and multiplexed already.
                await self.add_conn(stream, direction="inbound")
                await stream._closed_event.wait()  # type: ignore[attr-defined] # Private.
            else:
                raw = RawConnection(stream, False)
                muxed = await self.upgrade_inbound_raw_conn(raw, address)
                await muxed.event_closed.wait()
        except Exception:  # noqa: BLE001 - A stranger sent something; only he shall suffer.
            logging.getLogger("libp2p").debug("inbound connection failed", exc_info=True)
        finally:
            with trio.CancelScope(shield=True, relative_deadline=1.0):
                await stream.close()

    replace(swarm_module.Swarm, "_do_handle_inbound_connection", handle)


def read_exactly() -> None:
    """Read as often as it takes.

    Defect: `libp2p.io.utils.read_exactly` gives up after 101 reads. Without this, a path
    that delivers small segments (about 600 bytes) ends a Noise connection in the middle of
    a record.
    """

    async def read_exactly(reader: Any, n: int, retry_count: int = 0) -> bytes:
        parts = bytearray()
        while len(parts) < n:
            part = await reader.read(n - len(parts))
            if not part:
                raise IncompleteReadError(
                    f"Connection closed: expected {n} bytes, received {len(parts)}",
                    expected_bytes=n,
                    received_bytes=len(parts),
                )
            parts += part
        return bytes(parts)

    for module in (utils, msgio, yamux):
        replace(module, "read_exactly", read_exactly)


def negotiation() -> None:
    """Refuse lines of multistream-select that are too long or not text.

    Defect: `MultiselectCommunicator.read` decodes what a peer sent as UTF-8 and lets
    `UnicodeDecodeError` escape; and it reads a line of any announced length. Without this,
    one stream with a protocol name that is not UTF-8 ends the whole host (one packet from
    any peer), and a stranger fills memory for as long as the handshake may take.
    """

    async def read(self: Any) -> str:
        try:
            size = await decode_uvarint_from_stream(self.read_writer)
            if not 0 < size <= MAX_NEGOTIATION_BYTES:
                raise ParseError(f"a line of {size} bytes; at most {MAX_NEGOTIATION_BYTES}")
            line = await utils.read_exactly(self.read_writer, size)
            if not line.endswith(b"\n"):
                raise ParseError("a line without its end")
            return line[:-1].decode()
        except (BaseLibp2pError, IOException, UnicodeDecodeError, ValueError) as error:
            raise MultiselectCommunicatorError(str(error)) from error

    replace(multiselect_communicator.MultiselectCommunicator, "read", read)


def tcp_ports() -> None:
    """Own a TCP port alone.

    Defect: `transport.tcp.tcp._set_reuse_flags` sets SO_REUSEPORT on every listener (for
    hole punching). Without this, a second process of the same user listens on the same
    port without an error, and the kernel splits the peers between the two. An IPv6
    listener is kept to IPv6, or it takes the IPv4 port as well.
    """

    def set_reuse_flags(sock: Any) -> None:
        if sys.platform != "win32":  # There SO_REUSEADDR means what SO_REUSEPORT means here.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

    replace(tcp, "_set_reuse_flags", set_reuse_flags)


def tcp_keepalive() -> None:
    """Notice a machine that vanished without a word.

    Defect: `libp2p.io.trio.TrioTCPStream` sets no socket option. Without this, a
    connection to a machine that lost its power stays open for two hours, or, with
    unacknowledged data, for a quarter of an hour.
    """
    original = io_trio.TrioTCPStream.__init__
    options = [(socket.SOL_SOCKET, "SO_KEEPALIVE", 1)]
    options += [(socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5), (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 2)]
    options += [(socket.IPPROTO_TCP, "TCP_KEEPCNT", 3)]
    options += [(socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(STALL_SECONDS * 1000))]

    def init(self: Any, stream: Any) -> None:
        original(self, stream)
        for level, name, value in options:
            option = getattr(socket, name, None)
            if option is not None and isinstance(stream, trio.SocketStream):
                stream.setsockopt(level, option, value)

    replace(io_trio.TrioTCPStream, "__init__", init)


# Yamux.


def yamux_write() -> None:
    """Write a frame whole or not at all, and never block the reader with it.

    Defects: `Yamux._write_frame` can be cancelled between Noise's `encrypt`, which
    consumes a nonce, and the write; without this, one cancelled request ends the whole
    connection within milliseconds. And `Yamux.handle_incoming` waits for its own answers
    to be written; two ends that both fill the path then wait for each other for ever, and
    with a stopped peer every writer waits for ever.
    """

    async def send(self: Any, data: bytes) -> None:
        async with self._write_lock:
            if self.event_shutting_down.is_set():
                raise MuxedStreamError("the connection is closed")
            answers = self.__dict__.setdefault("_answers", [])
            with trio.CancelScope(shield=True, relative_deadline=STALL_SECONDS) as scope:
                while data or answers:
                    if not data:
                        data = b"".join(answers)
                        answers.clear()
                    await self.secured_conn.write(data)
                    data = b""
            if scope.cancelled_caught:
                self.event_shutting_down.set()
        if scope.cancelled_caught:
            await self._cleanup_on_error()
            raise MuxedStreamError(f"the peer reads nothing since {STALL_SECONDS:g} s")

    async def send_answers(self: Any) -> None:
        try:
            await send(self, b"")
        except (BaseLibp2pError, OSError):
            pass  # The connection ended; its reader knows.

    async def write_frame(self: Any, data: bytes) -> None:
        flags = data[3]
        if len(data) > yamux.HEADER_SIZE or not flags & (yamux.FLAG_ACK | yamux.FLAG_RST):
            await send(self, data)
            return
        answers = self.__dict__.setdefault("_answers", [])
        answers.append(data)
        if len(answers) > _MAX_QUEUED_FRAMES:
            self.event_shutting_down.set()
            await self._cleanup_on_error()
        elif not self._write_lock.locked() and not self.event_shutting_down.is_set():
            self._nursery.start_soon(send_answers, self)

    replace(yamux.Yamux, "_write_frame", write_frame)


def yamux_send_window() -> None:
    """Wait for a slow reader as long as for any other write, and wake up at once.

    Defect: `YamuxStream.write` looks for credit every 10 ms and fails the stream after
    5 s. Without this, a reader that pauses for 5 s loses its stream, and a stream that
    runs out of credit loses up to 10 ms each time.
    """

    def get_window(self: Any) -> int:
        return cast(int, self.__dict__["send_window"])

    def set_window(self: Any, size: int) -> None:
        self.__dict__["send_window"] = size
        if size > 0:
            event = self.__dict__.pop("_credit", None)
            if event is not None:
                event.set()

    async def wait_for_credit(self: Any) -> None:
        deadline = trio.current_time() + STALL_SECONDS
        while self.send_window <= 0 and not self.send_closed and not self.closed:
            if trio.current_time() >= deadline:
                raise MuxedStreamError(f"the peer's program reads nothing since {STALL_SECONDS:g} s")
            # Upstream sets `closed` in many places without telling; hence the second look.
            with trio.move_on_after(0.25):
                await self.__dict__.setdefault("_credit", trio.Event()).wait()

    async def write(self: Any, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            if self.send_window <= 0:
                await wait_for_credit(self)
            if self.send_closed or self.closed:
                raise MuxedStreamError("the stream is closed")
            size = min(self.send_window, yamux.MAX_MESSAGE_SIZE, len(data) - sent)
            header = _FRAME.pack(0, yamux.TYPE_DATA, 0, self.stream_id, size)
            self.send_window -= size
            await self.conn._write_frame(header + data[sent : sent + size])
            sent += size

    setattr(yamux.YamuxStream, "send_window", property(get_window, set_window))  # noqa: B010
    replace(yamux.YamuxStream, "write", write)


def yamux_read() -> None:
    """Never lose bytes that arrived, and wake the reader when the stream ends here.

    Defects: `YamuxStream.read` waits for a window update to be written after it took the
    bytes out of the buffer, so that a cancelled read loses them; `Yamux._cleanup_on_error`
    drops what arrived just before the connection ended; and `close` and `reset` leave a
    local reader waiting for ever. Also sends credit once per half window instead of once
    per read, which is half of a small message's cost.
    """
    finalize = yamux.Yamux._finalize_stream_locked
    cleanup = yamux.Yamux._cleanup_on_error

    async def give_credit(self: Any) -> None:
        buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
        if self.recv_closed or self.closed:
            return
        if self.target_recv_window - (self.recv_window + buffered) < self._grow_threshold():
            return
        size = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
        header = _FRAME.pack(0, yamux.TYPE_WINDOW_UPDATE, 0, self.stream_id, size)
        with trio.CancelScope(shield=True):
            try:
                await self.conn._write_frame(header)
            except (BaseLibp2pError, OSError):
                pass  # The connection ended; what was read before is still good.

    async def read(self: Any, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        conn = self.conn
        limit = yamux.MAX_MESSAGE_SIZE if n is None or n < 0 else n
        while True:
            buffer = conn.stream_buffers.get(self.stream_id, self.__dict__.get("_unread"))
            if buffer:
                data = bytes(buffer[:limit])
                del buffer[:limit]
                if self.closed and not buffer:
                    with trio.CancelScope(shield=True):
                        await conn._finalize_stream(self, fully_closed=True)
                await give_credit(self)
                return data
            if self.reset_received:
                raise MuxedStreamReset("the stream was reset")
            event = conn.stream_events.get(self.stream_id)
            if event is None or self.recv_closed or self.closed:
                raise MuxedStreamEOF("the stream ended")
            if event.is_set():
                event = conn.stream_events[self.stream_id] = trio.Event()
            await event.wait()

    def finalize_and_wake(self: Any, stream: Any, *, fully_closed: bool) -> None:
        event = self.stream_events.get(stream.stream_id)
        finalize(self, stream, fully_closed=fully_closed)
        if fully_closed and event is not None:
            event.set()

    async def cleanup_and_keep(self: Any) -> None:
        for stream_id, stream in self.streams.items():
            stream.__dict__["_unread"] = self.stream_buffers.get(stream_id)
        with trio.CancelScope(shield=True):
            await cleanup(self)

    replace(yamux.YamuxStream, "read", read)
    replace(yamux.Yamux, "_finalize_stream_locked", finalize_and_wake)
    replace(yamux.Yamux, "_cleanup_on_error", cleanup_and_keep)


class _Buffer(bytearray):
    """What arrived on one stream and was not read, never more than was granted."""

    stream: Any

    def extend(self, data: Any) -> None:
        if len(data) > self.stream.recv_window:
            raise MuxedStreamError("the peer sent more than it was granted")
        super().extend(data)


class _Buffers(dict[int, bytearray]):
    """The buffers of one connection, by stream id."""

    def __init__(self, streams: dict[int, Any]) -> None:
        super().__init__()
        self._streams = streams

    def __setitem__(self, stream_id: int, buffer: bytearray) -> None:
        bounded = _Buffer(buffer)
        bounded.stream = self._streams[stream_id]
        super().__setitem__(stream_id, bounded)


def yamux_receive_window() -> None:
    """End the stream of a peer that sends more than it was granted.

    Defect: `Yamux.handle_incoming` logs a warning when a peer exceeds its window, and
    keeps the data. Without this, any peer fills our memory through one stream that nobody
    reads. Windows also grow to 16 MiB each; here to `MAX_WINDOW_BYTES`.
    """
    original = yamux.Yamux.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.stream_buffers = _Buffers(self.streams)

    replace(yamux.Yamux, "__init__", init)
    replace(yamux, "MAX_WINDOW_SIZE", MAX_WINDOW_BYTES)


def yamux_open() -> None:
    """Refuse a stream too many instead of waiting for ever, and leak no place.

    Defect: `Yamux.open_stream` takes one of 256 places and waits, without a limit, if
    there is none; when it is cancelled it keeps the place.
    """

    async def open_stream(self: Any) -> Any:
        if self.event_shutting_down.is_set():
            raise MuxedStreamError("the connection is closed")
        if sum(stream.is_initiator for stream in self.streams.values()) >= MAX_OUTBOUND_STREAMS:
            raise MuxedStreamError(f"{MAX_OUTBOUND_STREAMS} streams are open to this peer")
        stream_id = self.next_stream_id
        self.next_stream_id += 2
        stream = yamux.YamuxStream(stream_id, self, True)
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = bytearray()
        self.stream_events[stream_id] = trio.Event()
        syn = _FRAME.pack(0, yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, stream_id, 0)
        try:
            await self._write_frame(syn)
        except BaseException:
            # Nothing was written (see `yamux_write`), so the peer knows nothing of it.
            for table in (self.streams, self.stream_buffers, self.stream_events):
                table.pop(stream_id, None)
            raise
        return stream

    replace(yamux.Yamux, "open_stream", open_stream)


def yamux_close() -> None:
    """Close a connection at once, whatever the peer does.

    Defect: `Yamux.close` holds the lock of all streams while it writes its last frame, and
    then sleeps 100 ms. Without this, closing a connection to a stopped process waits for
    ever, with every reader of that connection.
    """

    async def close(self: Any, error_code: int = yamux.GO_AWAY_NORMAL) -> None:
        if self.event_shutting_down.is_set():
            await self.secured_conn.close()
            return
        go_away = _FRAME.pack(0, yamux.TYPE_GO_AWAY, 0, 0, error_code)
        with trio.CancelScope(shield=True, relative_deadline=0.5):
            async with self._write_lock:
                self.event_shutting_down.set()
                try:
                    await self.secured_conn.write(go_away)
                except (BaseLibp2pError, OSError):
                    pass  # It is closed already.
        self.event_shutting_down.set()
        await self._cleanup_on_error()

    replace(yamux.Yamux, "close", close)


def hang_up(stream: Any) -> None:
    """End a Yamux stream on this side: nothing more is read or written here."""
    stream.send_closed = stream.recv_closed = stream.closed = True
    conn = stream.conn
    buffer = conn.stream_buffers.get(stream.stream_id)
    if buffer is not None:
        buffer.clear()
    event = conn.stream_events.get(stream.stream_id)
    if event is not None:
        event.set()


async def say_goodbye(stream: Any) -> None:
    """Tell the peer that a Yamux stream ended in both directions.

    Defect: `YamuxStream.close` ends one direction only, and `reset` discards what the peer
    has not read yet. FIN and RST in one write deliver everything and end both.
    """
    conn = stream.conn
    kind = yamux.TYPE_WINDOW_UPDATE
    fin = _FRAME.pack(0, kind, yamux.FLAG_FIN, stream.stream_id, 0)
    rst = _FRAME.pack(0, kind, yamux.FLAG_RST, stream.stream_id, 0)
    try:
        if not conn.event_shutting_down.is_set():
            await conn._write_frame(fin + rst)
    except (BaseLibp2pError, OSError):
        pass  # The connection ended, and all its streams with it.
    await conn._finalize_stream(stream, fully_closed=True)


PATCHES: tuple[Callable[[], None], ...] = (
    quiet_logging,
    connection_tasks,
    inbound_limiter,
    read_exactly,
    negotiation,
    tcp_ports,
    tcp_keepalive,
    yamux_write,
    yamux_send_window,
    yamux_read,
    yamux_receive_window,
    yamux_open,
    yamux_close,
)
"""What `apply` installs for TCP, in this order."""
