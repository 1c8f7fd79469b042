"""What counts against one peer: its faults in a row, and what counts in part. A value."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from ._breaker import CLOSED, MAX_TRIALS, Breaker

# Offers per peer whose faults are remembered.
MAX_OFFERS = 64

# Weight of the newest outcome in the share of faults: about the last five count.
OUTCOME_WEIGHT = 0.2

# What counts against an offer in part makes a fault together, but for what the adding of tenths
# leaves over. Of an offer that is known to fail, and was asked on trial, a part is enough.
ENOUGH_DOUBT = 0.99

# What the share of faults is at most after an answer to a request of our own: what one fault in
# three costs is about half of a usual answer, which a queue elsewhere soon takes.
CLEARED_SHARE = 0.3

# A request of our own that was refused, by a full queue say, is sent again after this long.
SPARED_SECONDS = 5.0

# Half of what a share of faults says is forgotten after this long, in seconds: a peer that is
# not asked any more cannot clear itself with good answers. Two coolings at their longest. Of
# engines that died, after four times as long, and an answer settles little of it (about the last
# fifty count): an engine that dies of some requests answers others, and takes those down with it.
FORGIVING_SECONDS = 60.0
DEATH_SECONDS = 240.0
DEATH_WEIGHT = 0.02

# Reputation gains and loses as in the original, for an answer of full quality and a fault.
REPUTATION_GAIN = 0.03
REPUTATION_LOSS = 0.05

Breakers = Mapping[str | None, Breaker]
_NO_BREAKERS: Breakers = MappingProxyType({})
_NO_DOUBTS: Mapping[str, float] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Faults:
    """What one peer did wrong lately."""

    breakers: Breakers = _NO_BREAKERS
    """Key of an offer to its breaker, if that is not closed; under `None` that of the peer."""

    doubts: Mapping[str, float] = _NO_DOUBTS
    """Key of an offer to what counts against it in part since it last answered."""

    share: float = 0.0
    """Share of its recent attempts that were a fault or a refusal, 0 to 1."""

    deaths: float = 0.0
    """Engines of it that died under requests, lately."""

    reputation: float = 1.0
    """0 to 1; an answer gains `REPUTATION_GAIN`, a fault loses `REPUTATION_LOSS`."""

    def anew(self) -> Faults:
        """It when the peer has started anew: its engines are others."""
        return attrs.evolve(self, breakers=_NO_BREAKERS, doubts=_NO_DOUBTS)

    def with_share(self, weight: float) -> Faults:
        """It after an attempt that counts as a fault to this *weight*."""
        return attrs.evolve(self, share=self.share + OUTCOME_WEIGHT * weight * (1 - self.share))

    def forgiven(self, seconds: float) -> Faults:
        """It *seconds* later."""
        if not self.share and not self.deaths:
            return self
        return attrs.evolve(
            self,
            share=self.share * 0.5 ** (seconds / FORGIVING_SECONDS),
            deaths=self.deaths * 0.5 ** (seconds / DEATH_SECONDS),
        )

    def probed(self, key: str | None, *, now: float) -> Faults:
        """It after a request was sent for this offer: the probe of whatever breaker has cooled."""
        breakers = {
            k: b.probed(now=now) if k in (None, key) else b for k, b in self.breakers.items()
        }
        return attrs.evolve(self, breakers=MappingProxyType(breakers))

    def cleared(self, key: str) -> Faults:
        """It after a request of our own was answered by this offer.

        That closes a breaker which few faults have opened. Of one that is out it is no proof; but
        the offer is not held to be slow for its faults, or no caller's request would go there.
        """
        breakers = {
            k: b.answered() if k in (None, key) else b
            for k, b in self.breakers.items()
            if k not in (None, key) or b.failures > MAX_TRIALS
        }
        share = min(self.share, CLEARED_SHARE)
        return attrs.evolve(self, breakers=MappingProxyType(breakers), share=share)

    def spared(self, key: str, *, now: float) -> Faults:
        """It when a request of our own to this offer came to nothing, by no fault of its own."""
        breakers = {
            k: attrs.evolve(b, until=max(b.until, now + SPARED_SECONDS)) if k == key else b
            for k, b in self.breakers.items()
        }
        return attrs.evolve(self, breakers=MappingProxyType(breakers))

    def freed(self, *keys: str | None) -> Faults:
        """It when no probe of these offers is on its way."""
        if not self.breakers:
            return self
        breakers = {k: b.freed() if k in keys else b for k, b in self.breakers.items()}
        return attrs.evolve(self, breakers=MappingProxyType(breakers))

    def answered(self, key: str) -> Faults:
        """It after an answer of this offer."""
        if self is NO_FAULTS:
            return self
        breakers, doubts = self.breakers, self.doubts
        if breakers:
            breakers = MappingProxyType({k: b for k, b in breakers.items() if k not in (key, None)})
        if key in doubts:
            doubts = MappingProxyType({k: d for k, d in doubts.items() if k != key})
        return Faults(
            breakers=breakers,
            doubts=doubts,
            share=self.share * (1 - OUTCOME_WEIGHT),
            deaths=self.deaths * (1 - DEATH_WEIGHT),
            reputation=min(1.0, self.reputation + REPUTATION_GAIN),
        )

    def doubted(self, key: str, weight: float) -> tuple[Faults, bool]:
        """It with *weight* against an offer, and whether all of that makes a fault now."""
        if key not in self.doubts and len(self.doubts) >= MAX_OFFERS:
            return self, True
        doubt = self.doubts.get(key, 0.0) + weight
        fails = self.breakers.get(key, CLOSED).failures > 0
        is_enough = fails or doubt >= ENOUGH_DOUBT
        doubts = MappingProxyType({**self.doubts, key: 0.0 if is_enough else doubt})
        found = attrs.evolve(self, doubts=doubts)
        return (found if is_enough else found.with_share(weight)), is_enough


NO_FAULTS = Faults()
"""Of a peer that never failed."""


def after_fault(
    faults: Faults,
    key: str | None,
    *,
    now: float,
    retry_after: float | None,
    engine_died: bool = False,
) -> Faults | None:
    """*faults* after one of an offer, or of the peer; `None` if it is one that is known."""
    breakers = faults.breakers
    if key not in breakers and len(breakers) > MAX_OFFERS:
        key = None
    breaker = breakers.get(key, CLOSED)
    after = breaker.failed(now=now, retry_after=retry_after)
    if after is breaker:
        return None
    found = attrs.evolve(
        faults,
        breakers=MappingProxyType({**breakers, key: after}),
        deaths=faults.deaths + engine_died,
        reputation=max(0.0, faults.reputation - REPUTATION_LOSS),
    )
    return found.with_share(1.0)
