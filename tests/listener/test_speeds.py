"""The timed first answer: its prompt fits the context, whatever the model makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from punch.backends import Emit, Generation
from punch.capability import ModelOffer
from punch.exceptions import ContextTooLong
from punch.listener._speeds import CALIBRATION_PROMPT, Speeds, calibrate
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest, Completion, Timings, Usage


@attrs.define
class Counting:
    """A model with a context and a tokenizer of its own."""

    context: int
    tokens_of: Callable[[str], int]
    asked: list[int] = attrs.field(factory=list)

    async def play(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer, or count and refuse."""
        tokens = self.tokens_of(request.messages[-1].content)
        self.asked.append(tokens)
        if tokens >= self.context:
            raise ContextTooLong(f"the prompt has {tokens} tokens and the context {self.context}")
        await emit("a", 1)
        return Generation(
            completion=Completion(text="a"),
            usage=Usage(prompt_tokens=tokens, completion_tokens=10),
            timings=Timings(prefill=1.0, decode=1.0),
        )


def timed(model: Counting) -> Speeds:
    """What is learnt of *model*."""
    offer = ModelOffer(name="m", context_tokens=model.context)
    backend = ScriptedBackend(model.play, simulated=False, offers=(offer,))
    speeds = Speeds()

    async def main() -> None:
        await calibrate(backend, speeds, timed=lambda name, rates: None)

    trio.run(main)
    return speeds


def test_a_tokenizer_of_bytes_is_timed_in_a_small_context() -> None:
    """With the longest half of the prompt that fits, since a longer one tells more."""
    model = Counting(context=512, tokens_of=len)
    rate = timed(model).claims("m", None)["prefill_rate"]
    assert rate == pytest.approx(len(CALIBRATION_PROMPT) // 4)
    assert model.asked == [len(CALIBRATION_PROMPT) // n for n in (1, 2, 4)]


def test_a_prompt_that_fits_is_asked_once_and_whole() -> None:
    """The usual case costs nothing."""
    model = Counting(context=4096, tokens_of=len)
    timed(model)
    assert model.asked == [len(CALIBRATION_PROMPT)]


@given(
    context=st.integers(1, 4096),
    template=st.integers(0, 5000),
    characters=st.sampled_from([0.3, 1.0, 2.5, 4.0]),
)
def test_any_context_and_tokenizer_is_timed_or_left_unknown(
    context: int, template: int, characters: float
) -> None:
    """Nobody has given a prompt, so nobody hears that one was too long."""
    model = Counting(
        context=context, tokens_of=lambda text: template + round(len(text) / characters)
    )
    claims: dict[str, Any] = timed(model).claims("m", None)
    assert bool(claims) == (model.asked[-1] < context)
    assert len(model.asked) <= 10


def test_a_context_that_fits_no_word_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Its speed stays unknown, and the listener listens."""
    timed(Counting(context=16, tokens_of=lambda text: 100 + len(text)))
    assert "does not fit the context" in caplog.text
