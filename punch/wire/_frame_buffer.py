"""Cuts a stream of bytes into frames: a length (u32, big-endian) and a body. No I/O.

What a body means is the codec's business; whether it may come now is the session's.
"""

from __future__ import annotations

from ..exceptions import RemoteProtocolError

HEADER = 4


class FrameBuffer:
    """Is fed with bytes in any pieces, and gives whole bodies.

    Args:
      max_frame: The longest body that is accepted, in bytes; may be changed between two frames.

    """

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self._received = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes of the stream, cut anywhere."""
        self._received += data

    def next_body(self) -> bytes | None:
        """The body of the next frame, or `None` until there is more data.

        Raises:
          RemoteProtocolError: if it is longer than `max_frame`, as soon as its length is known.

        """
        received = self._received
        if len(received) < HEADER:
            return None
        length = int.from_bytes(received[:HEADER], "big")
        if length > self.max_frame:
            raise RemoteProtocolError(
                f"a frame of {length} bytes; this side takes at most {self.max_frame}"
            )
        end = HEADER + length
        if len(received) < end:
            return None
        body = bytes(received[HEADER:end])
        del received[:end]
        return body

    def clear(self) -> None:
        """Drop all bytes that no body was made of."""
        self._received.clear()
