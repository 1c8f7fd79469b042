"""Decides when to ping a peer, what its pong says, and when the peer counts as absent, or gone.

No I/O and no clock: the session passes in the time and what was heard.
"""

from __future__ import annotations

# A heartbeat a second is 40 bytes; a peer that misses five is gone. TCP alone would notice a
# machine that lost its power after minutes.
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 5.0

# A peer that is well answers a ping at once, whatever its engine does. One that does not within
# this time, and several times the round trip that is usual, is absent for the moment: its machine
# is frozen, cut off, or far too busy. Its requests may be asked elsewhere; the session stays.
SIGN_SECONDS = 0.75
SIGN_FACTOR = 4.0

# What of a longer round trip is kept at each pong: a path that was slow once may be so again.
ROUND_TRIP_SHARE = 0.75

# How long a stream may take to say Hello, which needs one round trip.
GREETING_SECONDS = 5.0

# Pings whose answers are still waited for; an older one says nothing about the path of today.
MAX_PINGS = 8


class Heartbeat:
    """Remembers when a peer was heard. All times are seconds of one clock."""

    def __init__(self) -> None:
        self._began = self._heard_at = self._beat_at = 0.0
        self._asked_at: float | None = None
        self._round_trip = 0.0
        self._nonce = 0
        self._pings: dict[int, float] = {}

    def begin(self, now: float) -> None:
        """Count from *now*, when the stream is there."""
        self._began = self._heard_at = self._beat_at = now

    def heard(self, now: float) -> None:
        """Note that something came from the peer, or that it read what was sent."""
        self._heard_at, self._asked_at = now, None

    def is_quiet(self, now: float) -> bool:
        """Whether nothing was heard for a whole beat."""
        return now - self._heard_at >= HEARTBEAT_SECONDS

    def ping(self, now: float) -> int:
        """The nonce of the next ping, which is sent at *now*."""
        self._nonce += 1
        oldest = self._nonce - MAX_PINGS
        self._pings = {nonce: at for nonce, at in self._pings.items() if nonce > oldest}
        self._pings[self._nonce] = now
        if self._asked_at is None:
            self._asked_at = now
        return self._nonce

    def pong(self, nonce: int, now: float) -> float | None:
        """Seconds of the round trip that *nonce* made; `None` if no such ping is waited for."""
        sent_at = self._pings.pop(nonce, None)
        if sent_at is None:
            return None
        self._round_trip = max(now - sent_at, ROUND_TRIP_SHARE * self._round_trip)
        return now - sent_at

    def wants_sign(self, now: float) -> bool:
        """Whether to ping a peer that seems silent: nothing came of late, and no ping is out."""
        return self._asked_at is None and now - self._heard_at >= SIGN_SECONDS

    @property
    def sign_due(self) -> float:
        """When something will have to have come from the peer, in seconds of the same clock."""
        since = self._heard_at if self._asked_at is None else self._asked_at
        return since + SIGN_SECONDS + SIGN_FACTOR * self._round_trip

    def is_absent(self, now: float) -> bool:
        """Whether it owes a sign for too long."""
        return self._asked_at is not None and now >= self.sign_due

    def why_gone(self, now: float, *, is_open: bool) -> str | None:
        """Why the peer counts as gone at *now*, the end of a beat; `None` if it does not.

        Args:
          now: The time, in seconds.
          is_open: Whether both sides have greeted.

        """
        late = now - self._beat_at > 2 * HEARTBEAT_SECONDS
        self._beat_at = now
        if late:
            # Our own process was held up: what the peer said in the meantime is not read yet.
            return None
        if not is_open and now - self._began > GREETING_SECONDS:
            return f"no greeting within {GREETING_SECONDS:.0f} s"
        silent = now - self._heard_at
        if silent > SILENCE_SECONDS - HEARTBEAT_SECONDS:
            return f"silent for {silent:.1f} s"
        return None
