"""A stream from a process to itself: bytes in memory, and the rules of every other stream.

A router reaches a listener of its own process over such a stream, with the very session code that
it uses with any other listener. The ends prove nothing to each other: both belong to one process
with one identity.
"""

from __future__ import annotations

from collections import deque

import trio

from ..capability import PeerId
from ..exceptions import PeerUnreachable
from ._base import Stream, ip_of
from ._own import is_this_machine

# Bytes that a direction holds before its writer waits: about what a kernel's socket buffers hold.
MAX_BUFFERED_BYTES = 256 << 10

# Bytes that one read gives at most, as with every stream.
MAX_READ_BYTES = 64 << 10

# How long a write waits for the reader, as with every stream. The writer is shielded meanwhile, so
# without a limit a reader that is stuck would hold up the end of the process.
STALL_SECONDS = 10.0


class _Pipe:
    """A direction of the stream, in bytes that were sent and not yet read."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._changed = trio.Event()
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True
        self._signal()

    def _signal(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    @property
    def room(self) -> int:
        return 0 if self.is_closed else max(0, MAX_BUFFERED_BYTES - self._size)

    def put(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        self._signal()

    async def send(self, data: bytes) -> bool:
        """Wait for space and put *data* in; False if the stream has ended."""
        while not self.room and not self.is_closed:
            await self._changed.wait()
        is_open = not self.is_closed
        if is_open:
            self.put(data)
        await trio.lowlevel.checkpoint()
        return is_open

    async def receive(self) -> bytes:
        """The next bytes; ``b""`` once the direction is closed and empty."""
        while not self._pieces and not self.is_closed:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()
        if not self._pieces:
            return b""
        data = self._pieces.popleft()
        if len(data) > MAX_READ_BYTES:
            self._pieces.appendleft(data[MAX_READ_BYTES:])
            data = data[:MAX_READ_BYTES]
        self._size -= len(data)
        self._signal()
        return data


class LoopbackStream:
    """An end of a loopback stream; a `Stream`. Made by `open_loopback`."""

    def __init__(self, peer_id: PeerId, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.peer_id = peer_id
        """The identity of this process, at both ends."""
        self._incoming = incoming
        self._outgoing = outgoing

    async def receive_some(self) -> bytes:
        """The next bytes; ``b""`` at the end."""
        return await self._incoming.receive()

    @property
    def room(self) -> int:
        """Bytes that `send_now` takes."""
        return self._outgoing.room

    def send_now(self, data: bytes) -> None:
        """Send *data*, which `room` allows."""
        self._outgoing.put(data)

    async def send_all(self, data: bytes) -> None:
        """Send *data*.

        Raises:
          PeerUnreachable: if the stream has ended, or is not read for `STALL_SECONDS`.

        """
        with trio.CancelScope(shield=True), trio.move_on_after(STALL_SECONDS) as patience:
            if await self._outgoing.send(data):
                return
        if patience.cancelled_caught:
            self.end()
            raise PeerUnreachable(f"took nothing for {STALL_SECONDS:.0f} s", peer_id=self.peer_id)
        raise PeerUnreachable("the connection was lost", peer_id=self.peer_id)

    async def aclose(self) -> None:
        """End both directions; what was sent before can still be read."""
        self.end()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """End both directions, now."""
        self._incoming.close()
        self._outgoing.close()


def open_loopback(peer_id: PeerId) -> tuple[LoopbackStream, LoopbackStream]:
    """Both ends of a new stream inside the process *peer_id*."""
    there, back = _Pipe(), _Pipe()
    return LoopbackStream(peer_id, back, there), LoopbackStream(peer_id, there, back)


def is_own(stream: Stream) -> bool:
    """True if the other end is on this machine, whose programs all have one owner.

    Another machine looks like this one where a forwarder of this one, as that of a container or of
    ssh, carries its bytes: whoever runs one lends it this machine's name.
    """
    if isinstance(stream, LoopbackStream):
        return True
    ip = ip_of(stream)
    return ip is not None and is_this_machine(ip)
