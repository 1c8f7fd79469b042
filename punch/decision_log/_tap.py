"""Hears the decision log inside the process, line by line, as the thread writes it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from ._entries import Entry

# Lines that wait for a subscriber: a second or two of a busy gateway. Whoever is slower than
# that gets the newest later, and is told how many it missed.
WAITING_LINES = 4096


@attrs.frozen(kw_only=True)
class TappedLine:
    """One line, both as the value it was made of and as the bytes that are in the file."""

    entry: Entry
    """What it says."""

    time: float
    """When, in seconds since 1970."""

    line: bytes
    """The JSON object, with the end of the line."""


class Tap:
    """One subscription to a decision log. Made by `DecisionLog.subscribe`.

    The log's thread puts lines in and never waits; a trio task takes them out, many at a time:
    however many there are, trio is woken once for them.
    """

    def __init__(self, *, limit: int = WAITING_LINES) -> None:
        self._limit = limit
        self._token = trio.lowlevel.current_trio_token()
        # Shared with the log's thread, and only touched under the lock.
        self._lock = threading.Lock()
        self._lines: deque[TappedLine] = deque()
        self._dropped = 0
        self._woken = False
        self._news = trio.Event()

    @property
    def dropped(self) -> int:
        """Lines that this subscriber was too slow for."""
        with self._lock:
            return self._dropped

    async def receive(self) -> list[TappedLine]:
        """Every line since the last call, at least one; waits for it."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            with self._lock:
                lines = list(self._lines)
                self._lines.clear()
                self._woken = False
            if lines:
                return lines

    def put(self, line: TappedLine) -> None:
        """Hand over a line; called by the log's thread, never waits and never raises."""
        with self._lock:
            if len(self._lines) >= self._limit:
                self._dropped += 1
                return
            self._lines.append(line)
            if self._woken:
                return
            self._woken = True
        try:
            self._token.run_sync_soon(self._wake)
        except trio.RunFinishedError:
            # Nobody is left to hear it; whoever subscribed went with the run.
            return

    def _wake(self) -> None:
        self._news.set()


class Taps:
    """Everybody who hears one log. Changed by trio tasks, read by the log's thread."""

    def __init__(self) -> None:
        # Replaced whole and never edited: the thread needs no lock to walk through it.
        self._taps: tuple[Tap, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._taps)

    @contextmanager
    def open(self, limit: int) -> Iterator[Tap]:
        """A tap that hears what comes, for as long as the context lasts."""
        tap = Tap(limit=limit)
        self._taps = (*self._taps, tap)
        try:
            yield tap
        finally:
            self._taps = tuple(other for other in self._taps if other is not tap)

    def put(self, make: Callable[[], TappedLine]) -> None:
        """Hand a line to everybody; it is not even made if nobody is there."""
        if taps := self._taps:
            line = make()
            for tap in taps:
                tap.put(line)
