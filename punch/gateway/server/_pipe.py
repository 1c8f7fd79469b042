"""Carries the bytes of one connection between its client and us, at once where the system can.

Decides how long a client may take for what it is sent. What the bytes mean is left to `_http1`,
what becomes of a client that is lost to `_connection`.
"""

from __future__ import annotations

import socket

import trio

# Most bytes that one read takes.
READ_BYTES = 64 << 10

# Most bytes that one write takes: a client that takes them in time gets as long for the next.
WRITE_BYTES = 64 << 10

LOST = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What a connection that has ended raises."""


class ClientPipe:
    """Both directions of one connection.

    Args:
      stream: The client's socket.
      stuck: Seconds that the client may take for each `WRITE_BYTES` of what it is sent.

    """

    def __init__(self, stream: trio.SocketStream, stuck: float) -> None:
        self.stream = stream
        """The client's socket."""
        self._stuck = stuck
        # Trio's own calls give all other tasks a turn, even where the system does what they ask
        # for at once. A stream in memory has no such socket.
        self._raw: socket.socket | None = getattr(stream.socket, "_sock", None)
        self._writing = trio.Lock()
        self.is_broken = False
        """A read has met an error: nothing can be sent either."""

    async def read(self) -> bytes | bytearray:
        """The next bytes; empty at the end, however it came."""
        try:
            if self._raw is None:
                return await self.stream.receive_some(READ_BYTES)
            while True:
                await trio.lowlevel.wait_readable(self._raw)
                try:
                    return self._raw.recv(READ_BYTES)
                except BlockingIOError:  # Woken in vain, as happens.
                    continue
        except (*LOST, OSError):
            self.is_broken = True
            return b""

    async def write(self, data: bytes) -> bool:
        """Send *data*, after all that was given before; false if the client takes too long for it.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: if the connection has ended.

        """
        if self._writing.locked():
            await self._writing.acquire()
        else:
            data = self._send_at_once(data)
            if not data:
                return True
            self._writing.acquire_nowait()
        try:
            # Shielded: half of a chunk would make everything after it unreadable.
            with trio.CancelScope(shield=True) as patience:
                for place in range(0, len(data), WRITE_BYTES):
                    patience.deadline = trio.current_time() + self._stuck
                    await self.stream.send_all(memoryview(data)[place : place + WRITE_BYTES])
            return not patience.cancelled_caught
        finally:
            self._writing.release()

    def _send_at_once(self, data: bytes) -> bytes:
        """Send what the system takes now; what is left."""
        if self._raw is None:
            return data
        try:
            return data[self._raw.send(data) :]
        except OSError:
            # It takes nothing now, or never again: trio says which.
            return data

    async def close(self) -> None:
        """Close the connection at once; pending reads and writes find its end."""
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self.stream)
