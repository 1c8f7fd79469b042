"""A program's connection and the tunnel's, coupled: bytes both ways until both directions ended.

What is read from one is sent to the other, and nothing is read that the other has no room for. The
end of one direction is passed on when all before it was; the other direction continues. What
breaks off is broken off on the other side too, so that no program takes a cut for an end.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from .._framing import BYE, DATA, END, FAILED, HEAD_BYTES, MAX_PAYLOAD, frame_within, words
from ._channel import ROOM_BYTES, Channel, Ending, Queue
from ._loop import READ, WRITE, Loop

# What is no more than this is the head of a message, most often, whose body was written apart. That
# is here by the time that the head has woken us up, so another read is tried before it is sent.
_MAX_HEAD_BYTES: Final = 16

# SO_LINGER: on, for no time. Closing then sends a reset.
_RESET = struct.pack("ii", 1, 0)


class Meter(Protocol):
    """Counts what passes."""

    def up(self, data: bytes | memoryview, now: float) -> None:
        """Count what a program of the near end has sent."""

    def down(self, data: bytes | memoryview, now: float) -> None:
        """Count what came back."""

    def ended_there(self) -> None:
        """Note that the target has ended the connection, and the program here has not."""


class Unmetered:
    """Counts nothing: the far end."""

    def up(self, data: bytes | memoryview, now: float) -> None:
        """Count nothing."""

    def down(self, data: bytes | memoryview, now: float) -> None:
        """Count nothing."""

    def ended_there(self) -> None:
        """Note nothing."""


class Pair:
    """One connection through the tunnel, at one of its ends.

    Args:
      loop: The loop.
      plain: The socket of a program of this machine, connected.
      channel: The tunnel's connection, which is the pair's from now on.
      meter: Counts what passes; `up` is what *plain* sends.
      over: Called once when both are closed, with why it broke off, or `None` if it did not.

    """

    def __init__(
        self,
        loop: Loop,
        plain: socket.socket,
        channel: Channel,
        *,
        meter: Meter,
        over: Callable[[Pair, str | None], None],
    ) -> None:
        plain.setblocking(False)
        self._loop = loop
        self._plain = plain
        self._channel = channel
        self._meter = meter
        self._over = over
        self._queue = Queue(plain)
        self._is_over = False
        # Which direction has ended: nothing more to read, and nothing more to send.
        self._has_sent = self._has_received = False
        self._has_shut = False
        channel.owner = self
        loop.add(plain, READ, self._ready)

    def start(self) -> None:
        """Read what the channel has kept meanwhile."""
        self._channel.resume()

    def _ready(self, mask: int) -> None:
        if mask & WRITE and not self._is_over:
            try:
                self._queue.drain()
            except OSError as error:
                self.break_off(f"the program's connection ended: {error}")
                return
            if not self._queue.is_full:
                self._channel.resume()
            self._settle()
        if mask & READ and not self._is_over and not self._has_sent:
            self._read()

    def _read(self) -> None:
        data, size = self._loop.room[HEAD_BYTES:], 0
        try:
            size = self._plain.recv_into(data, MAX_PAYLOAD)
            if 0 < size <= _MAX_HEAD_BYTES:
                size += self._plain.recv_into(data[size:], MAX_PAYLOAD - size)
        except BlockingIOError:
            if not size:
                return
        except OSError as error:  # Told once: a read after it finds an end.
            self.break_off(f"the program's connection ended: {error}")
            return
        if size:
            # Counted once it is on its way, here and below: that is what somebody waits for.
            self._channel.send_framed(frame_within(self._loop.room, size))
            self._meter.up(data[:size], self._loop.now)
            if not self._channel.queued:
                return  # As before: most often.
        else:
            self._has_sent = True
            self._channel.send(END)
        self._settle()

    def on_frame(self, channel: Channel, kind: int, payload: bytes | memoryview) -> None:
        """Pass on what came through the tunnel."""
        if self._is_over:
            return
        if kind == DATA and not self._has_received:
            try:
                self._queue.put(payload)
            except OSError as error:
                self.break_off(f"the program's connection ended: {error}")
                return
            self._meter.down(payload, self._loop.now)
            if not self._queue.size:
                return  # As before: most often.
            if self._queue.is_full:
                channel.pause()
        elif kind == END:
            self._note_end()
            self._has_received = True
        elif kind in (FAILED, BYE):
            self._note_end()
            self.break_off(words(payload))
            return
        self._settle()

    def on_drained(self, channel: Channel) -> None:
        """Read from the program again, once there is room for it."""
        del channel
        self._settle()

    def on_secure(self, channel: Channel) -> None:
        """Never called: a pair is made of a channel that is secure."""

    def on_ended(self, channel: Channel, ending: Ending) -> None:
        """Break off what the tunnel broke off."""
        del channel
        if self._has_received and self._has_sent and not self._queue.size:
            self._finish(None)
        else:
            self._note_end()
            self.break_off(ending.reason)

    def _note_end(self) -> None:
        """Have it known which side has ended first."""
        if not (self._has_sent or self._has_received):
            self._meter.ended_there()

    def _settle(self) -> None:
        """Listen for what is of use now; pass an end on; finish if both directions have ended."""
        if self._is_over:
            return
        if self._has_received and not self._queue.size and not self._has_shut:
            self._has_shut = True
            with suppress(OSError):  # The program has closed it already.
                self._plain.shutdown(socket.SHUT_WR)
        if self._has_shut and self._has_sent and not self._channel.queued:
            self._finish(None)
            return
        has_room = self._channel.queued < ROOM_BYTES
        reading = READ if has_room and not self._has_sent else 0
        self._loop.set(self._plain, reading | (WRITE if self._queue.size else 0))

    def break_off(self, why: str) -> None:
        """Close both at once: a program learns that its bytes were cut, not that they ended."""
        if not self._is_over:
            with suppress(OSError):
                self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._finish(why)

    def _finish(self, why: str | None) -> None:
        self._is_over = True
        self._channel.close()
        self._loop.remove(self._plain)
        with suppress(OSError):
            self._plain.close()
        self._over(self, why)
