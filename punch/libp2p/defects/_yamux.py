"""The work-arounds for Yamux in libp2p 0.8.1, one function each.

Installed by `apply` of `_swarm`, like all work-arounds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux import yamux

from ..._background import acquire_now
from . import _swarm as defects

WINDOW_BYTES = 2 << 20
"""Most bytes that a peer may send on one stream before it is read. 2 MiB fill a path of
50 ms at 40 MB/s; together with `MAX_STREAMS_PER_PEER` they bound a peer's memory here."""

_MAX_QUEUED_FRAMES = 4096
"""Answers (12 bytes each) that wait for a peer that sends requests and reads nothing."""

_FRAME = struct.Struct(yamux.YAMUX_HEADER_FORMAT)


def yamux_write() -> None:
    """Write a frame whole or not at all, and never block the reader with it.

    Defects: `Yamux._write_frame` can be cancelled between Noise's `encrypt`, which
    consumes a nonce, and the write; without this, one cancelled request ends the whole
    connection within milliseconds. And `Yamux.handle_incoming` waits for its own answers
    to be written; two ends that both fill the path then wait for each other for ever, and
    with a stopped peer every writer waits for ever.
    """

    async def send(self: Any, data: bytes) -> None:
        await acquire_now(self._write_lock)
        try:
            if self.event_shutting_down.is_set():
                raise MuxedStreamError("the connection is closed")
            answers = self.__dict__.setdefault("_answers", [])
            with defects.shielded(defects.STALL_SECONDS) as scope:
                while data or answers:
                    if not data:
                        data = b"".join(answers)
                        answers.clear()
                    await self.secured_conn.write(data)
                    data = b""
            if scope.cancelled_caught:
                self.event_shutting_down.set()
        finally:
            self._write_lock.release()
        if scope.cancelled_caught:
            await self._cleanup_on_error()
            raise MuxedStreamError(f"the peer reads nothing since {defects.STALL_SECONDS:g} s")

    async def send_answers(self: Any) -> None:
        with suppress(BaseLibp2pError, OSError):  # The connection ended; its reader knows.
            await send(self, b"")

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

    async def give_credit(self: Any) -> None:
        buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
        if self.recv_closed or self.closed:
            return
        if self.target_recv_window - (self.recv_window + buffered) < self._grow_threshold():
            return
        size = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
        header = _FRAME.pack(0, yamux.TYPE_WINDOW_UPDATE, 0, self.stream_id, size)
        # If the connection ended, what was read before is still good.
        with trio.CancelScope(shield=True), suppress(BaseLibp2pError, OSError):
            await self.conn._write_frame(header)

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

    defects.replace(yamux.YamuxStream, "read", read)
    defects.replace(yamux.Yamux, "_finalize_stream_locked", finalize_and_wake)
    defects.replace(yamux.Yamux, "_cleanup_on_error", cleanup_and_keep)


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
    reads. Windows also grow to 16 MiB each; here to `WINDOW_BYTES`.
    """
    original = yamux.Yamux.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.stream_buffers = _Buffers(self.streams)

    defects.replace(yamux.Yamux, "__init__", init)
    defects.replace(yamux, "MAX_WINDOW_SIZE", WINDOW_BYTES)


def yamux_open() -> None:
    """Refuse a stream too many instead of waiting for ever, and leak no place.

    Defect: `Yamux.open_stream` takes one of 256 places and waits, without a limit, if
    there is none; when it is cancelled it keeps the place.
    """

    async def open_stream(self: Any) -> Any:
        if self.event_shutting_down.is_set():
            raise MuxedStreamError("the connection is closed")
        if (
            sum(stream.is_initiator for stream in self.streams.values())
            >= defects.MAX_OUTBOUND_STREAMS
        ):
            raise MuxedStreamError(f"{defects.MAX_OUTBOUND_STREAMS} streams are open to this peer")
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
        go_away = _FRAME.pack(0, yamux.TYPE_GO_AWAY, 0, 0, error_code)
        with defects.shielded(0.5):
            async with self._write_lock:
                self.event_shutting_down.set()
                with suppress(BaseLibp2pError, OSError):  # It is closed already.
                    await self.secured_conn.write(go_away)
        self.event_shutting_down.set()
        await self._cleanup_on_error()

    defects.replace(yamux.Yamux, "close", close)


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
    # If the connection ended, all its streams ended with it.
    with suppress(BaseLibp2pError, OSError):
        if not conn.event_shutting_down.is_set():
            await conn._write_frame(fin + rst)
    await conn._finalize_stream(stream, fully_closed=True)


PATCHES: tuple[Callable[[], None], ...] = (
    yamux_write,
    yamux_send_window,
    yamux_read,
    yamux_receive_window,
    yamux_open,
    yamux_close,
)
"""What `apply` installs for Yamux, in this order."""
