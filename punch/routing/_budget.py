"""A budget: what is done beyond the first try stays a share of what is done at all."""

from __future__ import annotations

# A fifth, with a few to spare for a dialer that asks seldom: what Finagle and Linkerd give
# their retries. A network in which every request fails sees a fifth more, not several times as
# much; one in which one peer of five died sees every request go on.
RETRY_SHARE = 0.2
RETRY_RESERVE = 10.0
RETRY_PER_SECOND = 1.0

# What a second peer beside one that is only late must leave in the budget of retries. On machines
# that are slow all are late, and took all of it: then a peer died, and nobody could go on.
LATE_LEAVES = 5.0

# A hedge is a request for nothing, nine times of ten; see "The Tail at Scale" (CACM 56:2, 2013),
# which allows them a twentieth.
HEDGE_SHARE = 0.05
HEDGE_RESERVE = 1.0


class Budget:
    """Tokens that first tries earn and further ones cost.

    Args:
      share: What one first try earns; a further one costs 1.
      reserve: What there is at the beginning, and what it may grow to beyond what was earned.
      per_second: What time alone earns, up to *reserve*.

    """

    def __init__(
        self,
        *,
        share: float = RETRY_SHARE,
        reserve: float = RETRY_RESERVE,
        per_second: float = RETRY_PER_SECOND,
    ) -> None:
        self._share = share
        self._reserve = reserve
        self._per_second = per_second
        self._tokens = reserve
        self._most = 10 * reserve
        self._at = 0.0

    def left(self, now: float) -> float:
        """How many further tries there are, at *now* in seconds of the router's clock."""
        if now > self._at:
            if self._tokens < self._reserve:
                earned = self._per_second * (now - self._at)
                self._tokens = min(self._reserve, self._tokens + earned)
            self._at = now
        return self._tokens

    def deposit(self, now: float) -> None:
        """A first try was made."""
        self._tokens = min(self._most, self.left(now) + self._share)

    def withdraw(self, now: float, *, leaving: float = 0.0) -> bool:
        """Pay for a further try; false if then less than *leaving* would be left."""
        if self.left(now) < 1.0 + leaving:
            return False
        self._tokens -= 1.0
        return True
