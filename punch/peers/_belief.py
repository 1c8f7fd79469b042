"""How fast one offer is taken to be, by its claim and by what was measured. No I/O.

What a claim is worth beside those of other peers is left to the policy.
"""

from __future__ import annotations

import attrs

from ..capability import ModelOffer
from ._rates import DEFAULT_SLOWDOWN, ENOUGH_SAMPLES, Rates, is_far_slower

# A claimed slowdown is believed up to here: at 1 a batch gains nothing at all.
MAX_CLAIMED_SLOWDOWN = 1.0

# A prompt's tokens are computed many at a time: up to a few hundred times as fast as an answer's on
# the largest GPUs, where memory is what limits the latter.
MAX_PREFILL_SHARE = 1000.0


@attrs.frozen
class Belief:
    """The speed of one offer as we believe it."""

    prefill: float
    """Prompt tokens a second; 0 if nobody knows."""

    decode: float
    """Answer tokens a second of one request alone; 0 if nobody knows."""

    slowdown: float
    """How much longer a token takes for each further request in the batch, as a share."""

    is_measured: bool
    """Whether what was measured has replaced what is claimed, of one rate at least."""

    boasts: bool
    """Whether it was found far slower than it claims."""

    @classmethod
    def of(cls, offer: ModelOffer, rates: Rates) -> Belief:
        """What to believe of *offer*, whose measured speed is *rates*."""
        prefill, decode, slowdown = offer.prefill_rate, offer.decode_rate, rates.slowdown
        is_measured = boasts = False
        if rates.prefill_samples or rates.decode_samples:
            prefill, decode = rates.prefill_or(prefill), rates.decode_or(decode)
            is_measured = rates.enough
        if is_measured:
            if rates.prefill_samples < ENOUGH_SAMPLES and prefill and decode:
                prefill = min(prefill, MAX_PREFILL_SHARE * decode)
            boasts = is_far_slower(decode, offer.decode_rate)
        if slowdown is None:
            claim = offer.slowdown
            slowdown = (
                DEFAULT_SLOWDOWN if claim is None else min(max(0.0, claim), MAX_CLAIMED_SLOWDOWN)
            )
        return cls(prefill or 0.0, decode or 0.0, slowdown, is_measured, boasts)
