"""Bounds what strangers may try at the door: by host, in all, and at a time. No I/O.

A host that hangs takes a few of the places for those that are under way, so that others get in
beside it; and one that guesses at codes that do not exist is sent away for longer, since each guess
that meets a short code ends it.
"""

from __future__ import annotations

from collections import Counter, deque

from ..network import Stream, ip_of, site_of

# A person who mistypes a code, or a dozen machines of one household that join, stay below it. A
# try costs the member some tens of milliseconds.
MAX_TRIES_OF_HOST = 12
MAX_TRIES = 60
TRIES_SECONDS = 60.0

MAX_AT_ONCE = 32
MAX_AT_ONCE_OF_HOST = 6

# Of one host in an hour: far more than people mistype. Short codes have 9,999 numbers and count for
# an hour, so that a host which knows no number ends a given code once in some 300 hours.
MAX_MISSES_OF_HOST = 30
MISSES_SECONDS = 3600.0

# Hosts whose misses are counted; those of the oldest are forgotten first.
MAX_MISSED_HOSTS = 4096


def host_of(stream: Stream) -> str:
    """What stands for the machine or household at the other end, where tries are counted."""
    ip = ip_of(stream)
    return "" if ip is None else site_of(ip)


class Tries:
    """Counts the tries of the last minute, or of as many *seconds*."""

    def __init__(
        self,
        *,
        of_host: int = MAX_TRIES_OF_HOST,
        in_all: int = MAX_TRIES,
        seconds: float = TRIES_SECONDS,
        at_once: int = MAX_AT_ONCE,
        of_host_at_once: int = MAX_AT_ONCE_OF_HOST,
    ) -> None:
        self._of_host, self._in_all = of_host, in_all
        self._seconds, self._at_once = seconds, at_once
        self._of_host_at_once = of_host_at_once
        self._tries: deque[tuple[float, str]] = deque()
        self._under_way: Counter[str] = Counter()
        self._misses: dict[str, deque[float]] = {}

    def begin(self, host: str, *, now: float) -> bool:
        """Note a try of *host*, which `end` must follow; False if there were too many."""
        while self._tries and self._tries[0][0] < now - self._seconds:
            self._tries.popleft()
        of_host = sum(each == host for _, each in self._tries)
        if (
            self._under_way[host] >= self._of_host_at_once
            or self._under_way.total() >= self._at_once
            or of_host >= self._of_host
            or len(self._tries) >= self._in_all
            or self._missed(host, now) >= MAX_MISSES_OF_HOST
        ):
            return False
        self._tries.append((now, host))
        self._under_way[host] += 1
        return True

    def end(self, host: str) -> None:
        """Note that a try of *host* is over."""
        self._under_way[host] -= 1
        if not self._under_way[host]:
            del self._under_way[host]

    def missed(self, host: str, *, now: float) -> None:
        """Note that *host* has guessed wrong."""
        misses = self._misses.setdefault(host, deque(maxlen=MAX_MISSES_OF_HOST))
        misses.append(now)
        if len(self._misses) > MAX_MISSED_HOSTS:
            del self._misses[next(iter(self._misses))]

    def _missed(self, host: str, now: float) -> int:
        """How often *host* has guessed wrong lately."""
        misses = self._misses.get(host)
        while misses and misses[0] < now - MISSES_SECONDS:
            misses.popleft()
        if misses is not None and not misses:
            del self._misses[host]
        return len(misses or ())
