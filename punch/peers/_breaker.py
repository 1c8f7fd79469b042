"""Whether a peer that failed may be asked again: a breaker, as a value."""

from __future__ import annotations

from typing import Literal

import attrs

# A peer that failed is left alone for a second, then two, four, ... up to half a minute, which
# is about how long a large model takes to load again.
FIRST_COOLING_SECONDS = 1.0
MAX_COOLING_SECONDS = 30.0

# After so many faults in a row no caller's request finds out whether it is well again, while
# another peer can answer: a request of our own does, see `punch.dialer`.
MAX_TRIALS = 3

# Faults are counted no further: the cooling has been at its longest for many.
MAX_FAILURES = 30


@attrs.frozen(kw_only=True)
class Breaker:
    """What the faults of a peer in a row mean, for one model or for the whole of it.

    ::

                  a fault                    it has cooled, and a request is sent
        closed ------------> open -------------------------------> half-open
          ^                   ^  ^------ it ended without verdict ------|  |
          |                   |--------------- a fault: longer ---------|  |
          |------------------------------- an answer ----------------------|

    The classic circuit breaker (M. Nygard, Release It!), with exponential cooling. It opens at
    the first fault, since another peer may always be asked in the place of this one.
    """

    failures: int = 0
    """Faults in a row."""

    until: float = 0.0
    """It is left alone until then, in seconds of our own clock."""

    probing: bool = False
    """A single request is on its way, to see whether the peer is well again."""

    cleared: bool = False
    """A request of our own was answered since the last fault: one of a caller may find out."""

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """``open`` lets a single request through once it has cooled, and then is ``half-open``."""
        if not self.failures:
            return "closed"
        return "half-open" if self.probing else "open"

    def admits(self, now: float) -> bool:
        """Whether a request may go there."""
        if not self.failures:
            return True
        return self.until <= now and not self.probing and not self.is_out

    @property
    def is_out(self) -> bool:
        """Whether a request of our own has to be answered before one of a caller is sent."""
        return self.failures > MAX_TRIALS and not self.cleared

    def answered(self) -> Breaker:
        """It after a request of our own was answered."""
        return attrs.evolve(self, until=0.0, cleared=True) if self.failures else self

    def failed(self, *, now: float, retry_after: float | None = None) -> Breaker:
        """It after a fault; the same if it is one of those that happened at once."""
        if self.until > now:
            # Everything that was in flight fails at once when a session breaks: one fault.
            return self
        cooling = min(MAX_COOLING_SECONDS, FIRST_COOLING_SECONDS * 2**self.failures)
        if retry_after is not None:
            cooling = min(MAX_COOLING_SECONDS, max(cooling, retry_after))
        return Breaker(failures=min(self.failures + 1, MAX_FAILURES), until=now + cooling)

    def probed(self, *, now: float) -> Breaker:
        """It after a request was sent: the probe, if it had cooled."""
        if self.failures and self.until <= now and not self.probing and not self.is_out:
            return attrs.evolve(self, probing=True)
        return self

    def freed(self) -> Breaker:
        """It after a probe that ended without a verdict: another one may try."""
        return attrs.evolve(self, probing=False) if self.probing else self


CLOSED = Breaker()
"""The breaker of whoever has not failed."""
