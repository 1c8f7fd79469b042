"""Keeps the log of a program for `punch logs`, whatever of it goes to standard error.

What is shown there follows the level that was set. What is kept has at least what is usual, so that
somebody who asks later finds more than the warnings.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._log_file import open_log_file
from ._ring import LogRing, open_log_ring

# Kept in any case.
KEPT_LEVEL = logging.INFO


class KeptLog:
    """The log of this process. Made by `open_kept_log`."""

    def __init__(self, ring: LogRing, shown: list[logging.Handler]) -> None:
        self.ring = ring
        """Its last lines."""
        self._shown = shown

    def set_level(self, level: str) -> None:
        """Show what is of *level* or above from now on, one of `punch.settings.LEVELS`."""
        number = logging.getLevelNamesMapping()[level.upper()]
        logging.getLogger("punch").setLevel(min(number, KEPT_LEVEL))
        for handler in self._shown:
            handler.setLevel(number)


@contextmanager
def open_kept_log(level: str, path: Path | None = None) -> Iterator[KeptLog]:
    """Keep the log of this process for as long as the context lasts.

    Args:
      level: Of what goes to standard error.
      path: A file that all of it goes to, in the place of standard error.

    Raises:
      ConfigurationError: if the file cannot be written.

    """
    root, ours = logging.getLogger(), logging.getLogger("punch")
    before, level_before = root.handlers[:], ours.level
    levels = [handler.level for handler in before]
    file = None if path is None else open_log_file(path)
    try:
        if file is not None:
            root.handlers[:] = [file]
        with open_log_ring() as ring:
            kept = KeptLog(ring, before if file is None else [])
            kept.set_level(level)
            yield kept
    finally:
        root.handlers[:] = before
        ours.setLevel(level_before)
        for handler, number in zip(before, levels, strict=True):
            handler.setLevel(number)
        if file is not None:
            file.close()
