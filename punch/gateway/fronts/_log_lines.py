"""Brings the log of a front into that of the gateway's own process, where it is shown and kept."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from ..._logs import record_of, said_in
from ._link import Link
from ._messages import Line, Lines

# Lines that wait for the gateway; of more, the oldest are lost.
MAX_LINES = 1000


class LogLines(logging.Handler):
    """Sends the log of a front to the gateway, from whichever thread it comes."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._waiting: deque[Line] = deque(maxlen=MAX_LINES)
        self._token = trio.lowlevel.current_trio_token()
        self._guard = threading.Lock()
        self._is_woken = False

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line soon; never waits and never raises."""
        with self._guard:
            self._waiting.append(_line_of(record))
            if self._is_woken:
                return
            self._is_woken = True
        try:
            self._token.run_sync_soon(self.send)
        except trio.RunFinishedError:
            return

    def send(self) -> None:
        """Send what waits; in trio's thread."""
        with self._guard:
            lines = tuple(self._waiting)
            self._waiting.clear()
            self._is_woken = False
        if lines:
            self._link.send(Lines(lines=lines))


def _line_of(record: logging.LogRecord) -> Line:
    """*record* as plain values, and its traceback as text."""
    fields = said_in(record)
    problem = fields.pop("exc_info", None)
    if isinstance(problem, BaseException):
        problem = (type(problem), problem, problem.__traceback__)
    kind = trace = None
    if isinstance(problem, tuple) and problem[0] is not None:
        kind, trace = problem[0].__name__, logging.Formatter().formatException(problem)
    return Line(
        logger=record.name,
        level=record.levelno,
        created=record.created,
        fields={str(name): _plain(value) for name, value in fields.items()},
        kind=kind,
        trace=trace,
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return str(value)


@contextmanager
def log_lines_to(link: Link, level: str) -> Iterator[None]:
    """Send the log of this process to the gateway, for as long as the context lasts."""
    root, ours = logging.getLogger(), logging.getLogger("punch")
    before, level_before = root.handlers[:], ours.level
    handler = LogLines(link)
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours.setLevel(level.upper())
    try:
        yield
    finally:
        handler.send()
        root.handlers[:], ours.level = before, level_before


def write_lines(lines: Lines) -> None:
    """Write the log of a front to that of this process."""
    for line in lines.lines:
        logging.getLogger(line.logger).handle(_record_of(line))


def _record_of(line: Line) -> logging.LogRecord:
    # Its kind is all that a page is told of a fault, and so it needs to be one again.
    fault = None if line.kind is None else type(line.kind, (Exception,), {})(line.trace)
    said = {**line.fields} if fault is None else {**line.fields, "exc_info": fault}
    record = record_of(line.logger, line.level, said)
    record.created = line.created
    return record
