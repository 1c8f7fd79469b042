"""Configures logging for programs: to standard error, readable on a terminal, JSON elsewhere."""

from __future__ import annotations

import logging
import sys

import structlog

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
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _make_plain,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )


def _make_plain(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Take out of the event what a terminal would obey.

    Ours are constants, but a library puts a peer's words into its own, and `punch up` its news.
    """
    del logger, method
    event["event"] = plain(str(event.get("event", "")))
    return event
