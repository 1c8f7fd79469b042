"""What a backend says of an answer, as far as it can be true. No I/O.

A server that counts wrongly must not spoil what is learned from its answers, nor make us say what
no peer would accept.
"""

from __future__ import annotations

import math

import attrs

from ..capability import ModelOffer
from ..wire import CommandRequest, Timings, Usage
from ._base import Generation

# More tokens than any context has, for models that do not say how long theirs is.
_MOST_TOKENS = 1 << 20

# Longer than anybody waits for an answer.
_MOST_SECONDS = 1e6


def plausible(generation: Generation, request: CommandRequest, offer: ModelOffer) -> Generation:
    """*generation* with counts and times that an answer to *request* can have.

    An answer is no longer than was asked for, nor than the context of *offer*; times that are no
    times are left out.
    """
    usage, timings = generation.usage, generation.timings
    context = min(offer.context_tokens or _MOST_TOKENS, _MOST_TOKENS)
    # Every text of an embedding has a context of its own.
    prompt = _count(usage.prompt_tokens, context * max(1, len(request.inputs)))
    return attrs.evolve(
        generation,
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=_count(
                usage.completion_tokens, min(context, request.sampling.max_tokens or context)
            ),
            cached_tokens=_count(usage.cached_tokens, context if prompt is None else prompt),
        ),
        timings=Timings(prefill=_seconds(timings.prefill), decode=_seconds(timings.decode)),
    )


def _count(value: int | None, most: int) -> int | None:
    return None if value is None else max(0, min(value, most))


def _seconds(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return value if 0 <= value <= _MOST_SECONDS else None
