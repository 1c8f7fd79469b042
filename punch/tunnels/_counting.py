"""Counts what the connections through a near end carry, and reads RPC along. No I/O."""

from __future__ import annotations

from typing import Any

from ..llama_cpp import RpcFrames
from ._silence import Silence


class Counting:
    """What all connections of one near end carry.

    Args:
      silence: Told when something came of the far end.
      frames: Whether what they carry is llama.cpp's RPC.

    """

    def __init__(self, silence: Silence, *, frames: bool) -> None:
        self.total = 0
        """Connections since the start."""
        self._silence = silence
        self._frames = frames
        self._bytes_up = self._bytes_down = 0
        # Of connections that have ended.
        self._messages = 0
        self._trouble: str | None = None
        self._fault: str | None = None
        self._meters: set[Meter] = set()
        self._told: dict[str, Any] = {}

    def begin(self) -> Meter:
        """The meter of a new connection."""
        meter = Meter(self, RpcFrames() if self._frames else None)
        self._meters.add(meter)
        return meter

    def up(self, size: int) -> None:
        """Count bytes to the target."""
        self._bytes_up += size

    def down(self, size: int) -> None:
        """Count bytes from the target."""
        self._bytes_down += size
        self._silence.heard()

    def end(self, meter: Meter) -> None:
        """Forget a connection that has ended, and keep what it has counted."""
        if meter in self._meters:
            self._meters.discard(meter)
            if meter.frames is not None:
                self._messages += meter.frames.counts().messages
                self._trouble = meter.frames.trouble or self._trouble
                self._fault = self._fault or meter.frames.counts().fault

    def values(self, now: float) -> dict[str, Any]:
        """The fields of a `TunnelStatistics`."""
        counts = [each.frames.counts() for each in self._meters if each.frames is not None]
        since = [each.oldest_due_since for each in counts if each.oldest_due_since is not None]
        troubles = [each.trouble for each in counts if each.trouble is not None]
        faults = [each.fault for each in counts if each.fault is not None]
        return {
            "bytes_up": self._bytes_up,
            "bytes_down": self._bytes_down,
            "connections": len(self._meters),
            "connections_total": self.total,
            "messages": self._messages + sum(each.messages for each in counts)
            if self._frames
            else None,
            "oldest_reply_age": max(0.0, now - min(since)) if since else None,
            "trouble": troubles[0] if troubles else self._trouble,
            "fault": self._fault or (faults[0] if faults else None),
        }

    def news(self, now: float) -> dict[str, Any] | None:
        """The same; `None` if it is what was told last."""
        found = self.values(now)
        if found == self._told:
            return None
        self._told = found
        return found


class Meter:
    """Counts what one connection carries. Made by `Counting.begin`."""

    __slots__ = ("_counting", "frames")

    def __init__(self, counting: Counting, frames: RpcFrames | None) -> None:
        self._counting = counting
        self.frames = frames

    def up(self, data: bytes | memoryview, now: float) -> None:
        """Count what a program of this machine has sent."""
        self._counting.up(len(data))
        if self.frames is not None:
            self.frames.feed_up(data, now)

    def down(self, data: bytes | memoryview, now: float) -> None:
        """Count what came back."""
        self._counting.down(len(data))
        if self.frames is not None:
            self.frames.feed_down(data, now)

    def ended_there(self) -> None:
        """Note that the target has ended the connection, and the program here has not."""
        if self.frames is not None:
            self.frames.end_down()

    def close(self) -> None:
        """Note that the connection has ended."""
        self._counting.end(self)
