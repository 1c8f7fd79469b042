"""Learns how fast a backend's models are, from its answers and from a timed first one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from .._logs import get_logger
from ..backends import Backend, Generation
from ..capability import ModelOffer
from ..exceptions import ContextTooLong
from ..peers import Rates, Sample, with_sample
from ..wire import ChatMessage, CommandRequest, Sampling, Timings, Usage

log = get_logger(__name__)

# Long enough to time the prefill of a graphics card, short enough for a slow laptop.
CALIBRATION_PROMPT = "The quick brown fox jumps over the lazy dog near the river bank. " * 16
CALIBRATION_TOKENS = 24

# A prompt that does not fit the context is halved until it does; below this it measures nothing.
MIN_CALIBRATION_CHARACTERS = 4

CALIBRATION_SECONDS = 60.0


class Speeds:
    """The rates of one backend's models."""

    def __init__(self) -> None:
        self._rates: dict[str, Rates] = {}

    def learn(self, model: str, usage: Usage, timings: Timings, *, batch: float | None) -> Rates:
        """Take one answer of *model* into its rates.

        Args:
          model: What answered.
          usage: The tokens of the answer.
          timings: Its seconds, as the backend measured them.
          batch: How many answers were made at a time meanwhile, on the average.

        """
        rates = self._rates[model] = with_sample(
            self._rates.get(model, Rates()),
            Sample(
                prefill_tokens=usage.computed_tokens,
                prefill_seconds=timings.prefill,
                decode_tokens=usage.completion_tokens,
                decode_seconds=timings.decode,
                batch=batch,
            ),
        )
        return rates

    def knows(self, model: str) -> bool:
        """Whether *model* was ever measured."""
        return model in self._rates

    def claims(self, model: str, usual_tokens: int | None) -> dict[str, Any]:
        """The fields of an offer that say its speed; empty before the first measurement."""
        rates = self._rates.get(model)
        if rates is None:
            return {}
        measured = {
            "prefill_rate": rates.prefill,
            "decode_rate": rates.decode,
            "slowdown": rates.slowdown,
            "usual_tokens": usual_tokens,
        }
        # An answer that was too short to time takes back nothing that its backend says itself.
        return {name: value for name, value in measured.items() if value is not None}

    def prefill_seconds(self, model: str, prompt_tokens: int) -> float:
        """Seconds to read a prompt; 0 before the first measurement."""
        rates = self._rates.get(model)
        return prompt_tokens / rates.prefill if rates and rates.prefill else 0.0


async def calibrate(
    backend: Backend, speeds: Speeds, *, timed: Callable[[str, Rates], None]
) -> None:
    """Time a short answer of every model that can chat, so that the first advert is true.

    No other request may use *backend* meanwhile: its time would be measured too.

    Args:
      backend: The backend to time.
      speeds: Learns the rates.
      timed: Called with each model and its rates.

    Raises:
      BackendError: if the backend cannot answer.

    """
    for offer in backend.offers:
        if "chat" in offer.features:
            await time_model(backend, offer, speeds, timed=timed)


async def time_model(
    backend: Backend,
    offer: ModelOffer,
    speeds: Speeds,
    *,
    timed: Callable[[str, Rates], None],
    busy_seconds: Callable[[], float] = lambda: 0.0,
) -> None:
    """Time a short answer of one model.

    Args:
      backend: The backend to time.
      offer: Its offer of the model.
      speeds: Learns the rates.
      timed: Called with the model and its rates.
      busy_seconds: Slot-seconds that requests of others took so far.

    Raises:
      PunchError: if the backend does not answer with it.

    """
    generation = None
    began, busy = trio.current_time(), busy_seconds()
    with trio.move_on_after(CALIBRATION_SECONDS) as scope:
        await backend.ready(_ignore)
        generation = await _answer(backend, offer.name)
    if scope.cancelled_caught:
        log.warning("calibration took too long; speeds are unknown", model=offer.name)
    elif generation is None:
        log.warning(
            "calibration does not fit the context; speeds are unknown",
            model=offer.name,
            context_tokens=offer.context_tokens,
        )
    if generation is None:
        return
    took = trio.current_time() - began
    batch = 1.0 + ((busy_seconds() - busy) / took if took > 0 else 0.0)
    rates = speeds.learn(offer.name, generation.usage, generation.timings, batch=batch)
    timed(offer.name, rates)
    log.info(
        "calibrated",
        model=offer.name,
        prefill_rate=rates.prefill and round(rates.prefill, 1),
        decode_rate=rates.decode and round(rates.decode, 1),
    )


async def _answer(backend: Backend, model: str) -> Generation | None:
    """A short answer of *model* to as much of the prompt as fits; `None` if no word of it does."""
    # A tokenizer of bytes makes a thousand tokens of what others make two hundred, and the chat
    # template's own text is unknown here: only the backend can count, so it is asked.
    prompt = CALIBRATION_PROMPT
    while len(prompt) >= MIN_CALIBRATION_CHARACTERS:
        request = CommandRequest(
            request_id=f"calibration-{len(prompt)}",
            model=model,
            messages=(ChatMessage(role="user", content=prompt),),
            sampling=Sampling(max_tokens=CALIBRATION_TOKENS, temperature=0.0),
        )
        try:
            return await backend.generate(request, _nowhere)
        except ContextTooLong:
            prompt = prompt[: len(prompt) // 2]
    return None


def _ignore(seconds: float) -> None:
    pass


async def _nowhere(text: str, tokens: int) -> None:
    await trio.lowlevel.checkpoint()
