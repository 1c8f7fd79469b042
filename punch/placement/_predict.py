"""Predicts what given shares are worth, term by term."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..gguf import Layout
from ._calibration import Calibration
from ._costs import Costs, Span
from ._law import Law, four
from ._plan import Share
from ._prediction import DeviceTime, Parts, Prediction
from ._settings import Speculation
from ._wants import Device, Wants


def predict(
    layout: Layout,
    shares: Sequence[Share],
    *,
    devices: Sequence[Device],
    wants: Wants,
    output_on_head: bool = False,
    micro_batch: int = 512,
    slots: int = 1,
    speculation: Speculation | None = None,
    keeps_prompts: bool = False,
    calibration: Calibration | None = None,
) -> Prediction:
    """What *shares*, in the order of ``--device``, take for the mix of *wants*.

    Args:
      layout: The model.
      shares: Which device holds which layers; only `Share.device` and `Share.layers` are read.
      devices: All devices that shares name; the head's processor where the output is on the head.
      wants: The mix of work, and types of the cache.
      output_on_head: Whether the head's processor turns the last layer into logits.
      micro_batch: Tokens of a prompt that go through the devices together.
      slots: Requests that are served at once.
      speculation: How the head guesses tokens.
      keeps_prompts: Whether llama-server saves what it knows of a prompt (without ``-cram 0``).
      calibration: What was learned of earlier predictions.

    Returns:
      The prediction; its terms are seconds and add up to `Prediction.seconds`. The formulas stand
      in `punch.placement._law`.

    Raises:
      ValueError: if shares name a device that is not there, or leave out a layer.

    """
    law = Law(Costs(layout, devices, wants, calibration or Calibration()))
    number = {one.id: i for i, one in enumerate(law.costs.devices)}
    unknown = [one.device for one in shares if one.device not in number]
    if unknown or not shares:
        raise ValueError(f"shares name {unknown or 'no device'}; devices are {sorted(number)}")
    spans = [(number[one.device], one.layers.start, one.layers.stop) for one in shares]
    ends = [0, *(end for _, _, end in spans)]
    if [begin for _, begin, _ in spans] != ends[:-1] or ends[-1] != len(layout.layers):
        raise ValueError(f"shares are {ends}; they must hold all {len(layout.layers)} layers")
    return predicted(
        law,
        spans,
        output_on_head=output_on_head,
        micro_batch=micro_batch,
        slots=slots,
        speculation=speculation,
        keeps_prompts=keeps_prompts,
    )


def predicted(
    law: Law,
    spans: Sequence[Span],
    *,
    output_on_head: bool,
    micro_batch: int,
    slots: int,
    speculation: Speculation | None,
    keeps_prompts: bool = False,
) -> Prediction:
    """The same of spans, by a law that is made already."""
    mix = law.costs.wants.mix
    at_once = min(slots, mix.concurrent)
    waves = math.ceil(mix.concurrent / slots)
    token = four(law.step(spans, output_on_head, 1))
    step = four(law.step(spans, output_on_head, at_once))
    first = four(law.prompt(spans, output_on_head, micro_batch, 1))
    prompts = four(law.prompt(spans, output_on_head, micro_batch, at_once)).times(waves)
    answers = step.times(waves * mix.answer_tokens)
    load = four(law.load(spans, output_on_head))
    gain, guess = 1.0, 0.0
    if speculation is not None:
        gain = law.gain(spans, output_on_head, at_once, speculation)
        guess = law.guess(spans, output_on_head, at_once, speculation)
    terms = {f"prompt {name}": value for name, value in prompts.as_dict().items()}
    terms |= {f"answer {name}": value for name, value in answers.as_dict().items()}
    terms["speculation"] = answers.total * (1.0 / gain - 1.0)
    terms["switch"] = mix.concurrent * law.switch(spans) if keeps_prompts else 0.0
    prompt_tokens = max(1, mix.prompt_tokens)
    return Prediction(
        token=token.total,
        first_token=first.total,
        prompt_rate=prompt_tokens / first.total if first.total else math.inf,
        load=load.total,
        seconds=sum(terms.values()),
        terms=terms,
        step=step.total,
        gain=gain,
        guess=guess,
        token_parts=token,
        prompt_parts=first,
        load_parts=load,
        devices=tuple(
            _device_time(law, spans, place, output_on_head, micro_batch)
            for place in range(len(spans))
        ),
    )


def _device_time(
    law: Law, spans: Sequence[Span], place: int, output_on_head: bool, micro_batch: int
) -> DeviceTime:
    span = spans[place]
    is_last = place == len(spans) - 1
    compute, traffic = law.costs.stage(span, micro_batch)
    up, down = law.costs.traffic_bytes(span, is_last=is_last, output_on_head=output_on_head)
    return DeviceTime(
        device=law.costs.devices[span[0]].id,
        token=law.share(span, is_last=is_last, output_on_head=output_on_head),
        micro_batch=law.costs.calibration.prompt.scaled(Parts(compute=compute, traffic=traffic)),
        up_bytes=up,
        down_bytes=down,
    )
