"""Limits what a backend says of its answer to what can be true. No I/O.

Counts and times of answers are what speeds are learned from and what keys are charged with, and
they travel to peers that refuse numbers out of range. A server that counts wrongly must spoil
none of that. Whether an answer is any good is judged nowhere.
"""

from __future__ import annotations

from ..capability import ModelOffer
from ..wire import CommandRequest, Timings, Usage, with_calls_asked_for
from ._base import Generation

# Tokens: more than any context has, for models that do not say how long theirs is.
_MAX_TOKENS = 1 << 20

# Eleven days: longer than any answer takes.
_MAX_SECONDS = 1e6


def plausible(generation: Generation, request: CommandRequest, offer: ModelOffer) -> Generation:
    """*generation* with counts and times that an answer to *request* can have.

    An answer has no more tokens than were asked for, nor than the context of *offer* holds; what
    was cached is part of the prompt. Times that are negative, endless or no numbers become `None`.
    """
    usage, timings = generation.usage, generation.timings
    context = min(offer.context_tokens or _MAX_TOKENS, _MAX_TOKENS)
    # Every text of an embedding has a context of its own.
    prompt = _count(usage.prompt_tokens, context * max(1, len(request.inputs)))
    answer = _count(usage.completion_tokens, min(context, request.sampling.max_tokens or context))
    thought = None if answer is None else _count(usage.reasoning_tokens, answer)
    return Generation(
        completion=with_calls_asked_for(generation.completion, request),
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=answer,
            reasoning_tokens=thought,
            cached_tokens=_count(usage.cached_tokens, context if prompt is None else prompt),
        ),
        timings=Timings(prefill=_seconds(timings.prefill), decode=_seconds(timings.decode)),
        guesses=generation.guesses,
    )


def _count(value: int | None, most: int) -> int | None:
    return value if value is None or 0 <= value <= most else max(0, min(value, most))


def _seconds(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= _MAX_SECONDS else None
