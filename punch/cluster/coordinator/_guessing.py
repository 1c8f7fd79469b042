"""Keeps account of what a split's head guessed, and leaves guessing off where it has not paid.

llama-server takes no word on guessing with a request: it guesses for all of them, or for none,
until it is started anew. Whether it pays is decided by `punch.placement`.
"""

from __future__ import annotations

from ..._logs import get_logger
from ...placement import Guesses, Plan

log = get_logger(__name__)


class Guessing:
    """The account of one split.

    Args:
      model: Name of its model.

    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.guesses = Guesses()
        """What guessing came to so far."""

    def note_answer(self, plan: Plan | None, *, tokens: int, guessed: int, right: int) -> None:
        """Add an answer of a head that was started by *plan*."""
        if plan is not None and plan.speculation is not None:
            self.guesses = self.guesses.after(tokens=tokens, guessed=guessed, right=right)

    def judged(self, plan: Plan) -> Plan:
        """*plan* for the next start; without guessing, if that has not paid.

        Half of what is known is forgotten then, so that guessing is tried again one day.
        """
        judged = plan.judged(self.guesses)
        if judged is not plan:
            gain = self.guesses.gain(plan.prediction)
            log.info("guessing has not paid", model=self._model, gain=round(gain, 3))
            self.guesses = self.guesses.faded()
        return judged
