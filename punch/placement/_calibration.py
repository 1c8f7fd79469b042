"""Learns from what was measured how far the formulas are off, one factor for each kind of term."""

from __future__ import annotations

from typing import Final

import attrs

from ._prediction import Parts, Prediction

# A device that is eight times slower than it was measured has another job, which another
# measurement tells better than a factor.
MAX_FACTOR: Final = 8.0
MIN_FACTOR: Final = 1 / MAX_FACTOR

# So much of a difference is believed at once: the rest may be a neighbour's load.
GAIN: Final = 0.5

# Where a difference comes from, before anything is known: devices compute as fast as their
# neighbours let them, the rate of a link was measured with few bytes, and a round trip was measured
# many times and is what it is.
_COMPUTE_DOUBT: Final = 1.0
_TRAFFIC_DOUBT: Final = 0.3
_WAITS_DOUBT: Final = 0.03


@attrs.frozen(kw_only=True)
class Factors:
    """By how much the terms of one formula are multiplied."""

    compute: float = 1.0
    waits: float = 1.0
    traffic: float = 1.0

    def scaled(self, parts: Parts) -> Parts:
        """*parts* as they are believed."""
        return Parts(
            compute=parts.compute * self.compute,
            waits=parts.waits * self.waits,
            traffic=parts.traffic * self.traffic,
            logits=parts.logits * self.traffic,
        )

    def bare(self, believed: Parts) -> Parts:
        """What the formulas say by themselves, where *believed* is what these made of it."""
        return Factors(
            compute=1.0 / self.compute, waits=1.0 / self.waits, traffic=1.0 / self.traffic
        ).scaled(believed)

    def learned(self, believed: Parts, seconds: float) -> Factors:
        """The factors after *seconds* were measured where *believed* had been predicted.

        The step is the shortest one, by the doubts above, that takes `GAIN` of the difference away
        (Kaczmarz 1937): with measurements that some factors explain, each brings these factors
        nearer to them. The bounds keep that.
        """
        compute = believed.compute / self.compute
        waits = believed.waits / self.waits
        traffic = (believed.traffic + believed.logits) / self.traffic
        weight = (
            _COMPUTE_DOUBT * compute * compute
            + _WAITS_DOUBT * waits * waits
            + _TRAFFIC_DOUBT * traffic * traffic
        )
        if weight <= 0.0:
            return self
        step = GAIN * (seconds - believed.total) / weight
        return Factors(
            compute=_bounded(self.compute + step * _COMPUTE_DOUBT * compute),
            waits=_bounded(self.waits + step * _WAITS_DOUBT * waits),
            traffic=_bounded(self.traffic + step * _TRAFFIC_DOUBT * traffic),
        )


def _bounded(factor: float) -> float:
    return min(max(factor, MIN_FACTOR), MAX_FACTOR)


@attrs.frozen(kw_only=True)
class Measured:
    """What a running split was seen to do; `None` for what was not seen."""

    token: float | None = None
    """Seconds for one token of an answer, one answer at a time and without speculation."""

    first_token: float | None = None
    """Seconds from a prompt of the mix to its first token."""

    load: float | None = None
    """Seconds from the start of the head until it could be asked."""


@attrs.frozen(kw_only=True)
class Calibration:
    """How far the formulas were off so far; a value, which `learned` replaces."""

    token: Factors = Factors()
    """Of the seconds for a token."""

    prompt: Factors = Factors()
    """Of the seconds to the first token."""

    load: Factors = Factors()
    """Of the seconds of loading."""

    samples: int = 0
    """How many measurements it has seen."""

    def learned(self, prediction: Prediction, measured: Measured) -> Calibration:
        """The calibration after *measured* was seen where *prediction*, made with this one, was."""
        changes: dict[str, Factors] = {}
        if measured.token is not None:
            changes["token"] = self.token.learned(prediction.token_parts, measured.token)
        if measured.first_token is not None:
            changes["prompt"] = self.prompt.learned(prediction.prompt_parts, measured.first_token)
        if measured.load is not None:
            changes["load"] = self.load.learned(prediction.load_parts, measured.load)
        return attrs.evolve(self, samples=self.samples + len(changes), **changes)
