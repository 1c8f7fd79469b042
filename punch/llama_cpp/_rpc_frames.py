"""Reads along with one RPC connection: counts messages, and which reply is due since when. No I/O.

A head that waits for a worker says nothing, and neither does a worker that hangs; the bytes between
the two do. What is done about a reply that does not come is decided elsewhere.

* The bytes are only looked at: never kept, changed or refused.
* What is counted does not depend on how the stream was cut into pieces.
* Bytes that are no RPC, or a version or a command that is not known, are said once, in `trouble`.
  From then on no reply counts as due: one that never comes would look like a worker that hangs.
* What a worker does that a head cannot live with is said too, in `fault`: whether the head has
  ended of it is not seen here.
* The payload of a message is skipped, so reading costs by the message and not by the byte.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

import attrs

from ._rpc_protocol import (
    ALLOC_BUFFER,
    ANY_SIZE,
    HELLO,
    REPLY_HEAD,
    REQUEST_HEAD,
    RpcVersion,
    reply_sizes,
)

Data = bytes | bytearray | memoryview

# A tensor is sent as one message, so this is above the biggest tensor there is; a size beyond it is
# the middle of something else.
MAX_MESSAGE_BYTES: Final = 2**40

# llama.cpp's client sends nothing more while it waits for a reply.
MAX_REPLIES_DUE: Final = 1024

# Of a reply so many bytes are looked at: a version, and whether there is a buffer.
_SAID_BYTES: Final = 8


@attrs.frozen(kw_only=True)
class RpcCounts:
    """What went over one RPC connection until now."""

    messages: int = 0
    """Requests that were passed on, whole."""

    replies: int = 0
    """Replies that came back, whole: each is a round trip that the head waited for."""

    bytes_up: int = 0
    """Bytes from the head to the worker."""

    bytes_down: int = 0
    """Bytes from the worker to the head."""

    replies_due: int = 0
    """Requests passed on, whole, whose reply has not come, whole."""

    oldest_due_since: float | None = None
    """Since when nothing came of the oldest reply that is due, on the caller's clock, in seconds;
    `None` if none is. A long reply that arrives slowly moves it with each piece."""

    version: RpcVersion | None = None
    """What the worker answered to hello; `None` before that."""

    trouble: str | None = None
    """Why replies are not counted as due any more, in words; `None` while they are."""

    fault: str | None = None
    """What the worker did that a head does not survive, in words: it answered what is no reply,
    refused memory, or ended the connection; `None` if it did nothing of that."""


class _Reader:
    """Finds where the messages of one direction end. A head and *size* bytes are a message."""

    __slots__ = ("_begun", "_head", "left")

    def __init__(self, head: struct.Struct) -> None:
        self._head = head
        self._begun = b""
        self.left: int | None = None
        """Bytes that are missing from the message whose head was read; `None` between two."""

    def head(self, data: Data, at: int) -> tuple[tuple[int, ...] | None, int]:
        """What the next head says, if all of it is there, and where *data* continues."""
        size = self._head.size
        if not self._begun and len(data) - at >= size:
            return self._head.unpack_from(data, at), at + size
        piece = bytes(data[at : at + size - len(self._begun)])
        self._begun += piece
        at += len(piece)
        if len(self._begun) < size:
            return None, at
        head, self._begun = self._begun, b""
        return self._head.unpack(head), at


class RpcFrames:
    """Both directions of one RPC connection; see the module's words for what holds of it."""

    def __init__(self) -> None:
        self._up = _Reader(REQUEST_HEAD)
        self._down = _Reader(REPLY_HEAD)
        self._messages = 0
        self._replies = 0
        self._bytes_up = 0
        self._bytes_down = 0
        # Command and time of each request that waits for its reply, oldest first.
        self._due: deque[tuple[int, float]] = deque()
        self._command = HELLO
        self._moved: float | None = None
        self._sizes: dict[int, int | None] | None = None
        self._version: RpcVersion | None = None
        self._said = b""
        self._fault: str | None = None
        self._trouble: str | None = None
        self._is_readable = True

    @property
    def trouble(self) -> str | None:
        """Why replies are not counted as due any more, in words; `None` while they are."""
        return self._trouble

    def counts(self) -> RpcCounts:
        """What went over the connection until now."""
        since = None
        if self._due:
            since = self._due[0][1] if self._moved is None else max(self._due[0][1], self._moved)
        return RpcCounts(
            messages=self._messages,
            replies=self._replies,
            bytes_up=self._bytes_up,
            bytes_down=self._bytes_down,
            replies_due=len(self._due),
            oldest_due_since=since,
            version=self._version,
            trouble=self._trouble,
            fault=self._fault,
        )

    def feed_up(self, data: Data, now: float) -> None:
        """Read what the head has sent.

        Args:
          data: The next bytes of the stream, any number of them.
          now: Seconds on a clock that is the same for both directions.

        """
        self._bytes_up += len(data)
        reader, at, end = self._up, 0, len(data)
        while at < end and self._is_readable:
            if reader.left is None:
                head, at = reader.head(data, at)
                if head is None:
                    return
                self._command, reader.left = head
                self._check_request(reader.left)
            step = min(reader.left, end - at)
            at += step
            reader.left -= step
            if not reader.left:
                reader.left = None
                self._messages += 1
                self._note_request(now)

    def feed_down(self, data: Data, now: float) -> None:
        """Read what the worker has sent; the arguments are as in `feed_up`."""
        self._bytes_down += len(data)
        self._moved = now
        reader, at, end = self._down, 0, len(data)
        while at < end and self._is_readable:
            if reader.left is None:
                head, at = reader.head(data, at)
                if head is None:
                    return
                (reader.left,) = head
                self._check_reply(reader.left)
                self._said = b""
            step = min(reader.left, end - at)
            if len(self._said) < _SAID_BYTES:
                self._said += bytes(data[at : at + min(step, _SAID_BYTES - len(self._said))])
            at += step
            reader.left -= step
            if not reader.left:
                reader.left = None
                self._replies += 1
                self._note_reply()

    def end_down(self) -> None:
        """Note that the worker has ended the connection, and the head has not."""
        self._blame("it ended a connection that the head had not ended")

    def _check_request(self, size: int) -> None:
        if self._messages == 0 and self._command != HELLO:
            self._give_up(f"the first command is {self._command}, and not hello", is_readable=False)
        elif size > MAX_MESSAGE_BYTES:
            self._give_up(f"a message of {size} bytes", is_readable=False)

    def _note_request(self, now: float) -> None:
        if self._trouble is not None:
            return
        if self._command != HELLO and self._sizes is None:
            self._give_up("a command came before the version was known")
        elif self._command not in (self._sizes or (HELLO,)):
            self._give_up(f"command {self._command} of RPC {self._version} is not known")
        elif self._sizes is not None and self._sizes[self._command] is None:
            return
        elif len(self._due) >= MAX_REPLIES_DUE:
            self._give_up(f"more than {MAX_REPLIES_DUE} requests wait for a reply")
        else:
            self._due.append((self._command, now))

    def _check_reply(self, size: int) -> None:
        if size > MAX_MESSAGE_BYTES:
            self._blame("it answers what is no reply")
            self._give_up(f"a reply of {size} bytes", is_readable=False)
        elif self._trouble is not None:
            return
        elif not self._due:
            self._blame("it answers what nobody has asked")
            self._give_up("a reply came that no command of this version has")
        else:
            command = self._due[0][0]
            known = ANY_SIZE if self._sizes is None else self._sizes[command]
            if known not in (ANY_SIZE, size):
                self._blame("it answers what is no reply")
                self._give_up(f"the reply to command {command} has {size} bytes, and not {known}")

    def _note_reply(self) -> None:
        if self._trouble is not None:
            return
        command, _ = self._due.popleft()
        if command == ALLOC_BUFFER and not any(self._said):
            self._blame("it has no room for what it said that it lends")
        if command != HELLO or self._version is not None:
            return
        if len(self._said) < 3:
            self._blame("it answers what is no reply")
            self._give_up("the reply to hello has no version")
            return
        self._version = RpcVersion(*self._said[:3])
        self._sizes = reply_sizes(self._version.major)
        if self._sizes is None:
            self._give_up(f"RPC {self._version} is not known")

    def _blame(self, why: str) -> None:
        if self._fault is None:
            self._fault = why

    def _give_up(self, why: str, *, is_readable: bool = True) -> None:
        """From here on no reply counts as due; and unless *is_readable*, nothing but bytes."""
        self._is_readable = self._is_readable and is_readable
        if self._trouble is None:
            self._trouble = why
        self._due.clear()
