"""Makes a `punch.network.Stream` of a stream of libp2p, and agrees on its protocol.

Decides how writes are cut and what counts as the end of a stream. Credit and framing below are
libp2p's, with the work-arounds of `defects`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.transport.quic.exceptions import QUICError
from libp2p.transport.quic.stream import QUICStream
from libp2p.utils import encode_delim

from ..capability import PeerId
from ..exceptions import PeerUnreachable
from ..network import plain_ip
from .defects import _quic as _quic_defects
from .defects import _yamux as _yamux_defects

MAX_READ_BYTES = 1 << 16
"""Most bytes that `LibP2PStream.receive_some` returns, as the contract of `Stream` says."""

MAX_WRITE_BYTES = 32 << 10
"""Most bytes in one write, so that the streams of one connection take turns."""

ENDS = (
    BaseLibp2pError,
    QUICError,
    OSError,
    EOFError,
    trio.ClosedResourceError,
    trio.BrokenResourceError,
    # aioquic's words for "this stream was finished before".
    ValueError,
    AssertionError,
)
"""What libp2p raises when a stream, or the connection below it, ended."""

_HEAD = encode_delim(b"/multistream/1.0.0")
_NOT_AVAILABLE = encode_delim(b"na")


class LibP2PStream:
    """A `punch.network.Stream` over one stream of Yamux or QUIC.

    Args:
      muxed: libp2p's stream, with its protocol agreed on.
      peer_id: Identity of the peer at the other end.
      start_soon: Starts a task that may outlive this stream, and ends with the node.
      on_close: Called once, when the stream is closed here.
      relay: The peer that carries the bytes, if this side has dialled through one.

    """

    __slots__ = (
        "_closed",
        "_muxed",
        "_muxer",
        "_on_close",
        "_peer_id",
        "_read",
        "_sending",
        "_start_soon",
        "_write",
        "relay",
    )

    def __init__(
        self,
        muxed: Any,
        *,
        peer_id: PeerId,
        start_soon: Callable[..., None],
        on_close: Callable[[LibP2PStream], None],
        relay: PeerId | None = None,
    ) -> None:
        self.relay = relay
        self._muxed = muxed
        self._muxer: Any = _quic_defects if isinstance(muxed, QUICStream) else _yamux_defects
        self._read: Callable[[int], Awaitable[bytes]] = muxed.read
        self._write: Callable[[bytes], Awaitable[None]] = muxed.write
        self._peer_id = peer_id
        self._start_soon = start_soon
        self._on_close = on_close
        self._closed = False
        self._sending = False

    @property
    def peer_id(self) -> PeerId:
        """Identity of the peer at the other end, as the handshake proved it."""
        return self._peer_id

    @property
    def ip(self) -> str | None:
        """IP address that the bytes come from; `None` if that is not known any more."""
        try:
            found = self._muxed.get_remote_address()
        except ENDS:
            return None
        return None if found is None else plain_ip(str(found[0]))

    async def receive_some(self) -> bytes:
        """The next bytes, at most 64 KiB; ``b""`` when the stream or its connection ended."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return b""
        try:
            return await self._read(MAX_READ_BYTES)
        except ENDS:
            return b""

    @property
    def room(self) -> int:
        """Bytes that `send_now` takes; 0 while a write must wait, or if the stream has ended."""
        if self._closed or self._sending:
            return 0
        room: int = self._muxer.room(self._muxed)
        return min(room, MAX_WRITE_BYTES)

    def send_now(self, data: bytes) -> None:
        """Send *data*, which `room` allows, without a wait and without a turn of other tasks."""
        self._muxer.send_now(self._muxed, data)

    async def send_all(self, data: bytes) -> None:
        """Send *data*; not cancelled halfway. A write without any progress for 10 s fails.

        Raises:
          PeerUnreachable: if the stream or its connection ended.

        """
        if self._closed:
            raise PeerUnreachable(f"the stream to {self._peer_id} is closed")
        if self._sending:
            # The pieces of two writers would be mixed, and the peer would see garbage.
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            with trio.CancelScope(shield=True):
                if len(data) <= MAX_WRITE_BYTES:
                    await self._write(data)
                    return
                for start in range(0, len(data), MAX_WRITE_BYTES):
                    await self._write(data[start : start + MAX_WRITE_BYTES])
        except ENDS as error:
            await self.aclose()
            reason = str(error) or type(error).__name__
            raise PeerUnreachable(f"the stream to {self._peer_id} ended: {reason}") from error
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """End the stream in both directions. Never raises, never waits for the peer."""
        self.close_nowait()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def close_nowait(self) -> None:
        """End the stream in both directions; the peer is told by a task of the node."""
        if self._closed:
            return
        self._closed = True
        self._muxer.hang_up(self._muxed)
        self._on_close(self)
        # If the node is closed, its connections ended, and the peer knows.
        with suppress(RuntimeError):
            self._start_soon(self._muxer.say_goodbye, self._muxed)


async def select(muxed: Any, protocol: str) -> None:
    """Agree on a protocol for a stream that we opened, in one round trip.

    multistream-select takes two, if one waits for the answer to its first line; a peer
    that knows the protocol answers both lines in the same words.

    Raises:
      PeerUnreachable: if the peer does not speak *protocol*.

    """
    expected = _HEAD + encode_delim(protocol.encode())
    await muxed.write(expected)
    answer = b""
    while answer != expected:
        answer += await muxed.read(len(expected) - len(answer))
        if not expected.startswith(answer):
            refused = len(answer) > len(_HEAD) and (_HEAD + _NOT_AVAILABLE).startswith(answer)
            raise PeerUnreachable(
                f"it does not speak {protocol}" if refused else "it does not speak multistream",
                why="no_protocol",
            )
