"""Carries one program's connection over one stream of the node, in trio, at either end.

A stream of the node has no half-close, and one that nobody reads for ten seconds is ended. So the
ends of directions are frames, and who receives says what it has taken: the other side sends no
more than `WINDOW_BYTES` beyond that, and the stream is read at all times.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Final, Protocol

import trio

from ...exceptions import PeerUnreachable, RemoteProtocolError
from ...network import Stream
from .._framing import BYE, DATA, END, FAILED, PING, PONG, TAKEN, TunnelFrames, frame, words

WINDOW_BYTES: Final = 1 << 20
"""What may be on the way in one direction, and so what one end holds at most."""

# A frame fits one write of the node, which has 32 KiB.
_READ_BYTES: Final = (32 << 10) - 4

# How much is taken until it is said: seldom enough to cost nothing, and long before the other side
# has to wait.
_STEP_BYTES: Final = 256 << 10

_RESET: Final = struct.pack("ii", 1, 0)


class Meter(Protocol):
    """Counts what passes."""

    def up(self, data: bytes | memoryview, now: float) -> None:
        """Count what the program here has sent."""

    def down(self, data: bytes | memoryview, now: float) -> None:
        """Count what came for it."""

    def ended_there(self) -> None:
        """Note that the other side has ended the connection, and the program here has not."""


class FramedStream:
    """A stream with frames on it, which several tasks may send.

    Args:
      stream: The stream, past its first words.

    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._frames = TunnelFrames()
        self._sending = trio.Lock()

    async def send(self, kind: int, payload: bytes | memoryview = b"") -> None:
        """Send a frame; raises `PeerUnreachable`."""
        async with self._sending:
            await self.stream.send_all(frame(kind, payload))

    async def receive(self) -> list[tuple[int, bytes | memoryview]]:
        """The next frames, or pieces of them; none at the end.

        Raises:
          RemoteProtocolError: if they are none.

        """
        while data := await self.stream.receive_some():
            if found := self._frames.feed(data):
                return found
        return []


class _BrokenOff(Exception):
    """Raised inside when one side has broken off; the text says why."""


class Relay:
    """One connection of a program, and the stream that carries it.

    Args:
      plain: The program's connection.
      framed: The stream.
      meter: Counts what passes, if anybody wants to know.

    """

    def __init__(
        self, plain: trio.SocketStream, framed: FramedStream, *, meter: Meter | None = None
    ) -> None:
        self._plain = plain
        self._framed = framed
        self._meter = meter
        self._credit = WINDOW_BYTES
        self._sent = 0
        self._more_credit = trio.Event()
        self._pieces: deque[bytearray] = deque()
        self._held = 0
        self._news = trio.Event()
        self._has_received = self._has_sent = False

    async def run(self, first: list[tuple[int, bytes | memoryview]] | None = None) -> str | None:
        """Carry until both directions have ended; why it broke off, or `None` if it did not.

        The program's connection is closed then, and the stream is the caller's to close.

        Args:
          first: Frames that came already.

        """
        why: str | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver)
                reader = await nursery.start(self._receive, first or [])
                await self._send()
                while not (self._has_received and not self._held):
                    await self._wait_for_news()
                reader.cancel()
        except* _BrokenOff as group:
            why = str(_leaf(group))
        finally:
            if why is not None or not (self._has_received and self._has_sent):
                with suppress(OSError):
                    self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._plain)
        return why

    async def _send(self) -> None:
        """From the program to the stream."""
        try:
            while True:
                while self._sent + _READ_BYTES > self._credit:
                    await self._more_credit.wait()
                data = await self._plain.receive_some(_READ_BYTES)
                if not data:
                    break
                if self._meter is not None:
                    self._meter.up(data, trio.current_time())
                self._sent += len(data)
                await self._framed.send(DATA, data)
            await self._framed.send(END)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _BrokenOff(f"the program's connection ended: {error}") from None
        except PeerUnreachable as error:
            raise _BrokenOff(str(error)) from None
        self._has_sent = True

    async def _receive(
        self,
        first: list[tuple[int, bytes | memoryview]],
        *,
        task_status: trio.TaskStatus[trio.CancelScope],
    ) -> None:
        """From the stream to what `_deliver` has."""
        with trio.CancelScope() as scope:
            task_status.started(scope)
            found = first
            while True:
                for kind, payload in found:
                    await self._take(kind, payload)
                try:
                    found = await self._framed.receive()
                except RemoteProtocolError as error:
                    raise _BrokenOff(str(error)) from None
                if not found:
                    if self._has_received:
                        return
                    self._note_end()
                    raise _BrokenOff("the stream ended")

    async def _take(self, kind: int, payload: bytes | memoryview) -> None:
        if kind == DATA and payload:
            if self._meter is not None:
                self._meter.down(payload, trio.current_time())
            self._held += len(payload)
            if self._held > WINDOW_BYTES:
                raise _BrokenOff("the other side sends more than it may")
            self._keep(payload)
            self._signal()
        elif kind == END:
            self._note_end()
            self._has_received = True
            self._signal()
        elif kind == TAKEN and len(payload) == 8:
            self._credit = WINDOW_BYTES + int.from_bytes(payload, "big")
            event, self._more_credit = self._more_credit, trio.Event()
            event.set()
        elif kind == PING:
            with suppress(PeerUnreachable):
                await self._framed.send(PONG, payload)
        elif kind in (FAILED, BYE):
            self._note_end()
            raise _BrokenOff(words(payload))

    def _note_end(self) -> None:
        """Have it known which side has ended first."""
        if self._meter is not None and not (self._has_sent or self._has_received):
            self._meter.ended_there()

    def _keep(self, payload: bytes | memoryview) -> None:
        """Keep it for the program, with what waits: a piece for each frame could be a byte each."""
        if self._pieces and len(self._pieces[-1]) + len(payload) <= _READ_BYTES:
            self._pieces[-1] += payload
        else:
            self._pieces.append(bytearray(payload))

    async def _deliver(self) -> None:
        """To the program, and tell the other side how much of it was taken."""
        taken = told = 0
        try:
            while True:
                while self._pieces:
                    piece = self._pieces.popleft()
                    await self._plain.send_all(piece)
                    self._held -= len(piece)
                    taken += len(piece)
                    if taken - told >= _STEP_BYTES:
                        told = taken
                        # If the stream has ended, whoever reads it says so.
                        with suppress(PeerUnreachable):
                            await self._framed.send(TAKEN, taken.to_bytes(8, "big"))
                if self._has_received and not self._pieces:
                    break
                await self._wait_for_news()
            with suppress(trio.BrokenResourceError):  # The program has closed it already.
                await self._plain.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _BrokenOff(f"the program's connection ended: {error}") from None
        finally:
            self._signal()

    async def _wait_for_news(self) -> None:
        await self._news.wait()

    def _signal(self) -> None:
        event, self._news = self._news, trio.Event()
        event.set()


def _leaf(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
