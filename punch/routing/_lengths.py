"""How long the answers of a model are, learned from those that came."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..wire import DEFAULT_OUTPUT_TOKENS

# Lengths are about log-normal, with a deviation near 1 in public traces; the mean of such a
# distribution, which is what seconds are made of, is its quantile 0.69 (Phi(1/2)).
QUANTILE = 0.7

# Buckets for each doubling: a length is known to about a tenth.
PER_DOUBLING = 4
BUCKETS = 20 * PER_DOUBLING

# What an answer still counts when the next one comes: about the last hundred matter.
MEMORY = 0.99

# Before there are any, this many answers of the usual length are taken to have been seen.
PRIOR_ANSWERS = 3.0

# No claim beyond this is believed: a liar would make every decision one of decode rates alone.
MAX_CLAIMED_TOKENS = 4096

# Models whose lengths are remembered; the one that was not asked for longest goes.
MAX_MODELS = 256


class Lengths:
    """A decaying histogram of answer lengths for each model, in buckets of equal ratio."""

    def __init__(self) -> None:
        self._counts: dict[str, list[float]] = {}
        self._claims: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def knows(self, model: str) -> bool:
        """True once there was an answer of *model*."""
        return model in self._counts

    def claim(self, model: str, tokens: int) -> None:
        """Peers say that a usual answer of *model* has so many *tokens*: the best guess so far."""
        self._claims.pop(model, None)
        if len(self._claims) >= MAX_MODELS:
            del self._claims[next(iter(self._claims))]
        self._claims[model] = max(1, min(tokens, MAX_CLAIMED_TOKENS))

    def _guess(self, model: str) -> int:
        return self._claims.get(model, DEFAULT_OUTPUT_TOKENS)

    def learn(self, model: str, tokens: int) -> None:
        """Take one answer of *tokens*."""
        if tokens < 1:
            return
        counts = self._counts.pop(model, None)
        if counts is None:
            if len(self._counts) >= MAX_MODELS:
                del self._counts[next(iter(self._counts))]
            counts = [0.0] * BUCKETS
            counts[_bucket(self._guess(model))] = PRIOR_ANSWERS
        self._counts[model] = [MEMORY * count for count in counts]
        self._counts[model][_bucket(tokens)] += 1.0

    def expect(self, model: str, *, limit: int | None = None, begun: int = 0) -> int:
        """Tokens still to come of an answer by *model*, at least 1.

        Args:
          model: Its name.
          limit: The caller's bound for them.
          begun: Tokens that are there already: only longer answers are looked at.

        """
        counts = self._counts.get(model)
        expected = self._guess(model) if counts is None else _quantile(counts, begun)
        # One that is longer than all before is taken to be half over.
        left = expected - begun if expected > begun else begun
        return max(1, left if limit is None else min(left, limit))


def _bucket(tokens: int) -> int:
    return min(BUCKETS - 1, round(PER_DOUBLING * math.log2(tokens)))


def _tokens(bucket: int) -> int:
    """The middle of a bucket."""
    return round(math.exp2(bucket / PER_DOUBLING))


def _quantile(counts: list[float], begun: int) -> int:
    longer: Iterator[tuple[int, float]] = (
        (tokens, count)
        for bucket, count in enumerate(counts)
        if count and (tokens := _tokens(bucket)) > begun
    )
    found = list(longer)
    wanted = QUANTILE * sum(count for _, count in found)
    for tokens, count in found:
        wanted -= count
        if wanted <= 0:
            return tokens
    return found[-1][0] if found else 0
