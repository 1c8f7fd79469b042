"""Writes the log of a program that has no terminal to a file, and begins anew before it is too big.

The file and the one before it are this user's alone, and hold JSON lines as standard error does.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
from io import TextIOWrapper
from pathlib import Path

from ...exceptions import ConfigurationError
from .._logs import log_formatter

# Of one file: a few weeks of a home's log. With the two before it, at most three times that.
MAX_LOG_BYTES = 4 << 20
OLDER_FILES = 2

# What is read of the end of a file, to show its last lines.
MAX_TAIL_BYTES = 1 << 20


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A file for this user alone, whatever the umask is."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = os.fdopen(os.open(self.baseFilename, flags, 0o600), "ab", buffering=0)
        return TextIOWrapper(file, "utf-8", "replace", write_through=True)


def open_log_file(path: Path) -> logging.Handler:
    """A handler that writes to *path*, in the form of the handlers of this program.

    Raises:
      ConfigurationError: if it cannot be written.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = _PrivateFile(path, maxBytes=MAX_LOG_BYTES, backupCount=OLDER_FILES)
    except OSError as error:
        raise ConfigurationError(
            f"the log {path} cannot be written: {error.strerror}; name another file with --log-file"
        ) from None
    handler.setFormatter(log_formatter(as_json=True))
    return handler


def last_lines(path: Path, count: int) -> list[str]:
    """The last *count* lines of the log *path*; none if it is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_TAIL_BYTES))
            data = file.read(MAX_TAIL_BYTES)
    except OSError:
        return []
    lines = data.decode("utf-8", "replace").splitlines()
    if size > MAX_TAIL_BYTES:
        # Where the reading began, there is half a line.
        del lines[:1]
    return lines[-count:] if count else []
