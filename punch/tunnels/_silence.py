"""For how long nothing was heard of the other side, as far as this one could hear. No I/O."""

from __future__ import annotations


class Silence:
    """Counts the seconds in which the other side could have been heard, and was not.

    A process that is stopped or starved hears nobody: of a look that is late, no more counts than
    of one that is not.

    Args:
      now: Seconds on any clock.
      step: Seconds between two looks; of a later one twice that counts at most.

    """

    def __init__(self, now: float, *, step: float) -> None:
        self._looked_at = now
        self._longest = 2 * step
        self._was_heard = False
        self._seconds = 0.0

    def heard(self) -> None:
        """Note that something came."""
        self._was_heard = True

    def look(self, now: float) -> float:
        """Seconds of silence until *now*."""
        passed, self._looked_at = min(now - self._looked_at, self._longest), now
        self._seconds = 0.0 if self._was_heard else self._seconds + passed
        self._was_heard = False
        return self._seconds
