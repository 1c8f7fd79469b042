"""The place where one peer's text ends and the next one's begins."""

from __future__ import annotations

from collections.abc import Sequence


class StopAcrossPeers:
    """Finds the stop sequences that began before the seam and end after it.

    Neither peer can: the first had delivered the beginning when it died, the second looks at
    what it makes itself. Text is held back only while it may still be the rest of a stop.

    Args:
      delivered: The text before the seam.
      stops: The stop sequences of the request.

    """

    def __init__(self, delivered: str, stops: Sequence[str]) -> None:
        self._rests = {
            stop[length:]: stop
            for stop in stops
            for length in range(1, len(stop))
            if delivered.endswith(stop[:length])
        }
        self._held = ""
        self.found: str | None = None
        """The stop that was completed: nothing after the seam belongs to the answer."""

    @property
    def stopped(self) -> bool:
        """True once a stop was completed."""
        return self.found is not None

    def take(self, text: str) -> str:
        """The part of *text*, and of what was held back, that can be delivered now."""
        if not self._rests:
            return text
        held = self._held + text
        for rest, stop in self._rests.items():
            if held.startswith(rest):
                self.found, self._held = stop, ""
                return ""
        self._rests = {rest: stop for rest, stop in self._rests.items() if rest.startswith(held)}
        if self._rests:
            self._held = held
            return ""
        self._held = ""
        return held

    def rest(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held, self._rests = self._held, "", {}
        return held
