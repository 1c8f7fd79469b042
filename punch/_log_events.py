"""Publishes the log of this process as events: bounded, and without tracebacks."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import trio

from ._logs import said_in
from .events import Bus, Logged

# Lines that wait for trio, which takes them at once unless it is very busy.
WAITING_LINES = 500

# What one line may hold; longer values are cut.
MOST_FIELDS = 24
LONGEST_VALUE = 300


class LogPublisher(logging.Handler):
    """Publishes every record in trio's thread, from whichever thread it comes."""

    def __init__(self, events: Bus) -> None:
        super().__init__()
        self._events = events
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._guard = threading.Lock()
        self._waiting: deque[dict[str, Any]] = deque(maxlen=WAITING_LINES)
        self._woken = False

    def emit(self, record: logging.LogRecord) -> None:
        """Publish a record; never waits and never raises."""
        if not self._events.wants(Logged):
            return
        try:
            line = line_of(record)
            if threading.get_ident() == self._thread:
                self._publish(line)
                return
        except Exception:  # noqa: BLE001 - a value that cannot be shown must not end what logged it
            self.handleError(record)
            return
        with self._guard:
            self._waiting.append(line)
            if self._woken:
                return
            self._woken = True
        try:
            self._token.run_sync_soon(self._deliver)
        except trio.RunFinishedError:
            return

    def _publish(self, line: dict[str, Any]) -> None:
        self._events.publish(Logged(at=trio.current_time(), line=line))

    def _deliver(self) -> None:
        with self._guard:
            lines = list(self._waiting)
            self._waiting.clear()
            self._woken = False
        for line in lines:
            self._publish(line)


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    """A record as plain data.

    Of an exception only its kind is told: its text may repeat what a caller asked.
    """
    said = said_in(record)
    event, problem = said.pop("event", ""), said.pop("exc_info", None)
    if problem is not None and (kind := _kind_of(problem)) is not None:
        said = {"exception": kind} | said
    fields = {
        str(name): text if len(text := str(value)) <= LONGEST_VALUE else _cut(text)
        for name, value in islice(said.items(), MOST_FIELDS)
    }
    return {
        "time": round(record.created, 3),
        "level": record.levelname.lower(),
        "logger": record.name[:LONGEST_VALUE],
        "event": _cut(str(event)),
        "fields": fields,
    }


def _kind_of(problem: object) -> str | None:
    if isinstance(problem, BaseException):
        return type(problem).__name__
    if isinstance(problem, tuple) and problem and isinstance(problem[0], type):
        return problem[0].__name__
    return None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


@contextmanager
def open_log_events(events: Bus) -> Iterator[None]:
    """Publish what any logger says that reaches the root, for as long as the context lasts."""
    handler = LogPublisher(events)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
