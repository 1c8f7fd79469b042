"""Decides how fast each circuit of a relay may go. No clock: *now* is in seconds.

All circuits together have so many bytes a second; each that has moved lately has the same part.
"""

from __future__ import annotations

from collections.abc import Hashable

# A circuit that moved nothing for so long has no part until it does.
IDLE_SECONDS = 1.0


class Shares:
    """The shares of all circuits.

    Args:
      rate: Bytes a second, both ways of all circuits together.

    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._moved: dict[Hashable, float] = {}

    def pause(self, circuit: Hashable, size: int, *, now: float) -> float:
        """Seconds that *circuit* waits after it has moved *size* bytes."""
        self._moved[circuit] = now
        active = sum(now - moved <= IDLE_SECONDS for moved in self._moved.values())
        return size * active / self._rate

    def forget(self, circuit: Hashable) -> None:
        """Note that a circuit has ended."""
        self._moved.pop(circuit, None)
