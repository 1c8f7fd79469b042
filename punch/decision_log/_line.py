"""Publishes the lines of the decision log, which are made in a thread, from trio's thread."""

from __future__ import annotations

import threading
from collections import deque

import attrs
import trio

from ..events import Bus, Event
from ._entries import Decided, Entry
from ._reader import read_line

# Lines that wait for trio's thread, which takes all of them at once unless it is very busy.
WAITING_LINES = 4096


@attrs.frozen(kw_only=True)
class LineMade(Event):
    """The decision log has a new line: the entry, and the bytes in the file."""

    entry: Entry
    """The entry."""

    time: float
    """When that happened, in seconds since 1970."""

    line: bytes
    """The JSON object, with the end of the line."""

    missed: int = 0
    """Lines just before this one that came too fast to be published."""

    is_short: bool = False
    """The entry of a decision is without the peers that were weighed: see `short`."""

    @property
    def whole(self) -> Entry:
        """The entry with all that it says."""
        return read_line(self.line).entry if self.is_short else self.entry

    def short(self) -> LineMade:
        """The same, with less to send to another process: the line says it once more."""
        if not isinstance(self.entry, Decided):
            return self
        return attrs.evolve(self, entry=attrs.evolve(self.entry, weighed=()), is_short=True)


class LinePublisher:
    """Takes lines in the log's thread and publishes them in trio's, many at a time."""

    def __init__(self, events: Bus) -> None:
        self._events = events
        self._token = trio.lowlevel.current_trio_token()
        # Shared by both threads, and only touched under the lock.
        self._lock = threading.Lock()
        self._lines: deque[LineMade] = deque()
        self._missed = 0
        self._is_woken = False

    def publish(self, line: LineMade) -> None:
        """Hand *line* over; called by the log's thread, never waits and never raises."""
        if not self._events.wants(LineMade):
            return
        with self._lock:
            if len(self._lines) >= WAITING_LINES:
                self._missed += 1
                return
            if self._missed:
                line, self._missed = attrs.evolve(line, missed=self._missed), 0
            self._lines.append(line)
            if self._is_woken:
                return
            self._is_woken = True
        try:
            self._token.run_sync_soon(self._deliver)
        except trio.RunFinishedError:
            # Trio's run has ended, and all subscribers with it.
            return

    def _deliver(self) -> None:
        with self._lock:
            lines = list(self._lines)
            self._lines.clear()
            self._is_woken = False
        for line in lines:
            self._events.publish(line)
