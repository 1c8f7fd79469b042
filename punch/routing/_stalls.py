"""The stall watchdog: how long a peer's silence is still its usual way of speaking."""

from __future__ import annotations

# So many times the usual gap between two texts. Long enough for a page fault or another
# request's turn, short enough that a reader has not given up.
FACTOR = 20.0

# Below the floor it is our own machine, or the network, that hiccups. Past the ceiling nobody
# waits gladly, whatever the peer's habit.
FLOOR_SECONDS = 4.0
CEILING_SECONDS = 30.0

# Smoothing of the gap and of its deviation, as TCP does for its time-out (RFC 6298, section 2).
GAP_WEIGHT = 0.125
DEVIATION_WEIGHT = 0.25

# A backend reads another request's prompt in pieces of this many tokens between two tokens of
# ours (llama-server's batch size).
PROMPT_PIECE_TOKENS = 2048


class StallDetector:
    """When one answer's texts came, and so when the next is overdue.

    Args:
      now: When the first text came, in seconds of the router's clock.
      gap: Seconds between two texts that are predicted, where something is.
      prefill_rate: Prompt tokens per second of the peer, if it may read another request's
        prompt meanwhile.

    """

    def __init__(
        self, now: float, *, gap: float | None = None, prefill_rate: float | None = None
    ) -> None:
        self.heard_at = now
        self._gap = gap
        self._deviation = 0.0
        self._allowance = PROMPT_PIECE_TOKENS / prefill_rate if prefill_rate else 0.0

    def heard(self, now: float) -> None:
        """Take the time of the next text."""
        gap, self.heard_at = now - self.heard_at, now
        if self._gap is None:
            self._gap = gap
            return
        self._deviation += DEVIATION_WEIGHT * (abs(gap - self._gap) - self._deviation)
        self._gap += GAP_WEIGHT * (gap - self._gap)

    @property
    def usual_gap(self) -> float | None:
        """Seconds between two texts; `None` before the second, where nothing is predicted."""
        return self._gap

    @property
    def overdue_at(self) -> float:
        """When silence is no longer usual, in seconds of the router's clock."""
        if self._gap is None:
            return self.heard_at + CEILING_SECONDS
        patience = FACTOR * (self._gap + self._deviation) + self._allowance
        return self.heard_at + min(max(patience, FLOOR_SECONDS), CEILING_SECONDS)
