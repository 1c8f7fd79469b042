"""The work-arounds for Yamux in libp2p 0.8.1, one function each.

Installed by `apply` of `_swarm`, like all work-arounds.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux import yamux

from .._sealed import SealedPipe
from . import _swarm as defects

WINDOW_BYTES = 2 << 20
"""Most bytes that a peer may send on one stream before it is read. 2 MiB fill a path of
50 ms at 40 MB/s; together with `MAX_STREAMS_PER_PEER` they bound a peer's memory here."""

_MAX_QUEUED_FRAMES = 4096
"""Answers (12 bytes each) that wait for a peer that sends requests and reads nothing. What else
waits is one frame a stream: its writer waits until all is sent."""

_TURN_FRAMES = 64
"""Frames after which all other tasks have a turn: one read may bring thousands."""

_FRAME = struct.Struct(yamux.YAMUX_HEADER_FORMAT)

_FIRST = yamux.FLAG_SYN | yamux.FLAG_ACK
_LAST = yamux.FLAG_FIN | yamux.FLAG_RST


def _pipe(conn: Any) -> SealedPipe:
    pipe: SealedPipe | None = conn.__dict__.get("_pipe")
    if pipe is None:
        pipe = conn.__dict__["_pipe"] = SealedPipe(conn.secured_conn, conn._nursery)
    return pipe


def _put(conn: Any, kind: int, flags: int, stream_id: int, value: int) -> None:
    """Send a frame without a body, and wait for nothing."""
    if not conn.event_shutting_down.is_set():
        _pipe(conn).put(_FRAME.pack(0, kind, flags, stream_id, value))


