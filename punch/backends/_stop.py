"""Finds stop sequences in text that comes in pieces, and holds back what may be one. No I/O.

For the engines that know no stop sequences, or whose own search cannot be trusted. One that
begins in what another peer delivered is found by the dialer instead.

* The answer ends before the first place where any of the sequences occurs.
* Where two begin at the same place it makes no difference which one it is.
* Text that might be the beginning of a sequence is held back until it is certain.
"""

from __future__ import annotations

from collections.abc import Sequence


def partial_suffix(text: str, targets: Sequence[str]) -> int:
    """Length of the longest end of *text* that a target begins with, and does not end with."""
    longest = max((len(target) for target in targets), default=0)
    for length in range(min(len(text), longest - 1), 0, -1):
        end = text[-length:]
        if any(len(target) > length and target.startswith(end) for target in targets):
            return length
    return 0


class StopMatcher:
    """Lets text through until one of *stops* appears in it.

    Args:
      stops: The sequences; empty ones are ignored.

    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found: str | None = None
        """The sequence that was found."""

    @property
    def stopped(self) -> bool:
        """True once a stop sequence was found; nothing comes out any more."""
        return self.found is not None

    def feed(self, text: str) -> str:
        """The part of the text so far that can be delivered now."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        whole = self._held + text
        places = [(place, stop) for stop in self._stops if (place := whole.find(stop)) >= 0]
        # A sequence that begins earlier may still be on its way: "abc" waits while "b" is here.
        held = partial_suffix(whole, self._stops)
        if places and min(places)[0] <= len(whole) - held:
            place, self.found = min(places)
            self._held = ""
            return whole[:place]
        self._held = whole[len(whole) - held :]
        return whole[: len(whole) - held]

    def finish(self) -> str:
        """The text held back, now that there is no more to come."""
        if self.stopped:
            return ""
        places = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        end = len(self._held)
        if places:
            end, self.found = min(places)
        held, self._held = self._held[:end], ""
        return held
