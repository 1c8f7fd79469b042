"""Keeps the last lines of the log of this process, for `punch logs`, and tells of new ones.

A line is what went to the log, as plain data that is bounded: of an exception only its kind.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from ..._log_events import line_of

# As much as somebody reads; at a few hundred bytes a line, less than a megabyte.
MAX_LINES = 2000


class LogRing(logging.Handler):
    """The last lines of the log. Made by `open_log_ring`.

    Args:
      most: Lines that are kept.

    """

    def __init__(self, most: int = MAX_LINES) -> None:
        super().__init__()
        self._lines: deque[dict[str, Any]] = deque(maxlen=most)
        self._written = 0
        self._guard = threading.Lock()
        self._token = trio.lowlevel.current_trio_token()
        self._news = trio.Event()

    @property
    def written(self) -> int:
        """Lines that were written so far, those that are no longer kept included."""
        return self._written

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; from any thread, never waits and never raises."""
        try:
            line = line_of(record)
        except Exception:  # noqa: BLE001 - a value that cannot be shown must not end what logged it
            self.handleError(record)
            return
        with self._guard:
            self._lines.append(line)
            self._written += 1
        try:
            self._token.run_sync_soon(self._wake, idempotent=True)
        except trio.RunFinishedError:
            return

    def since(self, number: int) -> tuple[int, list[dict[str, Any]]]:
        """What is kept of the lines after the first *number*; and how many were lost of them."""
        with self._guard:
            missing = self._written - number
            kept = list(self._lines)[-missing:] if missing > 0 else []
            return max(0, missing - len(kept)), kept

    async def wait(self, number: int) -> None:
        """Wait until more than *number* lines were written."""
        while self._written <= number:
            await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


@contextmanager
def open_log_ring() -> Iterator[LogRing]:
    """Keep what any logger says that reaches the root, for as long as the context lasts."""
    ring = LogRing()
    root = logging.getLogger()
    root.addHandler(ring)
    try:
        yield ring
    finally:
        root.removeHandler(ring)
