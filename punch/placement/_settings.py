"""The settings of a head that a plan chooses: slots, and n-gram speculation.

With speculation the head guesses from the text so far, and the workers check all at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import attrs

from ._wants import Wants

# In plain text so many of the steps have the last three tokens before, and so many of the guesses
# that follow are right, each where those before it are. Measured with SmolLM2 over two workers at
# 20 ms one way: 16.7 tokens a second instead of 10.1, which these two explain. Text that repeats
# itself has more.
PLAIN_HITS: Final = 0.15
PLAIN_RIGHT: Final = 0.9

# What is gained must be worth that text which never repeats itself gains nothing.
MIN_GAIN: Final = 1.1

MATCH_TOKENS: Final = 3
DRAFT_TOKENS: Final = (4, 8, 16)


@attrs.frozen(kw_only=True)
class Speculation:
    """How the head guesses."""

    kind: str = "ngram-simple"
    """llama.cpp's word for it (``--spec-type``)."""

    match: int = MATCH_TOKENS
    """Tokens that must have been there before (``--spec-ngram-simple-size-n``)."""

    draft: int = DRAFT_TOKENS[-1]
    """Tokens that are guessed after them (``--spec-ngram-simple-size-m``)."""

    hits: float = PLAIN_HITS
    """In which share of the steps something is guessed."""

    right: float = PLAIN_RIGHT
    """Which share of the guesses is right, where those before are."""

    @property
    def tokens_per_step(self) -> float:
        """Tokens of one step, on the average."""
        if self.right >= 1.0:
            return 1.0 + self.hits * self.draft
        accepted = self.right * (1.0 - self.right**self.draft) / (1.0 - self.right)
        return 1.0 + self.hits * accepted

    def __str__(self) -> str:
        return f"{self.kind} {self.match}/{self.draft}"


SPECULATIONS: Final = tuple(Speculation(draft=tokens) for tokens in DRAFT_TOKENS)


@attrs.frozen(kw_only=True)
class Setting:
    """Slots and speculation, and how often each formula counts with them."""

    slots: int
    """Requests that are served at once."""

    speculation: Speculation | None
    """How the head guesses; `None`: not at all."""

    waves: int
    """How often all slots are used, one after the other."""

    answers: float
    """Steps of an answer: its tokens, over what speculation gains in tokens a step."""

    tokens: float
    """Tokens that a step computes at once."""

    prompts: int
    """Prompts that are read together."""


def settings_of(wants: Wants) -> Iterator[Setting]:
    """Those that may be best, the most slots first."""
    concurrent = wants.mix.concurrent
    if wants.slots is not None:
        counts = [wants.slots]
    else:
        counts = sorted({2**i for i in range(concurrent.bit_length())} | {concurrent})[::-1]
    guesses: tuple[Speculation | None, ...] = (None,)
    if wants.may_speculate and wants.mix.answer_tokens:
        guesses = (None, *SPECULATIONS)
    for slots in counts:
        at_once = min(slots, concurrent)
        for guess in guesses:
            gained = 1.0 if guess is None else guess.tokens_per_step
            drafted = 1.0 if guess is None else 1.0 + guess.hits * guess.draft
            yield Setting(
                slots=slots,
                speculation=guess,
                waves=math.ceil(concurrent / slots),
                answers=wants.mix.answer_tokens / gained,
                tokens=at_once * drafted,
                prompts=at_once,
            )
