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
    """Counts the tries of the last minute, or of as many *seconds*."""

    def __init__(
        self,
        *,
        of_host: int = MAX_TRIES_OF_HOST,
        in_all: int = MAX_TRIES,
        seconds: float = TRIES_SECONDS,
        at_once: int = MAX_AT_ONCE,
    ) -> None:
        self._of_host, self._in_all = of_host, in_all
        self._seconds, self._at_once = seconds, at_once
        self._tries: deque[tuple[float, str]] = deque()
        self._under_way = 0

    def begin(self, host: str, *, now: float) -> bool:
        """Note a try of *host*; False if there were too many."""
        while self._tries and self._tries[0][0] < now - self._seconds:
            self._tries.popleft()
        of_host = sum(each == host for _, each in self._tries)
        if (
            self._under_way >= self._at_once
            or of_host >= self._of_host
            or len(self._tries) >= self._in_all
        ):
            return False
        self._tries.append((now, host))
        self._under_way += 1
        return True

    def end(self) -> None:
        """Note that a try is over."""
        self._under_way -= 1
