"""Decides how long a lane rests after its backend crashed. No I/O, no clock.

A supervised engine says by itself that it restarts; this is for a backend that says nothing, such
as a server that punch did not start. A resting lane is not chosen while another can answer, and
still is where no other can: its backend may be back already.
"""

from __future__ import annotations

import math

# As long as a supervised engine is left down after a crash, see `punch.processes`.
FIRST_REST_SECONDS = 0.5
MAX_REST_SECONDS = 30.0


class Rest:
    """The rests of one lane, from what is reported to it."""

    def __init__(self) -> None:
        self._crashes_in_a_row = 0
        self._until = -math.inf

    def crashed(self, now: float) -> None:
        """The backend crashed at *now*, in seconds of any steady clock."""
        self._until = now + min(MAX_REST_SECONDS, FIRST_REST_SECONDS * 2.0**self._crashes_in_a_row)
        # Bounded: after ten the pause has long reached its maximum, and 2.0**1024 would overflow.
        self._crashes_in_a_row = min(self._crashes_in_a_row + 1, 10)

    def served(self) -> None:
        """The backend completed an answer."""
        self._crashes_in_a_row = 0
        self._until = -math.inf

    def is_on(self, now: float) -> bool:
        """Whether the lane rests at *now*."""
        return now < self._until
