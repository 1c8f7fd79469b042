"""Configures logging for programs: to standard error, readable on a terminal, JSON elsewhere."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from .._logs import said_in
from ._output import plain


def configure_logging(level: str, *, as_json: bool | None = None) -> None:
    """Send the logs of punch to standard error.

    Args:
      level: One of `punch.settings.LEVELS`.
      as_json: One JSON object a line; by default if standard error is not a terminal.

    """
    if as_json is None:
        as_json = not sys.stderr.isatty()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log_formatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("punch").setLevel(level.upper())


def log_formatter(*, as_json: bool) -> logging.Formatter:
    """Makes lines of the log: JSON, or readable on a terminal."""
    if as_json:
        return _LineFormatter(json.JSONEncoder(ensure_ascii=False, default=repr).encode)
    render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return _LineFormatter(lambda said: str(render(None, "", said)))


class _LineFormatter(logging.Formatter):
    """Makes the fields of a record's line, which *spell* makes the line of."""

    def __init__(self, spell: Callable[[structlog.typing.EventDict], str]) -> None:
        super().__init__()
        self._spell = spell

    def format(self, record: logging.LogRecord) -> str:
        """The line; on a terminal with the traceback of what it is about, if there is one."""
        said: structlog.typing.EventDict = said_in(record)
        # Ours are constants, but a library puts a peer's words into its own, and `punch up` its
        # news: what a terminal would obey is taken out.
        said["event"] = plain(str(said.get("event", "")))
        said["level"], said["logger"] = record.levelname.lower(), record.name
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        said["timestamp"] = at.replace("+00:00", "Z")
        if "exc_info" in said:
            said = structlog.processors.format_exc_info(None, "", said)
        return self._spell(said)
