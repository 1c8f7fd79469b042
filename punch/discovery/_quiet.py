"""Decides how often a trouble that lasts is told: once, then at doubling intervals, then its end.

No clock and no log of its own: the time is an argument, in seconds, and the caller tells.
"""

from __future__ import annotations

# The second time a trouble is told, after this long; a program that starts before its bootstrap
# has said it once by then.
FIRST_SECONDS = 10.0

# A trouble of a week is told seven times a day, so that the end of a log always shows it.
MAX_SECONDS = 4 * 3600.0


class Lasting:
    """A trouble that comes and goes."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._next = 0.0
        self._interval = FIRST_SECONDS

    def goes_on(self, now: float) -> bool:
        """Note that the trouble is there; True if that is to be told now."""
        if self._since is None:
            self._since, self._interval = now, FIRST_SECONDS
        elif now < self._next:
            return False
        else:
            self._interval = min(2 * self._interval, MAX_SECONDS)
        self._next = now + self._interval
        return True

    def ended(self, now: float) -> float | None:
        """Note that the trouble is over; the seconds that it took, `None` if there was none."""
        since, self._since = self._since, None
        return None if since is None else now - since
