"""When to start a crashed program again, and when to give up. No I/O, no clock.

* The n-th crash in a row is followed by a pause of 0.5 * 2**(n-1) seconds, at most 30.
* A run that answered a request, or was ready for 60 s, ends the row.
* Five crashes in a row are a crash loop: the program stays down.
* A program that was killed since it was stuck was made so by a request. It gets the same
  pauses, and is never given up: else anybody could take it away with five requests.

Counting runs, not crashes within a minute, also finds the loop of a program that takes
minutes to load its model.
"""

from __future__ import annotations

# Fast enough that a dialer's retry finds the program back, slow enough not to fill a disk
# with core files: systemd's RestartSec is 0.1 s, Kubernetes' first back-off 10 s.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
CRASHES_IN_A_ROW = 5
HEALTHY_SECONDS = 60.0


class Restarts:
    """Decides for one program, from what is reported to it."""

    def __init__(self) -> None:
        self.in_a_row = 0
        """Crashes since a run that was of use."""
        self._kills_in_a_row = 0
        self._ready_since: float | None = None
        self._served = False

    def is_ready(self, now: float) -> None:
        """The program became ready at *now*, in seconds of any steady clock."""
        self._ready_since = now

    def served(self) -> None:
        """The program answered a request."""
        self._served = True
        self.in_a_row = 0
        self._kills_in_a_row = 0

    def killed(self) -> float:
        """Seconds to wait before the next start of a program that we have killed."""
        self._served = False
        self._ready_since = None
        self._kills_in_a_row += 1
        return _pause(self._kills_in_a_row)

    def crashed(self, now: float) -> float | None:
        """Seconds to wait before the next start, or `None` to give up."""
        healthy = self._ready_since is not None and now - self._ready_since >= HEALTHY_SECONDS
        if self._served or healthy:
            self.in_a_row = 0
        self._served = False
        self._ready_since = None
        self.in_a_row += 1
        if self.in_a_row >= CRASHES_IN_A_ROW:
            return None
        return _pause(self.in_a_row)


def _pause(number: int) -> float:
    # Beyond the tenth the power says nothing more, and would overflow at last.
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(number - 1, 10))
