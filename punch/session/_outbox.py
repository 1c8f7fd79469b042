"""Writes what a session has queued, in pieces, and decides when a peer is behind in reading.

Its task sends on the stream, or, while that is idle, the one that has something to say.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..exceptions import PeerUnreachable
from ..network import Stream
from ..wire import Cancel, Chunk, Reasoning, Request, Response, Session
from ._heartbeat import Heartbeat

# Bytes that may wait for the writer before answers wait for it too: a peer that does not read
# its stream cannot grow our memory much past this.
MAX_PENDING_BYTES = 4 << 20

# Bytes written at a time; more would hide from the heartbeat that the peer still reads.
PIECE_BYTES = 256 << 10

# What somebody waits for, and nothing follows at once: it goes out without a turn of the writer.
URGENT = frozenset({Request, Chunk, Reasoning, Response, Cancel})


class Outbox:
    """Carries the bytes of a session to its stream; those that are ready together are one write.

    Args:
      stream: The stream.
      session: The rules, which queue the bytes.
      heartbeat: Is told of each piece that the peer has read.

    """

    def __init__(self, stream: Stream, session: Session, heartbeat: Heartbeat) -> None:
        self.sent = 0
        """Bytes sent so far."""
        self._stream = stream
        self._session = session
        self._heartbeat = heartbeat
        self._writable = trio.Event()
        self._written = trio.Event()
        self._is_writing = False

    @property
    def is_behind(self) -> bool:
        """True if more than `MAX_PENDING_BYTES` wait for the writer."""
        return self._session.pending > MAX_PENDING_BYTES

    def send(self, said: type[object]) -> None:
        """Send what is queued, of which *said* is the latest kind: now, or by the writer's task."""
        session = self._session
        # Of several requests, what is said in one turn of all tasks is gathered in one packet.
        is_alone = said in URGENT and session.requests <= 1
        if not is_alone or self._is_writing or session.pending > self._stream.room:
            self._writable.set()
            return
        data = session.data_to_send()
        self._stream.send_now(data)
        self.sent += len(data)

    async def run(self, ended: Callable[[PeerUnreachable], None]) -> None:
        """Send what is queued, until the stream ends; *ended* is told why."""
        try:
            while True:
                await self.flush()
                self._writable = trio.Event()
                await self._writable.wait()
                if self._session.role == "listener":
                    # A side that answers now has more to say: one packet for both costs half.
                    await trio.lowlevel.checkpoint()
        except PeerUnreachable as error:
            ended(error)

    async def flush(self) -> None:
        """Send all that is queued now.

        Raises:
          PeerUnreachable: if the stream has ended.

        """
        while data := self._session.data_to_send():
            self._is_writing = True
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                await self._stream.send_all(piece)
                self.sent += len(piece)
                if start:
                    # A peer that takes what we send is not silent, even while we do not listen.
                    self._heartbeat.heard(trio.current_time())
            self._written.set()
            self._written = trio.Event()
        self._is_writing = False

    async def drained(self) -> None:
        """Wait while more than `MAX_PENDING_BYTES` wait for the writer."""
        while self.is_behind:
            await self._written.wait()
        await trio.lowlevel.checkpoint()
