"""When a second peer is asked beside a late first one, and that the first to speak wins."""

from __future__ import annotations

import math

import attrs

from ..peers import Candidate
from ..routing import HEDGE_SHARE, Decision


@attrs.frozen(kw_only=True)
class Hedge:
    """Ask a second peer when the first is late with its first text; the quicker one answers.

    At most a twentieth of the requests are hedged, however many are late: see `Budget`.
    """

    factor: float = 2.0
    """Late is this many times the predicted seconds to the first text."""

    least: float = 1.0
    """But at least this many seconds; also where nothing is predicted."""

    share: float = HEDGE_SHARE
    """Share of the requests that may be hedged."""


class Hedging:
    """The hedge of one request: due at most once, and over with the first text.

    Args:
      hedge: When to ask a second peer; `None` for never.

    """

    def __init__(self, hedge: Hedge | None) -> None:
        self._hedge = hedge
        self.due_at = math.inf
        """When a second peer is to be asked, in seconds of trio's clock; never if infinite."""

    def begin(self, decision: Decision, candidate: Candidate, *, now: float) -> None:
        """The first peer is asked *now*: after a while it will be late."""
        hedge = self._hedge
        if hedge is None:
            return
        first = decision.seconds_to_first_text(candidate)
        late = hedge.least if first is None else max(hedge.least, hedge.factor * first)
        self.due_at = now + late

    def end(self) -> None:
        """Somebody has spoken, or a second peer has been asked."""
        self.due_at = math.inf
