"""The messages of a lease on one stream, which both sides use."""

from __future__ import annotations

import trio

from ..exceptions import PeerTimeout
from ..network import Stream
from ..wire import FrameBuffer
from .leases import MAX_MESSAGE_BYTES, MAX_OPENING_BYTES, LeaseMessage, decode_lease, encode_lease


class LeaseStream:
    """One stream, whose reader is one task; any task may send.

    Args:
      stream: The stream; whoever opened it closes it.
      is_trusted: Whether the other side may send long frames from the start.

    """

    def __init__(self, stream: Stream, *, is_trusted: bool) -> None:
        self.peer_id = stream.peer_id
        """Who is at the other end."""
        self._stream = stream
        self._received = FrameBuffer(MAX_MESSAGE_BYTES if is_trusted else MAX_OPENING_BYTES)
        self._sending = trio.Lock()

    def trust(self) -> None:
        """Take longer frames: the other side was let in."""
        self._received.max_frame = MAX_MESSAGE_BYTES

    async def send(self, message: LeaseMessage) -> None:
        """Say *message*.

        Raises:
          PeerUnreachable: if the stream has ended, or the other side reads nothing for long.

        """
        frame = encode_lease(message)
        async with self._sending:
            await self._stream.send_all(frame)

    async def receive(self, *, seconds: float = float("inf")) -> LeaseMessage | None:
        """The next message; `None` if the stream has ended.

        Raises:
          PeerTimeout: if none comes within *seconds*.
          RemoteProtocolError: if what comes is none.

        """
        with trio.move_on_after(seconds):
            while (body := self._received.next_body()) is None:
                data = await self._stream.receive_some()
                if not data:
                    return None
                self._received.feed(data)
            return decode_lease(body)
        raise PeerTimeout(f"said nothing for {seconds:.0f} s", peer_id=self.peer_id)

    async def aclose(self) -> None:
        """End the stream."""
        with trio.CancelScope(shield=True):
            await self._stream.aclose()
