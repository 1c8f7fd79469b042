"""Writes what a session has queued, in pieces, and decides when a peer is behind in reading.

Its task sends on the stream, or, while that is idle, the one that has something to say.
"""

from __future__ import annotations

import math
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

# Of several requests, what is said in one turn of all tasks is gathered in one packet, by the
# writer. A text that comes later than this after the last one comes alone, and waits for no others.
GATHER_SECONDS = 1e-3


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
        self._text_at = -math.inf

    @property
    def is_behind(self) -> bool:
        """True if more than `MAX_PENDING_BYTES` wait for the writer."""
        return self._session.pending > MAX_PENDING_BYTES

    def send(self, said: type[object]) -> None:
        """Send what is queued, of which *said* is the latest kind: now, or by the writer's task."""
        is_due = said in URGENT and (self._session.requests <= 1 or self._comes_alone(said))
        if is_due and not self._is_writing and self._session.pending <= self._stream.room:
            self._send_now(self._session.data_to_send())
        else:
            self._writable.set()

    def _comes_alone(self, said: type[object]) -> bool:
        """Whether this is the first text for a while."""
        if said is not Chunk and said is not Reasoning:
            return False
        now = trio.current_time()
        before, self._text_at = self._text_at, now
        return now - before >= GATHER_SECONDS

    def _send_now(self, data: bytes) -> None:
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
            if len(data) <= self._stream.room:
                self._send_now(data)
                continue
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
