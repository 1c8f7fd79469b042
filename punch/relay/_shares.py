"""Decides how fast each peer's circuits through a relay may go. No clock: *now* is in seconds.

All circuits together have so many bytes a second. Each peer that has some under way has the same
part for all of its circuits, both ways.
"""

from __future__ import annotations

from collections.abc import Hashable


class Shares:
    """The shares of all who have circuits.

    Args:
      rate: Bytes a second, both ways of all circuits together.

    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        # Until when what each has moved takes, at the share that it had; of those that are behind.
        self._until: dict[Hashable, float] = {}

    def pause(self, owner: Hashable, size: int, *, now: float) -> float:
        """Seconds that a circuit of *owner* waits after it has moved *size* bytes."""
        # Who says little is done with it at once, and takes nothing of what others have.
        behind = {each: until for each, until in self._until.items() if until > now}
        began = behind.pop(owner, now)
        behind[owner] = began + size * (1 + len(behind)) / self._rate
        self._until = behind
        return behind[owner] - now
