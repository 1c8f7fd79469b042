"""The frames of a tunnel's connection: bytes of programs between a few words of the ends. No I/O.

    head: u32, big-endian: kind << 24 | bytes that follow

Both carriers speak them: a TLS connection for each connection of a program, and a stream of the
node. They are there for what bare bytes do not carry: the end of one direction, which neither a
libp2p stream has nor Python's TLS can send while it still reads; that a connection which was ready
is used now; and that the other end is alive while nothing else moves.

* DATA is passed on as it arrives, whole or not.
* Every other kind is short and is given out whole. One of a kind that is not known is ignored.
"""

from __future__ import annotations

import struct
from typing import Final

from ..exceptions import RemoteProtocolError

# ---- kinds ----

DATA: Final = 0
"""Bytes of a program."""

END: Final = 1
"""The program that sends in this direction has ended it."""

OPEN: Final = 2
"""From the near end: connect to the target."""

WATCH: Final = 3
"""From the near end: this connection carries pings alone."""

PING: Final = 4
"""Eight bytes, which a `PONG` brings back."""

PONG: Final = 5

READY: Final = 6
"""From the far end: the near end is known by its certificate. Its first word."""

FAILED: Final = 7
"""From the far end: the target cannot be reached; a text says why."""

FILL: Final = 8
"""From the near end: bytes that measure the rate, and mean nothing."""

TAKEN: Final = 9
"""From the far end: how many bytes of `FILL` have come until now, as u64."""

BYE: Final = 10
"""The end closes all that it has with the other one; a text says why."""

MAX_PAYLOAD: Final = 64 << 10
"""Bytes that a frame carries at most."""

MAX_WORD: Final = 512
"""Bytes of a frame that is given out whole."""

_STREAMED: Final = frozenset({DATA, FILL})
_HEAD: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size


def frame(kind: int, payload: bytes | memoryview = b"") -> bytes:
    """The bytes of a frame."""
    return b"".join((_HEAD.pack(kind << 24 | len(payload)), payload))


def frame_within(room: memoryview, size: int) -> memoryview:
    """The frame of DATA whose *size* bytes lie in *room* already, behind the place of its head."""
    _HEAD.pack_into(room, 0, DATA << 24 | size)
    return room[: HEAD_BYTES + size]


def words(payload: bytes | memoryview) -> str:
    """The text of a frame: one line, with nothing in it that a terminal would obey."""
    text = bytes(payload).decode("utf-8", "replace")
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


class TunnelFrames:
    """Takes the frames of one direction apart."""

    def __init__(self) -> None:
        self._head = b""
        self._kind = DATA
        self._left = 0
        self._body = b""

    def feed(self, data: bytes | memoryview) -> list[tuple[int, bytes | memoryview]]:
        """What *data* brings: kind and payload of each frame, DATA and FILL in pieces.

        Raises:
          RemoteProtocolError: if a frame is longer than it may be.

        """
        view, at, size = memoryview(data), 0, len(data)
        if (
            not (self._left or self._head)
            and 0 < size - HEAD_BYTES <= MAX_PAYLOAD
            and _HEAD.unpack_from(view)[0] == DATA << 24 | size - HEAD_BYTES
        ):
            # One frame of DATA, and all of it: most often.
            return [(DATA, view[HEAD_BYTES:])]
        found: list[tuple[int, bytes | memoryview]] = []
        while at < size:
            if self._left == 0:
                head = data[at : at + HEAD_BYTES - len(self._head)]
                self._head += head
                at += len(head)
                if len(self._head) < HEAD_BYTES:
                    break
                self._begin(*_HEAD.unpack(self._head))
                self._head = b""
                if self._left == 0 and self._kind not in _STREAMED:
                    found.append((self._kind, b""))
                continue
            piece = view[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._kind in _STREAMED:
                found.append((self._kind, piece))
            else:
                self._body += piece
                if not self._left:
                    found.append((self._kind, self._body))
                    self._body = b""
        return found

    def _begin(self, head: int) -> None:
        self._kind, self._left = head >> 24, head & 0xFFFFFF
        limit = MAX_PAYLOAD if self._kind in _STREAMED else MAX_WORD
        if self._left > limit:
            raise RemoteProtocolError(
                f"a frame of kind {self._kind} with {self._left} bytes; {limit} are allowed"
            )
