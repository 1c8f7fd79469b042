"""When a second peer is asked beside one that is late, or absent; the first to speak wins."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from ..routing import GAVE_UP_DOUBT, HEDGE_SHARE, PATIENCE_FACTOR

# When another peer is asked beside one that is late, at the earliest. A listener says at once that
# a request waits or has begun, and after five seconds that its engine makes tokens without a text.
# One that failed a moment ago is on trial. Past a third of its time no caller waits for one alone.
MIN_UNHEARD_SECONDS = 2.0
MIN_LATE_SECONDS = 6.0
MIN_TRIAL_SECONDS = 0.5
MIN_DOUBT_SECONDS = 1.5
MIN_WORKING_SECONDS = 60.0
LATEST_SHARE = 0.3

# An answer whose next text is not there after so many seconds is worth a look at its peer.
LOOK_SECONDS = 0.75

# If a look is so late, our own process was held up: what came meanwhile is read first.
HELD_UP_SECONDS = 0.25
READ_SECONDS = 0.1


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

    def begin(self, first: float | None, *, now: float) -> None:
        """The first peer is asked *now*, for a first text in so many seconds if that is known."""
        hedge = self._hedge
        if hedge is None:
            return
        late = hedge.least if first is None else max(hedge.least, hedge.factor * first)
        self.due_at = now + late

    def end(self) -> None:
        """Somebody has spoken, or a second peer has been asked."""
        self.due_at = math.inf


class Lateness:
    """When one peer is late with its first text, or absent after it: another is asked beside it.

    Args:
      sign_due: Tells when the peer will be absent, see `ClientCall.sign_due`.
      now: When it was asked, in seconds of trio's clock.
      until: When its caller gives up.
      predicted: Seconds to its first text; `None` where nothing is predicted.
      rtt: Seconds of a round trip.
      is_on_trial: Whether it failed the last time.

    """

    def __init__(
        self,
        sign_due: Callable[[], float],
        *,
        now: float,
        until: float,
        predicted: float | None,
        rtt: float,
        is_on_trial: bool,
    ) -> None:
        self.is_absent = False
        """Whether its peer said nothing at all when it was last looked at."""
        self._sign_due = sign_due
        self._has_spoken, self._not_before = False, math.inf
        self._predicted = predicted
        self._is_on_trial = is_on_trial
        self._has_signed = self._works = False
        self._promised: float | None = None
        self._latest = now + LATEST_SHARE * (until - now)
        unheard = MIN_TRIAL_SECONDS if is_on_trial else MIN_UNHEARD_SECONDS
        self.late_at = min(self._latest, now + unheard + PATIENCE_FACTOR * rtt)
        """When to see whether another peer is to be asked, in seconds of trio's clock."""

    def spoke(self, now: float) -> None:
        """It has sent text: from now on it is late if its peer is absent."""
        self._has_spoken = True
        self.late_at, self._not_before = now + LOOK_SECONDS, now + 2 * LOOK_SECONDS

    def is_now(self, now: float) -> bool:
        """Whether it is late; to be asked at `late_at`.

        One that has spoken is not while its peer answers pings: an engine may be silent for longer.
        """
        if now - self.late_at > HELD_UP_SECONDS:
            self.late_at = now + READ_SECONDS
            return False
        if not self._has_spoken:
            return True
        sign_due = self._sign_due()
        self.is_absent = sign_due <= now
        # A quiet one is asked for a sign at the first look: it has until the second, at the least.
        self.late_at = now + LOOK_SECONDS if self.is_absent else max(sign_due, self._not_before)
        return self.is_absent

    def signed(
        self,
        now: float,
        seconds: float | None = None,
        *,
        promised: float | None = None,
        works: bool = False,
    ) -> None:
        """It has said that it is on it: it is not late for so many *seconds* more.

        Args:
          now: The time, in seconds.
          seconds: By default as long as its text is predicted to take, with patience.
          promised: Seconds that it says it waits; the first word counts.
          works: Whether it makes tokens that have no text.

        """
        if self._has_spoken:
            return
        self._has_signed = True
        self._works = works
        if self._promised is None:
            self._promised = promised
        if seconds is None:
            due = self._predicted
            if due is None:
                seconds = math.inf
            elif self._is_on_trial:
                seconds = max(MIN_TRIAL_SECONDS, 2 * due)
            else:
                seconds = max(MIN_LATE_SECONDS, PATIENCE_FACTOR * due)
        self.late_at = min(self._latest, max(self.late_at, now + seconds))

    def asked(self, now: float, is_done: bool) -> None:
        """Another peer is asked beside it; or none can be now, and perhaps in a moment."""
        if self._has_spoken:
            return
        is_over = is_done or now >= self._latest
        self.late_at = math.inf if is_over else now + MIN_UNHEARD_SECONDS

    def doubt(self, awaited: float, predicted: float) -> float:
        """What a silence of so many seconds says against it: a share of a fault.

        Nothing, unless it is far longer than was *predicted*, and than it said itself; half of that
        while an engine may be making tokens that nobody sees.
        """
        if awaited <= PATIENCE_FACTOR * (predicted + (self._promised or 0.0)):
            return 0.0
        floor = MIN_WORKING_SECONDS if self._works else MIN_LATE_SECONDS
        is_odd = awaited > MIN_DOUBT_SECONDS and not self._works
        if awaited > floor or (is_odd and (self._is_on_trial or not self._has_signed)):
            return GAVE_UP_DOUBT
        return GAVE_UP_DOUBT / 2 if is_odd else 0.0
