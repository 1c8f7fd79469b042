"""What the answers of a running split teach the formulas. No I/O.

An answer is measured by the engine that made it. One alone says little: a neighbour on a machine, a
prompt of a new shape or a clock that jumps make it slower than the split is. So of the last few of
a plan the middle one counts, and no answer moves a prediction by more than `MAX_SURPRISE` allows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median_low
from typing import Final, Literal

import attrs

from ..gguf import Layout
from ._calibration import Calibration, Measured
from ._plan import Plan
from ._predict import predict
from ._prediction import Prediction
from ._wants import Device, Mix, Wants

# So many measurements of each kind are kept of a plan: two that are wrong change nothing then.
WINDOW: Final = 5

# A measurement is taken for at most so many times what was predicted, and at least for one part in
# as many: what is further off is believed once it was seen again.
MAX_SURPRISE: Final = 2.0

# What is kept of one measurement, in times of what the formulas say by themselves.
_MAX_RATIO: Final = 1e3

# Fewer tokens are over too soon to be timed, and the first of an answer comes with its prompt.
MIN_ANSWER_TOKENS: Final = 8
MIN_PROMPT_TOKENS: Final = 32

# No context has more; a count that is higher is none.
_MAX_TOKENS: Final = 1 << 24

_Kind = Literal["token", "first_token", "load"]


@attrs.frozen(kw_only=True)
class Answered:
    """What an engine measured of one answer that it made alone; `None` for what it did not."""

    prompt_tokens: int | None = None
    """Tokens of the prompt that it read, those in a cache left out."""

    cached_tokens: int = 0
    """Those in a cache."""

    prompt_seconds: float | None = None
    """Seconds for the prompt."""

    answer_tokens: int | None = None
    """Tokens that it made."""

    answer_seconds: float | None = None
    """Seconds for them."""


class Lessons:
    """What was learned of one model, for as long as its coordinator runs.

    Args:
      layout: The model.
      wants: What it is planned for; its mix says which request is the usual one.
      calibration: What was learned before.

    """

    def __init__(
        self, layout: Layout, wants: Wants, calibration: Calibration | None = None
    ) -> None:
        self._layout = layout
        self._wants = wants
        self.calibration = calibration or Calibration()
        """For the next plan."""
        self._learnt_of: object = None
        self._seen: dict[_Kind, deque[float]] = {}

    def learn(self, plan: Plan, devices: Sequence[Device], answered: Answered) -> None:
        """Take in one answer that was made by *plan*.

        Args:
          plan: How the model lay.
          devices: All devices that it was made for, as they were known then.
          answered: What was measured. What cannot be true is left out of account, and so is the
            time of tokens where the head guesses: how much of it was right is not known.

        """
        read = _count(answered.prompt_tokens, MIN_PROMPT_TOKENS)
        if read and answered.prompt_seconds is not None:
            mix = Mix(prompt_tokens=read, answer_tokens=0)
            self._learn(plan, devices, mix, "first_token", answered.prompt_seconds)
        made = _count(answered.answer_tokens, MIN_ANSWER_TOKENS)
        if made and answered.answer_seconds is not None and plan.speculation is None:
            before = _count(answered.prompt_tokens, 0) + _count(answered.cached_tokens, 0)
            mix = Mix(prompt_tokens=before, answer_tokens=made)
            self._learn(plan, devices, mix, "token", answered.answer_seconds / made)

    def learn_load(self, plan: Plan, devices: Sequence[Device], seconds: float) -> None:
        """Take in how long it took from the start of the head until it made its first token."""
        self._learn(plan, devices, self._wants.mix, "load", seconds)

    def predict(self, plan: Plan, devices: Sequence[Device], mix: Mix | None = None) -> Prediction:
        """What *plan* is worth by now, for the usual request or another one."""
        return predict(
            self._layout,
            plan.shares,
            devices=devices,
            wants=self._wants if mix is None else attrs.evolve(self._wants, mix=mix),
            output_on_head=plan.output_on_head,
            micro_batch=plan.micro_batch,
            slots=plan.slots,
            speculation=plan.speculation,
            calibration=self.calibration,
        )

    def _learn(
        self, plan: Plan, devices: Sequence[Device], mix: Mix, kind: _Kind, seconds: float
    ) -> None:
        if not (math.isfinite(seconds) and seconds > 0.0):
            return
        prediction = self.predict(plan, devices, mix)
        parts, factors = {
            "token": (prediction.token_parts, self.calibration.token),
            "first_token": (prediction.prompt_parts, self.calibration.prompt),
            "load": (prediction.load_parts, self.calibration.load),
        }[kind]
        bare, now = factors.bare(parts).total, parts.total
        if not bare > 0.0:
            return
        believed = self._middle(plan, kind, seconds / bare) * bare
        believed = min(max(believed, now / MAX_SURPRISE), now * MAX_SURPRISE)
        self.calibration = self.calibration.learned(prediction, Measured(**{kind: believed}))

    def _middle(self, plan: Plan, kind: _Kind, ratio: float) -> float:
        """The middle one of what this plan was measured to be, in times of the bare formulas.

        Of an even number the lower one: what disturbs makes an answer slower, and never faster.
        """
        how = (plan.shares, plan.output_on_head, plan.micro_batch)
        if how != self._learnt_of:
            self._learnt_of, self._seen = how, {}
        seen = self._seen.setdefault(kind, deque(maxlen=WINDOW))
        seen.append(min(max(ratio, 1 / _MAX_RATIO), _MAX_RATIO))
        return median_low(seen)


def _count(tokens: int | None, least: int) -> int:
    """*tokens*, or 0 where that is no count, or too little to be timed."""
    return tokens if tokens is not None and max(least, 1) <= tokens <= _MAX_TOKENS else 0