class _Frames:
    """Cuts what arrives into frames; the body of one of data is handed on as it comes."""

    def __init__(self) -> None:
        self._rest = b""
        # Of the frame of data whose body has not come yet, or in part.
        self._stream_id = self._flags = self._left = 0

    def cut(self, data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
        """Type, flags, stream, value and body of each frame, or part of one, in *data*.

        Raises:
          MuxedStreamError: if that is not Yamux.

        """
        data = self._rest + data
        place, end = 0, len(data)
        while place < end:
            if self._left:
                body = data[place : place + self._left]
                place += len(body)
                self._left -= len(body)
                flags = self._flags & (_FIRST if self._left else _FIRST | _LAST)
                self._flags &= _LAST
                yield yamux.TYPE_DATA, flags, self._stream_id, len(body), body
                continue
            if end - place < _FRAME.size:
                break
            version, kind, flags, stream_id, value = _FRAME.unpack_from(data, place)
            if version or kind > yamux.TYPE_GO_AWAY:
                raise MuxedStreamError(f"a frame of version {version} and type {kind}")
            place += _FRAME.size
            if kind == yamux.TYPE_DATA and value:
                self._stream_id, self._flags, self._left = stream_id, flags, value
            else:
                yield kind, flags, stream_id, value, b""
        self._rest = data[place:]


def yamux_frames() -> None:
    """Read all that is there at once, and end the stream of a peer that sends more than granted.

    Defects: `Yamux.handle_incoming` reads each frame in two parts, with a lock, a cancel scope, a
    dozen lines for its log and three looks at the environment for each. When a peer exceeds its
    window, it logs a warning and keeps the data: any peer fills our memory through one stream that
    nobody reads. Windows also grow to 16 MiB each; here to `WINDOW_BYTES`.
    """

    async def handle_incoming(self: Any) -> None:
        pipe, frames = _pipe(self), _Frames()
        try:
            while not self.event_shutting_down.is_set() and (data := await pipe.receive()):
                for count, (kind, flags, stream_id, value, body) in enumerate(frames.cut(data), 1):
                    if not count % _TURN_FRAMES:
                        await trio.lowlevel.checkpoint()
                    if kind == yamux.TYPE_PING:
                        heard_ping(self, flags, value)
                    elif kind == yamux.TYPE_GO_AWAY:
                        raise MuxedStreamError("the peer leaves")
                    elif flags & yamux.FLAG_SYN:
                        stream = opened(self, stream_id)
                        heard(self, stream, flags, value, body)
                        await self.new_stream_send_channel.send(stream)
                    elif stream_id in self.streams:
                        heard(self, self.streams[stream_id], flags, value, body)
                if pipe.puts > _MAX_QUEUED_FRAMES:
                    raise MuxedStreamError("the peer asks, and does not read what it is told")
        except Exception:  # Whatever a peer has sent, only its own connection ends.
            logging.getLogger("libp2p").debug("a connection ended", exc_info=True)
        except trio.Cancelled:
            # A program that ends has last words for its streams, and closes the connection then.
            if pipe.error is not None:
                await self._cleanup_on_error()
            raise
        self.event_shutting_down.set()
        await self._cleanup_on_error()

    def heard_ping(self: Any, flags: int, value: int) -> None:
        if flags & yamux.FLAG_SYN:
            _put(self, yamux.TYPE_PING, yamux.FLAG_ACK, 0, value)
        elif flags & yamux.FLAG_ACK:
            took = trio.current_time() - self._ping_sent_time
            self._rtt = (self._rtt + took) / 2 if self._rtt else took
            self._ping_event.set()

    def opened(self: Any, stream_id: int) -> Any:
        """The stream that the peer has just opened."""
        if stream_id in self.streams or stream_id % 2 == self.next_stream_id % 2:
            raise MuxedStreamError(f"stream {stream_id} is not for the peer to open")
        _put(self, yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_ACK, stream_id, 0)
        return _new_stream(self, stream_id, is_ours=False)

    def heard(self: Any, stream: Any, flags: int, value: int, body: bytes) -> None:
        """What the peer says of a stream."""
        if not body:
            stream.send_window += value
        elif len(body) > stream.recv_window:
            _put(self, yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_RST, stream.stream_id, 0)
            flags |= yamux.FLAG_RST
        elif not stream.recv_closed:  # Else the peer does not know yet that nobody reads it.
            self.stream_buffers[stream.stream_id] += body
            stream.recv_window -= len(body)
        if flags & yamux.FLAG_FIN:
            stream.recv_closed = True
            stream.closed = stream.closed or stream.send_closed
        if flags & yamux.FLAG_RST:
            stream.closed = stream.reset_received = True
        if body or flags & _LAST:
            self.stream_events[stream.stream_id].set()
        if stream.closed:  # What came before the end, perhaps with it, can still be read.
            self._finalize_stream_locked(stream, fully_closed=True)

    defects.replace(yamux.Yamux, "handle_incoming", handle_incoming)
    defects.replace(yamux, "MAX_WINDOW_SIZE", WINDOW_BYTES)


def _new_stream(conn: Any, stream_id: int, *, is_ours: bool) -> Any:
    stream = yamux.YamuxStream(stream_id, conn, is_ours)
    conn.streams[stream_id] = stream
    conn.stream_buffers[stream_id] = bytearray()
    conn.stream_events[stream_id] = trio.Event()
    return stream


def yamux_write() -> None:
    """Write a frame whole or not at all, and never block the reader with it.

    Defects: `Yamux._write_frame` can be cancelled between Noise's `encrypt`, which
    consumes a nonce, and the write; without this, one cancelled request ends the whole
    connection within milliseconds. And `Yamux.handle_incoming` waits for its own answers
    to be written; two ends that both fill the path then wait for each other for ever, and
    with a stopped peer every writer waits for ever.
    """

    async def write_frame(self: Any, data: bytes) -> None:
        if self.event_shutting_down.is_set():
            raise MuxedStreamError("the connection is closed")
        pipe = _pipe(self)
        pipe.put(data)
        try:
            await pipe.sent()
        except OSError as error:
            raise MuxedStreamError(str(error)) from error

    defects.replace(yamux.Yamux, "_write_frame", write_frame)


def yamux_send_window() -> None:
    """Wait for a slow reader as long as for any other write, and wake up at once.

    Defect: `YamuxStream.write` looks for credit every 10 ms and fails the stream after
    5 s. Without this, a reader that pauses for 5 s loses its stream, and a stream that
    runs out of credit loses up to 10 ms each time.
    """

    def get_window(self: Any) -> int:
        return cast("int", self.__dict__["send_window"])

    def set_window(self: Any, size: int) -> None:
        self.__dict__["send_window"] = size
        if size > 0:
            event = self.__dict__.pop("_credit", None)
            if event is not None:
                event.set()

    async def wait_for_credit(self: Any) -> None:
        deadline = trio.current_time() + defects.STALL_SECONDS
        while self.send_window <= 0 and not self.send_closed and not self.closed:
            if trio.current_time() >= deadline:
                raise MuxedStreamError(f"nobody there reads it since {defects.STALL_SECONDS:g} s")
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
    defects.replace(yamux.YamuxStream, "write", write)


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

    def give_credit(self: Any) -> None:
        buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
        target = self.target_recv_window
        if self.recv_closed or self.closed or 2 * (self.recv_window + buffered) > target:
            return
        size = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
        _put(self.conn, yamux.TYPE_WINDOW_UPDATE, 0, self.stream_id, size)

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
                    conn._finalize_stream_locked(self, fully_closed=True)
                give_credit(self)
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
        if self.streams.get(stream.stream_id) is not stream:
            return  # It is over already, and the peer may have used its number again.
        event = self.stream_events.get(stream.stream_id)
        finalize(self, stream, fully_closed=fully_closed)
        if fully_closed and event is not None:
            event.set()

    async def cleanup_and_keep(self: Any) -> None:
        for stream_id, stream in self.streams.items():
            stream.__dict__["_unread"] = self.stream_buffers.get(stream_id)
        with trio.CancelScope(shield=True):
            await cleanup(self)

    defects.replace(yamux.YamuxStream, "read", read)
    defects.replace(yamux.Yamux, "_finalize_stream_locked", finalize_and_wake)
    defects.replace(yamux.Yamux, "_cleanup_on_error", cleanup_and_keep)


def yamux_open() -> None:
    """Refuse a stream too many instead of waiting for ever, and leak no place.

    Defect: `Yamux.open_stream` takes one of 256 places and waits, without a limit, if
    there is none; when it is cancelled it keeps the place.
    """

    async def open_stream(self: Any) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.event_shutting_down.is_set():
            raise MuxedStreamError("the connection is closed")
        if (
            sum(stream.is_initiator for stream in self.streams.values())
            >= defects.MAX_OUTBOUND_STREAMS
        ):
            raise MuxedStreamError(f"{defects.MAX_OUTBOUND_STREAMS} streams are open to this peer")
        stream = _new_stream(self, self.next_stream_id, is_ours=True)
        self.next_stream_id += 2
        _put(self, yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, stream.stream_id, 0)
        return stream

    defects.replace(yamux.Yamux, "open_stream", open_stream)


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
        _put(self, yamux.TYPE_GO_AWAY, 0, 0, error_code)
        self.event_shutting_down.set()
        with defects.shielded(0.5), suppress(OSError):  # It is closed already.
            await _pipe(self).sent()
        await self._cleanup_on_error()

    defects.replace(yamux.Yamux, "close", close)


def room(stream: Any) -> int:
    """Bytes that `send_now` takes; 0 while a write must wait."""
    conn = stream.conn
    if stream.send_closed or stream.closed or conn.event_shutting_down.is_set():
        return 0
    return 0 if _pipe(conn).unsent else min(stream.send_window, yamux.MAX_MESSAGE_SIZE)


def send_now(stream: Any, data: bytes) -> None:
    """Send *data* on a Yamux stream, in one frame; `room` must allow it."""
    stream.send_window -= len(data)
    frame = _FRAME.pack(0, yamux.TYPE_DATA, 0, stream.stream_id, len(data)) + data
    _pipe(stream.conn).put(frame)


def hang_up(stream: Any) -> None:
    """End a Yamux stream on this side: nothing more is read or written here."""
    stream.send_closed = stream.recv_closed = stream.closed = True
    conn = stream.conn
    if conn.streams.get(stream.stream_id) is stream:
        conn.stream_buffers[stream.stream_id].clear()
        conn.stream_events[stream.stream_id].set()


async def say_goodbye(stream: Any) -> None:
    """Tell the peer that a Yamux stream ended in both directions.

    Defect: `YamuxStream.close` ends one direction only, and `reset` discards what the peer
    has not read yet. FIN and RST in one write deliver everything and end both.
    """
    conn = stream.conn
    kind = yamux.TYPE_WINDOW_UPDATE
    fin = _FRAME.pack(0, kind, yamux.FLAG_FIN, stream.stream_id, 0)
    rst = _FRAME.pack(0, kind, yamux.FLAG_RST, stream.stream_id, 0)
    # If the connection ended, all its streams ended with it.
    with suppress(BaseLibp2pError, OSError):
        if not conn.event_shutting_down.is_set():
            await conn._write_frame(fin + rst)
    await conn._finalize_stream(stream, fully_closed=True)


PATCHES: tuple[Callable[[], None], ...] = (
    yamux_frames,
    yamux_write,
    yamux_send_window,
    yamux_read,
    yamux_open,
    yamux_close,
)
"""What `apply` installs for Yamux, in this order."""
