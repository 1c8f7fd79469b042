"""Bounds what strangers may try at the door: by host, in all, and at a time. No I/O."""

from __future__ import annotations

from collections import deque

# A person who mistypes a code, or a dozen machines of one household that join, stay below it. A
# try costs the member some tens of milliseconds.
MAX_TRIES_OF_HOST = 12
MAX_TRIES = 60
TRIES_SECONDS = 60.0

MAX_AT_ONCE = 8


class Tries:
    """Counts the tries of the last minute."""

    def __init__(self) -> None:
        self._tries: deque[tuple[float, str]] = deque()
        self._under_way = 0

    def begin(self, host: str, *, now: float) -> bool:
        """Note a try of *host*; False if there were too many."""
        while self._tries and self._tries[0][0] < now - TRIES_SECONDS:
            self._tries.popleft()
        of_host = sum(each == host for _, each in self._tries)
        if (
            self._under_way >= MAX_AT_ONCE
            or of_host >= MAX_TRIES_OF_HOST
            or len(self._tries) >= MAX_TRIES
        ):
            return False
        self._tries.append((now, host))
        self._under_way += 1
        return True

    def end(self) -> None:
        """Note that a try is over."""
        self._under_way -= 1
