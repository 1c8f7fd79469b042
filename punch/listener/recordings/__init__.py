"""Answers while they are made and after: their readers, and those that are kept."""

from ._reader import MAX_SECONDS, Reader
from ._recording import GRACE_SECONDS, Recording, key_of
from ._recordings import (
    KEPT_ANSWERS,
    KEPT_BYTES,
    KEPT_SECONDS,
    Recordings,
    RecordingStatistics,
)

__all__ = [
    # while it is made
    "Recording",
    "Reader",
    "key_of",
    "GRACE_SECONDS",
    "MAX_SECONDS",
    # afterwards
    "Recordings",
    "RecordingStatistics",
    "KEPT_ANSWERS",
    "KEPT_BYTES",
    "KEPT_SECONDS",
]
