"""How fast a peer really is: learned from what its backend timed."""

from __future__ import annotations

import attrs

# Weight of the newest sample of prefill. About the last ten samples matter: enough to ride out
# one odd answer, few enough to notice within a minute of use that a laptop went on battery.
WEIGHT = 0.2

# What a sample of decode still counts when the next one comes. Two numbers are learned from
# them, which takes twice as many samples as one.
MEMORY = 0.9

# After this many samples a measurement replaces the claim. One sample may be a cold start.
ENOUGH_SAMPLES = 3

# What a claim is worth before: so many times what was seen of the peer itself.
MAX_BEYOND_SEEN = 2.0

# Tokens per second that something could really have: one in eleven days, a thousand million.
MIN_RATE = 1e-6
MAX_RATE = 1e9

# Fewer tokens than this time the clock, not the model.
MIN_TOKENS = 4

# Each further request in the batch slows the others by about half on the CPUs and small GPUs
# this is for; see the batched numbers of `llama-bench`.
DEFAULT_SLOWDOWN = 0.5

# At 1 a batch gains nothing; a machine that thrashes is worse, but no sane fit is beyond this.
MAX_SLOWDOWN = 2.0

# How many samples the slowdown believed so far is worth against a new one.
SLOWDOWN_SAMPLES = 1.0

# Larger batches than any backend here works on are a typing error.
MAX_BATCH = 1024.0

# A batch that is nearer to one than this says nothing about the slowdown.
MIN_CROWD = 0.5

_Sums = tuple[float, float, float, float, float]

# A rate this many times below the claimed one is no matter of another load or a longer context.
FAR_FACTOR = 4.0


def is_far_slower(seen: float | None, claimed: float | None) -> bool:
    """Whether a rate that was *seen* is far below the one that is *claimed*."""
    return seen is not None and claimed is not None and seen * FAR_FACTOR < claimed


@attrs.frozen(kw_only=True)
class Sample:
    """What a peer computed for one answer, and how long it took; `None` for what is not known."""

    prefill_tokens: int | None = None
    """Tokens of the prompt that were not in its cache."""

    prefill_seconds: float | None = None
    """Seconds for these."""

    decode_tokens: int | None = None
    """Tokens of the answer."""

    decode_seconds: float | None = None
    """Seconds for these."""

    batch: float | None = None
    """The mean number of requests that its backend worked on meanwhile, this one included; where
    it is not known the request is taken to have been alone."""


@attrs.frozen(kw_only=True)
class Rates:
    """Measured speed of one model on one peer.

    A token takes longer in company. With *b* requests in the batch it takes::

        seconds per token = (1 + slowdown * (b - 1)) / decode

    Both numbers are fitted to samples of (seconds per token, b) by least squares that forget
    exponentially. The slowdown believed so far counts as a further sample, so that samples of
    one single *b*, which cannot tell the two numbers apart, change the speed and not the
    slowdown.
    """

    prefill: float | None = None
    """Prompt tokens per second."""

    prefill_samples: int = 0
    """Answers that it is the average of."""

    decode: float | None = None
    """Answer tokens per second of one request alone."""

    decode_samples: int = 0
    """Answers that it was learned from."""

    slowdown: float | None = None
    """How much longer a token takes for each further request in the batch, as a share; `None`
    until one was measured in company."""

    sums: _Sums = attrs.field(default=(0.0, 0.0, 0.0, 0.0, 0.0), repr=False)
    """Forgetting sums over the samples of decode: 1, x, x*x, y and x*y, where x is the number
    of other requests in the batch and y the seconds of a token."""

    def prefill_or(self, claim: float | None) -> float | None:
        """Prefill rate to believe: the measured one if there are enough samples, else *claim*.

        A claim is believed no further than twice what the first samples show.
        """
        return _believe(self.prefill, self.prefill_samples, claim)

    def decode_or(self, claim: float | None) -> float | None:
        """Decode rate to believe of a request alone; the same rule."""
        return _believe(self.decode, self.decode_samples, claim)

    @property
    def enough(self) -> bool:
        """Whether what was measured has replaced what was claimed."""
        return self.decode_samples >= ENOUGH_SAMPLES or (
            self.prefill_samples >= ENOUGH_SAMPLES and not self.decode_samples
        )


def with_sample(rates: Rates, sample: Sample) -> Rates:
    """The *rates* after one more answer. Parts that are absent or too short are ignored."""
    read = _rate(sample.prefill_tokens, sample.prefill_seconds)
    made = _rate(sample.decode_tokens, sample.decode_seconds)
    if read is None and made is None:
        return rates
    prefill, decode, slowdown, sums = rates.prefill, rates.decode, rates.slowdown, rates.sums
    if read is not None:
        prefill = read if prefill is None else prefill + WEIGHT * (read - prefill)
    if made is not None:
        others = min(max(1.0, sample.batch or 1.0), MAX_BATCH) - 1.0
        sums = _with(sums, x=others, y=1.0 / made)
        token, fitted = _fit(sums, DEFAULT_SLOWDOWN if slowdown is None else slowdown)
        decode = 1.0 / token
        if slowdown is not None or others >= MIN_CROWD:
            slowdown = fitted
    return Rates(
        prefill=prefill,
        prefill_samples=rates.prefill_samples + (read is not None),
        decode=decode,
        decode_samples=rates.decode_samples + (made is not None),
        slowdown=slowdown,
        sums=sums,
    )


NO_RATES = Rates()
"""Of an offer that nobody has measured."""


def _with(sums: _Sums, *, x: float, y: float) -> _Sums:
    """The sums after one more sample."""
    weight, sx, sxx, sy, sxy = [MEMORY * value for value in sums]
    return weight + 1.0, sx + x, sxx + x * x, sy + y, sxy + x * y


def _fit(sums: _Sums, believed: float) -> tuple[float, float]:
    """Seconds of a token alone, and the slowdown, that fit best.

    Minimises ``sum((a + c*x - y)**2) + samples * (c - believed*a)**2`` over a and c; the
    slowdown is c/a, kept within its bounds. Then a is fitted again, to the samples alone.
    """
    weight, sx, sxx, sy, sxy = sums
    prior = SLOWDOWN_SAMPLES
    aa = weight + prior * believed * believed
    ac = sx - prior * believed
    cc = sxx + prior
    # Positive by Cauchy and Schwarz, and since the prior leaves no direction open.
    determinant = aa * cc - ac * ac
    token = (sy * cc - sxy * ac) / determinant
    share = (sxy * aa - sy * ac) / determinant
    slowdown = share / token if token > 0 else MAX_SLOWDOWN
    slowdown = min(max(0.0, slowdown), MAX_SLOWDOWN)
    crowded = weight + 2 * slowdown * sx + slowdown * slowdown * sxx
    return (sy + slowdown * sxy) / crowded, slowdown


def _believe(seen: float | None, samples: int, claim: float | None) -> float | None:
    if seen is None:
        return claim
    if samples >= ENOUGH_SAMPLES or claim is None:
        return seen
    return min(claim, MAX_BEYOND_SEEN * seen)


def _rate(tokens: int | None, seconds: float | None) -> float | None:
    if tokens is None or seconds is None or tokens < MIN_TOKENS or seconds <= 0:
        return None
    rate = tokens / seconds
    # Beyond these it is nonsense, or a lie that would make every comparison nonsense.
    return rate if MIN_RATE <= rate <= MAX_RATE else None
