"""How fast a peer really is: moving averages of what its backend timed."""

from __future__ import annotations

import attrs

# Weight of the newest sample. About the last ten samples matter: enough to ride out one odd
# answer, few enough to notice within a minute of use that a laptop went on battery.
WEIGHT = 0.2

# After this many samples a measurement replaces the claim. One sample may be a cold start.
ENOUGH_SAMPLES = 3

# Tokens per second that something could really have: one in eleven days, a thousand million.
LEAST_RATE = 1e-6
GREATEST_RATE = 1e9

# Fewer tokens than this time the clock, not the model.
LEAST_TOKENS = 4


@attrs.frozen(kw_only=True)
class Rates:
    """Measured speed of one model on one peer."""

    prefill: float | None = None
    """Prompt tokens per second."""

    prefill_samples: int = 0
    """Answers that it is the average of."""

    decode: float | None = None
    """Answer tokens per second of one request."""

    decode_samples: int = 0
    """Answers that it is the average of."""

    def with_sample(
        self,
        *,
        prefill_tokens: int | None = None,
        prefill_seconds: float | None = None,
        decode_tokens: int | None = None,
        decode_seconds: float | None = None,
    ) -> Rates:
        """These rates after one more answer. Parts that are absent or too short are ignored."""
        prefill = _rate(prefill_tokens, prefill_seconds)
        decode = _rate(decode_tokens, decode_seconds)
        return Rates(
            prefill=_average(self.prefill, prefill),
            prefill_samples=self.prefill_samples + (prefill is not None),
            decode=_average(self.decode, decode),
            decode_samples=self.decode_samples + (decode is not None),
        )

    def prefill_or(self, claim: float | None) -> float | None:
        """Prefill rate to believe: the measured one if there are enough samples, else *claim*."""
        return self.prefill if self.prefill_samples >= ENOUGH_SAMPLES else claim

    def decode_or(self, claim: float | None) -> float | None:
        """Decode rate to believe: the measured one if there are enough samples, else *claim*."""
        return self.decode if self.decode_samples >= ENOUGH_SAMPLES else claim


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    if tokens is None or seconds is None or tokens < LEAST_TOKENS or seconds <= 0:
        return None
    rate = tokens / seconds
    # Beyond these it is nonsense, or a lie that would make every comparison nonsense.
    return rate if LEAST_RATE <= rate <= GREATEST_RATE else None


def _average(before: float | None, sample: float | None) -> float | None:
    if sample is None or before is None:
        return sample if sample is not None else before
    return before + WEIGHT * (sample - before)
