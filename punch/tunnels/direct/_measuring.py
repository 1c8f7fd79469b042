"""Measures what a tunnel costs, through a connection of its own: round trip, and rate upwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .._framing import FILL, PING, PONG, TAKEN
from ._channel import ROOM_BYTES, Channel, Ending
from ._loop import Loop

# The smallest of a few: what is above it is other programs' doing.
_PINGS: Final = 8
_PING_SECONDS: Final = 1.0

# Long enough for TCP to open its window on a link of 20 ms; the first part of it is not counted.
_FILL_SECONDS: Final = 0.4
_MAX_FILL_BYTES: Final = 256 << 20
_SETTLED: Final = 0.4
_PIECE: Final = bytes(32 << 10)

# On a link so slow that nothing was told until then, the measuring fails.
PATIENCE_SECONDS: Final = 8.0


class Measuring:
    """One measurement; an `Owner` of its channel, which it closes.

    Args:
      loop: The loop.
      channel: A connection that is ready and not in use.
      done: Called once with round trip in seconds and bytes a second, or with a reason.

    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        done: Callable[[tuple[float, float] | str], None],
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._done = done
        self._rtts: list[float] = []
        self._began = loop.now
        self._sent_at = 0.0
        self._fill_began = 0.0
        self._filled = 0
        self._points: list[tuple[float, int]] = []
        self.is_over = False
        self._timers = [loop.call_at(loop.now + PATIENCE_SECONDS, self._out_of_patience)]
        channel.owner = self
        self._ping()

    def _ping(self) -> None:
        self._sent_at = self._loop.clock()
        self._channel.send(PING, len(self._rtts).to_bytes(8, "big"))

    def on_frame(self, channel: Channel, kind: int, payload: bytes | memoryview) -> None:
        """Take an answer."""
        now = self._loop.clock()
        if kind == PONG and not self._fill_began:
            self._rtts.append(now - self._sent_at)
            if len(self._rtts) < _PINGS and now - self._began < _PING_SECONDS:
                self._ping()
            else:
                self._fill_began = now
                self._timers.append(self._loop.call_at(now + _FILL_SECONDS, self._conclude))
                self._fill()
        elif kind == TAKEN and len(payload) == 8:
            self._note(now, int.from_bytes(payload, "big"))

    def _note(self, now: float, taken: int) -> None:
        """Note what the other side says that it has taken, if that can be."""
        before = self._points[-1][1] if self._points else 0
        if not before < taken <= self._filled:
            self._finish(
                f"the other side says that it took {taken} bytes, and {before} before that; "
                f"{self._filled} were sent"
            )
            return
        self._points.append((now, taken))
        if now - self._fill_began >= _FILL_SECONDS:
            self._conclude()

    def _fill(self) -> None:
        while (
            self._channel.is_open
            and self._channel.queued < ROOM_BYTES
            and self._filled < _MAX_FILL_BYTES
            and self._loop.clock() - self._fill_began < _FILL_SECONDS
        ):
            self._channel.send(FILL, _PIECE)
            self._filled += len(_PIECE)
            if not self._channel.queued:
                # All of it went; others have their turn, and its answers are read.
                self._loop.call_soon(self._fill)
                return

    def on_drained(self, channel: Channel) -> None:
        """Send more."""
        if self._fill_began and not self.is_over:
            self._fill()

    def _conclude(self) -> None:
        """Say what was found, if anything was."""
        rtt = min(self._rtts)
        points = [(self._fill_began + rtt, 0), *self._points]
        if len(points) < 2:
            return  # A slow link: its first answer concludes, or the patience does.
        first = self._fill_began + _FILL_SECONDS * _SETTLED
        begin = max((point for point in points if point[0] <= first), default=points[0])
        end = points[-1]
        if end[0] <= begin[0]:
            begin = points[0]
        seconds = max(end[0] - begin[0], 1e-6)
        self._finish((rtt, (end[1] - begin[1]) / seconds))

    def _out_of_patience(self) -> None:
        self._finish(f"nothing was measured within {PATIENCE_SECONDS:g} s")

    def on_secure(self, channel: Channel) -> None:
        """Never called: its channel is secure."""

    def on_ended(self, channel: Channel, ending: Ending) -> None:
        """Say that nothing came of it."""
        self._finish(ending.reason)

    def _finish(self, found: tuple[float, float] | str) -> None:
        if not self.is_over:
            self.is_over = True
            for timer in self._timers:
                timer.cancel()
            self._channel.close()
            self._done(found)

    def close(self) -> None:
        """Give it up."""
        self._finish("the tunnel was closed")
