"""Decides when to start a crashed program again, and when to give up. No I/O, no clock.

* The n-th crash in a row is followed by a pause of 0.5 * 2**(n-1) seconds, at most 30.
* A run that answered a request, or was ready for 60 s, ends the row.
* Five crashes in a row are a crash loop: the program is down, and is tried again after a minute,
  then two, at last every ten minutes: what it dies of, such as a full GPU, may pass.
* A program that was killed because it was stuck was made so by a request. It gets the same
  pauses and is in no loop: else five requests of a stranger could take it for a minute.

Counting runs, not crashes within a minute, also finds the loop of a program that takes
minutes to load its model.
"""

from __future__ import annotations

# Fast enough that a dialer's retry finds the program back, slow enough not to fill a disk
# with core files: systemd's RestartSec is 0.1 s, Kubernetes' first back-off 10 s.
MIN_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
MAX_CRASHES_IN_A_ROW = 5
HEALTHY_SECONDS = 60.0

# In a crash loop: a program of a hundred gigabytes reads them from the disk each time.
MIN_LOOP_PAUSE_SECONDS = 60.0
MAX_LOOP_PAUSE_SECONDS = 600.0


class Restarts:
    """Decides for one program, from what is reported of it."""

    def __init__(self) -> None:
        self.in_a_row = 0
        """Crashes since a run that answered a request or was ready for `HEALTHY_SECONDS`."""
        self._kills_in_a_row = 0
        self._ready_since: float | None = None
        self._served = False

    @property
    def is_loop(self) -> bool:
        """Whether the program is down: it has crashed too often in a row."""
        return self.in_a_row >= MAX_CRASHES_IN_A_ROW

    def is_ready(self, now: float) -> None:
        """Report that the program became ready at *now*, in seconds of any steady clock."""
        self._ready_since = now

    def served(self) -> None:
        """Report that the program answered a request."""
        self._served = True
        self.in_a_row = 0
        self._kills_in_a_row = 0

    def killed(self) -> float:
        """Report that we killed the program; the seconds to wait before its next start."""
        self._served = False
        self._ready_since = None
        self._kills_in_a_row += 1
        return _pause(self._kills_in_a_row)

    def crashed(self, now: float) -> float:
        """Report a crash at *now*; the seconds to wait before the next start."""
        healthy = self._ready_since is not None and now - self._ready_since >= HEALTHY_SECONDS
        if self._served or healthy:
            self.in_a_row = 0
        self._served = False
        self._ready_since = None
        self.in_a_row += 1
        if self.is_loop:
            doubled = MIN_LOOP_PAUSE_SECONDS * 2.0 ** min(self.in_a_row - MAX_CRASHES_IN_A_ROW, 10)
            return min(MAX_LOOP_PAUSE_SECONDS, doubled)
        return _pause(self.in_a_row)


def _pause(number: int) -> float:
    # From the tenth on the limit holds anyway, and the power would overflow at last.
    return min(MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS * 2.0 ** min(number - 1, 10))
