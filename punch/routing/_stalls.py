"""The stall watchdog: how long a peer's silence is still its usual way of speaking."""

from __future__ import annotations

import math
from collections.abc import Callable

# So many times the usual gap between two texts. Long enough for a page fault or another
# request's turn, short enough that a reader has not given up.
FACTOR = 20.0

# Below the floor it is our own machine, or the network, that hiccups. Past the ceiling nobody
# waits gladly, whatever the peer's habit.
FLOOR_SECONDS = 4.0
CEILING_SECONDS = 30.0

# A prediction that is off by more than this factor is no prediction: an answer that takes so many
# times as long for what has come of it is behind.
BEHIND_FACTOR = 4.0

# An answer that is behind, and that nobody else would do earlier, is looked at again when it has
# taken this share of its time more.
LOOK_AGAIN_SHARE = 0.5

# A caller with little time cannot wait as long as the floor: this share of what is left at the
# first text, and at least as long as the prompt of another request may take.
FLOOR_SHARE = 0.25
MIN_FLOOR_SECONDS = 2.0

# Smoothing of the gap and of its deviation, as TCP does for its time-out (RFC 6298, section 2).
GAP_WEIGHT = 0.125
DEVIATION_WEIGHT = 0.25

# A backend reads another request's prompt in pieces of this many tokens between two tokens of
# ours (llama-server's batch size).
PROMPT_PIECE_TOKENS = 2048


def floor_within(seconds: float) -> float:
    """Seconds of silence that are always usual where a caller has *seconds* left."""
    return min(FLOOR_SECONDS, max(MIN_FLOOR_SECONDS, FLOOR_SHARE * seconds))


class StallDetector:
    """When one answer's texts came, and so when the next is overdue.

    Args:
      now: When the first text came, in seconds of the router's clock.
      gap: Seconds between two texts that are predicted, where something is.
      prefill_rate: Prompt tokens per second of the peer, if it may read another request's
        prompt meanwhile.
      floor: Seconds of silence that are always usual.

    """

    def __init__(
        self,
        now: float,
        *,
        gap: float | None = None,
        prefill_rate: float | None = None,
        floor: float = FLOOR_SECONDS,
    ) -> None:
        self.heard_at = now
        self._floor = floor
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
        return self.heard_at + min(max(patience, self._floor), CEILING_SECONDS)


class Pace:
    """Whether an answer that has begun comes as fast as was predicted.

    Args:
      gap: Seconds between two tokens that are predicted.
      floor: Seconds that it may be behind whatever was predicted.
      held_up: Tells how many seconds may have gone by with the prompts of other requests, of which
        nothing was known when it was predicted.

    """

    def __init__(
        self, gap: float, floor: float, held_up: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._gap = gap
        self._floor = floor
        self._held_up = held_up
        self._looked_until = -math.inf

    def allowed(self, tokens: int) -> float:
        """Seconds that so many *tokens* may take from the first text on."""
        return self._floor + BEHIND_FACTOR * self._gap * tokens

    def is_behind(self, tokens: int, *, awaited: float) -> bool:
        """Whether an answer of so many *tokens* took too long with *awaited* seconds."""
        # Whoever is woken at that very moment must find it so.
        late = awaited - self.allowed(tokens) + 1e-6
        return late >= 0 and late >= self._held_up()

    def look_at(self, tokens: int, *, awaited: float, now: float) -> float:
        """When an answer of so many *tokens*, which took *awaited* seconds so far, is behind."""
        return max(now + self.allowed(tokens) - awaited, self._looked_until)

    def looked(self, now: float, *, awaited: float) -> float:
        """Nobody would do better; returns when to look again."""
        self._looked_until = now + max(MIN_FLOOR_SECONDS, LOOK_AGAIN_SHARE * awaited)
        return self._looked_until
