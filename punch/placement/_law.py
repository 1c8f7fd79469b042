"""The four formulas: seconds for a token, a prompt, a load, and a switch between prompts.

A split is a star. For every token the head sends a worker what goes into its layers, waits for what
comes out, and sends that to the next one: one round trip for each worker, and nothing is sent from
worker to worker. So, with round trip and rate of each worker *i*, and nothing for the head's own
devices::

    token  = sum(compute_i) + sum(rtt_i) + sum(bytes_i / rate_i) + logits / rate_last
    prompt = max(waited, last) * (micro_batches - 1) + waited + last + rtt_last + logits / rate_last
    load   = start + 46 * sum(rtt_i) + sum(weights_i / rate_i)
    switch = 0 with -cram 0, or else sum(2 * layers_i * rtt_i + cache_i / rate_i) for a new prompt

`waited` is the sum of compute, traffic and round trip over all devices but the last one, for a
micro-batch: llama.cpp's scheduler copies a tensor from one server to the next by way of the head,
and blocks for that, so that only the last device computes while the head begins the next
micro-batch (`ggml_backend_sched_compute_splits`; there is no `cpy_tensor_async` over RPC). With two
devices this is the pipeline of `max(stage_1, stage_2)`; a third one adds nothing to it. The first
prompt of a new shape waits some four times more at each worker, which later ones do not.

`logits` is 0 where the output is on the head. All counts of messages were measured with llama.cpp's
RPC 7.0.0; docs/split.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ._costs import Costs, Span
from ._prediction import Parts
from ._settings import Speculation

# Counted: 43 to 47 replies that the head waits for while it loads, twelve connections and each a
# hello among them.
LOAD_WAITS: Final = 46

# Measured: a small head of llama-server, with nothing to send. Then weights are read from a disk.
START_SECONDS: Final = 0.28
START_RATE: Final = 1.5e9

# Measured: 230 tokens a second of a long prompt instead of 247, since llama.cpp's scheduler keeps
# but one copy of its inputs once any tensor is placed by hand (``-ot``).
PLACED_OUTPUT: Final = 1.07

_FourParts = tuple[float, float, float, float]


class Law:
    """The formulas over one model, one list of devices and one mix.

    Plain sums over tables that are made once: a planner asks them thousands of times.
    """

    def __init__(self, costs: Costs) -> None:
        self.costs = costs

    # -- a token ------------------------------------------------------------------------------

    def step(self, spans: Sequence[Span], output_on_head: bool, tokens: float) -> _FourParts:
        """Seconds for a step that computes *tokens* at once: one for each answer, and drafts."""
        costs = self.costs
        factors = costs.calibration.token
        compute = waits = traffic = logits = 0.0
        for span in spans:
            computing, waiting, moving = costs.one_step(span, tokens)
            compute += computing
            waits += waiting
            traffic += moving
        last = spans[-1][0]
        compute += costs.output(last, output_on_head, tokens)
        if not output_on_head:
            logits = tokens * costs.logits * costs.per_byte[last]
        return (
            compute * factors.compute,
            waits * factors.waits,
            traffic * factors.traffic,
            logits * factors.traffic,
        )

    def share(self, span: Span, *, is_last: bool, output_on_head: bool) -> Parts:
        """What one device of the split adds to the seconds of a token."""
        costs = self.costs
        compute, waits, traffic = costs.one_step(span, 1)
        logits = 0.0
        if is_last and not output_on_head:
            compute += costs.output(span[0], output_on_head, 1)
            logits = costs.logits * costs.per_byte[span[0]]
        parts = Parts(compute=compute, waits=waits, traffic=traffic, logits=logits)
        return costs.calibration.token.scaled(parts)

    # -- a prompt -----------------------------------------------------------------------------

    def prompt(
        self, spans: Sequence[Span], output_on_head: bool, micro_batch: int, prompts: int
    ) -> _FourParts:
        """Seconds from *prompts* that come at once to the first token of their answers."""
        costs = self.costs
        tokens = costs.prompt_tokens(prompts)
        size = min(micro_batch, tokens)
        times = tokens / size - 1.0
        if output_on_head and len(spans) > 1:
            times *= PLACED_OUTPUT
        factors = costs.calibration.prompt
        *waited, last = spans
        a_compute = a_waits = a_traffic = 0.0
        end_waits = costs.rtt[last[0]] * factors.waits
        for span in waited:
            compute, traffic = costs.stage(span, size)
            a_compute += compute
            a_traffic += traffic
            a_waits += costs.rtt[span[0]]
        b_compute, b_traffic = costs.stage(last, size)
        a_compute, b_compute = a_compute * factors.compute, b_compute * factors.compute
        a_traffic, b_traffic = a_traffic * factors.traffic, b_traffic * factors.traffic
        a_waits *= factors.waits
        is_waited = a_compute + a_waits + a_traffic > b_compute + b_traffic
        output = costs.output(last[0], output_on_head, prompts) * factors.compute
        logits = 0.0
        if not output_on_head:
            logits = prompts * costs.logits * costs.per_byte[last[0]] * factors.traffic
        return (
            times * (a_compute if is_waited else b_compute) + a_compute + b_compute + output,
            times * (a_waits if is_waited else 0.0) + a_waits + end_waits,
            times * (a_traffic if is_waited else b_traffic) + a_traffic + b_traffic,
            logits,
        )

    # -- a load and a switch ------------------------------------------------------------------

    def load(self, spans: Sequence[Span], output_on_head: bool) -> _FourParts:
        """Seconds until the head can be asked: one worker after the other."""
        costs = self.costs
        factors = costs.calibration.load
        whole = costs.layout.embeddings + sum(one.weights for one in costs.layout.layers)
        compute = START_SECONDS + whole / START_RATE
        waits = traffic = 0.0
        for place, (device, begin, end) in enumerate(spans):
            weights = sum(one.weights for one in costs.layout.layers[begin:end])
            if place == len(spans) - 1 and not output_on_head:
                weights += costs.layout.output
            waits += LOAD_WAITS * costs.rtt[device]
            traffic += weights * costs.per_byte[device]
        return compute * factors.compute, waits * factors.waits, traffic * factors.traffic, 0.0

    def switch(self, spans: Sequence[Span]) -> float:
        """Seconds in which llama-server without ``-cram 0`` saves what it knows of a prompt."""
        costs = self.costs
        kept = 0.0
        for device, begin, end in spans:
            size = sum(costs.kept[begin:end])
            waits = 2 * (end - begin) * costs.rtt[device]
            kept += waits + size * costs.per_byte[device]
        return kept

    # -- all of it ----------------------------------------------------------------------------

    def gain(
        self, spans: Sequence[Span], output_on_head: bool, at_once: int, speculation: Speculation
    ) -> float:
        """By what plain text is faster with *speculation*: tokens a step, over what it takes."""
        drafted = at_once * (1.0 + speculation.hits * speculation.draft)
        plain = sum(self.step(spans, output_on_head, at_once))
        guessed = sum(self.step(spans, output_on_head, drafted))
        return speculation.tokens_per_step * plain / guessed

    def guess(
        self, spans: Sequence[Span], output_on_head: bool, at_once: int, speculation: Speculation
    ) -> float:
        """Seconds that each guessed token adds to a step, be it right or wrong."""
        plain = sum(self.step(spans, output_on_head, at_once))
        guessed = sum(self.step(spans, output_on_head, at_once + speculation.draft))
        return (guessed - plain) / speculation.draft

    def seconds(
        self,
        spans: Sequence[Span],
        output_on_head: bool,
        micro_batch: int,
        slots: int,
        speculation: Speculation | None,
    ) -> float:
        """Seconds for the mix; the sum of the terms of a `Prediction`."""
        costs = self.costs
        mix = costs.wants.mix
        at_once = min(slots, mix.concurrent)
        gain = 1.0
        if speculation is not None:
            gain = self.gain(spans, output_on_head, at_once, speculation)
        prompt = sum(self.prompt(spans, output_on_head, micro_batch, at_once))
        step = sum(self.step(spans, output_on_head, at_once))
        return math.ceil(mix.concurrent / slots) * (prompt + mix.answer_tokens * step / gain)


def four(parts: _FourParts) -> Parts:
    """As a value."""
    compute, waits, traffic, logits = parts
    return Parts(compute=compute, waits=waits, traffic=traffic, logits=logits)
