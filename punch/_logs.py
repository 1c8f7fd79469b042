"""Loggers for the rest of punch.

They are structlog loggers on top of the standard library's, with the standard library's levels
and handlers: a program that imports punch sees warnings on standard error and nothing more,
until it configures logging, as `punch.cli` does.
"""

from __future__ import annotations

import logging
from typing import cast

import structlog


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; pass it ``__name__``."""
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            # Nothing of it is configured elsewhere, so that it need not be put together each time.
            cache_logger_on_first_use=True,
        ),
    )
