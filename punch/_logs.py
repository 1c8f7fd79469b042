"""Loggers for the rest of punch.

They are structlog loggers on top of the standard library's, with the standard library's levels
and handlers: a program that imports punch sees warnings on standard error and nothing more,
until it configures logging, as `punch.cli` does.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; pass it ``__name__``."""
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.wrap_logger(
            logging.getLogger(name),
            # What a line is besides its words, such as its moment, the record of it has.
            processors=[structlog.stdlib.filter_by_level, _as_message],
            wrapper_class=structlog.stdlib.BoundLogger,
            # Nothing of it is configured elsewhere, so that it need not be put together each time.
            cache_logger_on_first_use=True,
        ),
    )


def _as_message(
    logger: object, method: str, event: structlog.typing.EventDict
) -> tuple[tuple[object, ...], dict[str, Any]]:
    """Hand the line to the standard library as it is; `said_in` reads it there."""
    del logger, method
    return (event,), {}


def record_of(name: str, level: int, said: dict[str, Any]) -> logging.LogRecord:
    """A line of the logger *name*, for many lines: without where in the code it was made.

    To find that out takes longer than the line does otherwise.
    """
    return logging.LogRecord(name, level, "", 0, said, None, None)


def said_in(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says: its ``event``, its fields, and ``exc_info`` if it is about an exception."""
    # Our loggers hand over what was said as it is, and all others a text.
    said = dict(record.msg) if isinstance(record.msg, dict) else {"event": record.getMessage()}
    if record.exc_info:
        said["exc_info"] = record.exc_info
    elif said.get("exc_info") is True:
        # The exception that is being handled: handlers are called where the line is written.
        said["exc_info"] = sys.exc_info()
    return said
