"""The barest request and response: what anything on a byte stream costs at least.

A message is four bytes of length and that many bytes; the first four of a request say how long
the reply shall be. One write for each message, and as few reads as it takes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

READ_BYTES = 65536

MANY = "/bench/many/1"
"""Protocol: messages one after the other on one stream."""


class Messages:
    """Messages on a byte stream.

    Args:
      read: Returns at most so many bytes, and none at the end.
      write: Takes all it is given.

    """

    def __init__(
        self, read: Callable[[int], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._read = read
        self._write = write
        self._buffer = bytearray()

    async def send(self, body: bytes) -> None:
        """Send one message."""
        await self._write(len(body).to_bytes(4, "big") + body)

    async def receive(self) -> bytes:
        """The next message; `EOFError` if there is none."""
        buffer = self._buffer
        while len(buffer) < 4 or len(buffer) < 4 + int.from_bytes(buffer[:4], "big"):
            data = await self._read(READ_BYTES)
            if not data:
                raise EOFError
            buffer += data
        end = 4 + int.from_bytes(buffer[:4], "big")
        body = bytes(buffer[4:end])
        del buffer[:end]
        return body


def request_of(size: int, *, reply: int) -> bytes:
    """A message that takes *size* bytes with its length, and asks for *reply* bytes."""
    return reply.to_bytes(4, "big") + bytes(size - 8)


async def reply_to(messages: Messages) -> None:
    """Answer one request."""
    body = await messages.receive()
    await messages.send(bytes(int.from_bytes(body[:4], "big") - 4))


async def time_hops(messages: Messages, *, count: int, request: int, reply: int) -> list[float]:
    """Seconds of each of *count* round trips, one after the other."""
    body = request_of(request, reply=reply)
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await messages.send(body)
        await messages.receive()
        found.append(time.perf_counter() - began)
    return found
