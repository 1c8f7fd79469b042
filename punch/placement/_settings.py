"""The settings of a head that a plan chooses: slots, and n-gram speculation.

With speculation the head guesses from the text so far, and the workers check all at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import attrs

from ._prediction import Prediction
from ._wants import Wants

# So much of plain text has stood there before, after the same few tokens, and so many of the
# guesses in it are right, each where those before it are. Measured with SmolLM2 over two workers at
# 20 ms one way: 16.7 tokens a second instead of 10.1, which these two explain. Text that repeats
# itself has more.
PLAIN_REPEATED: Final = 0.6
PLAIN_RIGHT: Final = 0.9

# Lines that are alike but for their numbers: after most matches the first or the second guess is
# wrong already. Of sixteen guesses there one or two were right, which made answers 13 % slower;
# with four they are faster, too. A draft is as short as this asks for: nothing is lost in text with
# so few right guesses.
DOUBTED_RIGHT: Final = 0.5

# What is gained must be worth that text which never repeats itself gains nothing.
MIN_GAIN: Final = 1.1

# Some answers, so that one odd text does not decide; and as many as weigh in at all.
ENOUGH_STEPS: Final = 256
REMEMBERED_STEPS: Final = 2048

# After three alike, a text that counts ("7, 8, 9") has all of its guesses wrong: a fifth slower.
MATCH_TOKENS: Final = 4
# Fewer than were matched llama.cpp does not guess.
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

    repeated: float = PLAIN_REPEATED
    """Which share of the text has stood there before."""

    right: float = PLAIN_RIGHT
    """Which share of the guesses is right, where those before are."""

    @property
    def accepted(self) -> float:
        """Tokens of a draft that are right, on the average."""
        if self.right >= 1.0:
            return float(self.draft)
        return self.right * (1.0 - self.right**self.draft) / (1.0 - self.right)

    @property
    def tokens_per_step(self) -> float:
        """Tokens of one step, on the average: what is repeated takes fewer steps than the rest."""
        return 1.0 / (1.0 - self.repeated + self.repeated / (1.0 + self.accepted))

    @property
    def hits(self) -> float:
        """In which share of the steps something is guessed."""
        return self.tokens_per_step * self.repeated / (1.0 + self.accepted)

    def doubted(self) -> Speculation:
        """The same in text of which most guesses are wrong."""
        return attrs.evolve(self, right=DOUBTED_RIGHT)

    def __str__(self) -> str:
        return f"{self.kind} {self.match}/{self.draft}"


SPECULATIONS: Final = tuple(Speculation(draft=tokens) for tokens in DRAFT_TOKENS)


@attrs.frozen(kw_only=True)
class Guesses:
    """What guessing came to in the answers of one split; old ones count less and less."""

    steps: float = 0.0
    """Steps of the head, each of which makes a token and checks what was guessed after it."""

    guessed: float = 0.0
    """Tokens that were guessed."""

    right: float = 0.0
    """Those of them that were right, each of which saved a step."""

    def after(self, *, tokens: int, guessed: int, right: int) -> Guesses:
        """With an answer of so many *tokens*, by the head's own count; a wrong count is none."""
        if not 0 <= right <= min(guessed, tokens):
            return self
        steps = tokens - right
        kept = REMEMBERED_STEPS / (REMEMBERED_STEPS + steps)
        return Guesses(
            steps=kept * self.steps + steps,
            guessed=kept * self.guessed + guessed,
            right=kept * self.right + right,
        )

    def gain(self, prediction: Prediction) -> float:
        """By what these answers were faster than without guessing, at the prices of a plan."""
        step = prediction.step
        taken = self.steps * step + self.guessed * prediction.guess
        return (self.steps + self.right) * step / taken if taken > 0.0 else 1.0

    def pay(self, prediction: Prediction) -> bool:
        """Whether they were no loss, as far as is known."""
        return self.steps < ENOUGH_STEPS or self.gain(prediction) >= 1.0

    def faded(self) -> Guesses:
        """Half of it forgotten: after few of these it is tried anew."""
        return Guesses(steps=self.steps / 2, guessed=self.guessed / 2, right=self.right / 2)


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
    for slots in counts:
        at_once = min(slots, concurrent)
        guesses: tuple[Speculation | None, ...] = (None,)
        # Slots gain whatever the text is: guessing takes none of them away. And with several slots
        # answers share their round trips, and each pays for the guesses of all others.
        is_chosen = wants.slots is None and slots < concurrent
        if slots == 1 and wants.may_speculate and wants.mix.answer_tokens and not is_chosen:
            guesses = (None, *SPECULATIONS)
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
