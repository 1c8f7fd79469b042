"""Counts how much each claimant was served lately. No I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Hashable

# What was served a minute ago counts half. Longer than a burst of questions, short enough that a
# night's batch does not make its claimant wait all morning.
HALF_LIFE_SECONDS = 60.0

# After so many half-lives the counters start again from small numbers, long before a float is full.
MAX_HALVINGS = 40.0

# Claimants that the table remembers. The least served are forgotten first: the order changes least.
MAX_CLAIMANTS = 1024


class Fairness:
    """Tokens that each claimant was served lately: what was served long ago counts less and less.

    The idea is the counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI
    2024), with decay in place of its lift for newcomers.
    """

    def __init__(self) -> None:
        self._weighed: dict[Hashable, float] = {}
        self._since = -math.inf

    def weight(self, now: float) -> float:
        """The weight of a token served at *now*; it grows, so that no old count must shrink."""
        halvings = (now - self._since) / HALF_LIFE_SECONDS
        if halvings > MAX_HALVINGS:
            self._rebase(now, halvings)
            return 1.0
        return float(2.0**halvings)

    def weighed(self, claimant: Hashable) -> float:
        """Weighted tokens that *claimant* was served; compares with other claimants only."""
        return self._weighed.get(claimant, 0.0)

    def served(self, claimant: Hashable, now: float) -> float:
        """Tokens that *claimant* was served lately."""
        weight = self.weight(now)
        return self.weighed(claimant) / weight

    def add(self, claimant: Hashable, tokens: float, now: float) -> None:
        """Count *tokens* served at *now*; negative ones take back what was charged too much."""
        weight = self.weight(now)
        self._weighed[claimant] = max(0.0, self.weighed(claimant) + tokens * weight)
        if len(self._weighed) > MAX_CLAIMANTS:
            del self._weighed[min(self._weighed, key=self.weighed)]

    def _rebase(self, now: float, halvings: float) -> None:
        self._since = now
        factor = 0.5**halvings
        shrunk = {claimant: value * factor for claimant, value in self._weighed.items()}
        self._weighed = {claimant: value for claimant, value in shrunk.items() if value >= 1.0}

    def __len__(self) -> int:
        return len(self._weighed)
