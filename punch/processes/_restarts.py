"""When to start a crashed program again, and when to give up. No I/O, no clock.

* The n-th crash in a row is followed by a pause of 0.5 * 2**(n-1) seconds, at most 30.
* A run that answered a request, or was ready for 60 s, ends the row.
* Five crashes in a row are a crash loop: the program stays down.

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
        self._ready_since: float | None = None
        self._served = False

    def is_ready(self, now: float) -> None:
        """The program became ready at *now*, in seconds of any steady clock."""
        self._ready_since = now

    def served(self) -> None:
        """The program answered a request."""
        self._served = True
        self.in_a_row = 0

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
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self.in_a_row - 1))
