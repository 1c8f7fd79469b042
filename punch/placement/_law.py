"""The four formulas: seconds for a token, a prompt, a load, and a switch between prompts.

A split is a star. For every token the head sends a worker what goes into its layers, waits for what
comes out, and sends that to the next one: one round trip for each worker, and nothing is sent from
worker to worker. So, with round trip and rate of each worker *i*, and nothing for the head's own
devices::

    token  = sum(compute_i) + sum(rtt_i) + sum(bytes_i / rate_i) + logits / rate_last
    prompt = max(waited, last) * (micro_batches - 1) + waited + last + 4 * sum(rtt_i) + rtt_last
    load   = start + 46 * sum(rtt_i) + sum(weights_i / rate_i)
    switch = 0 with -cram 0, or else sum(2 * layers_i * rtt_i + cache_i / rate_i) for a new prompt

`waited` is the sum of compute, traffic and round trip over all devices but the last one, for a
micro-batch: llama.cpp's scheduler copies a tensor from one server to the next by way of the head,
and blocks for that, so that only the last device computes while the head begins the next
micro-batch (`ggml_backend_sched_compute_splits`; there is no `cpy_tensor_async` over RPC). With two
devices this is the pipeline of `max(stage_1, stage_2)`; a third one adds nothing to it.

`logits` is 0 where the output is on the head. All counts of messages were measured with llama.cpp's
RPC 7.0.0; docs/split.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from ..gguf import LayerSize, Layout
from ._calibration import Calibration
from ._memory import cache_bytes_per_token
from ._prediction import Parts
from ._speculation import Speculation
from ._wants import Device, Wants

# Positions, the ids of tokens and slots, and the heads of seven messages (counted: 4.7 KB up, of
# which the activations of SmolLM2 are 2.3 KB and its mask half a kilobyte).
MESSAGE_BYTES: Final = 2_000

# Numbers travel as F32, a mask as F16.
NUMBER_BYTES: Final = 4
MASK_BYTES: Final = 2

# Counted: 43 to 47 replies that the head waits for while it loads, twelve connections and each a
# hello among them.
LOAD_WAITS: Final = 46

# Counted: replies waited for where a prompt has a shape that a worker has not seen yet; one else.
FIRST_SHAPE_WAITS: Final = 5

# Counted: a graph takes 200 KB for the 30 layers of SmolLM2, and goes with every micro-batch whose
# shape is new.
GRAPH_BYTES_PER_LAYER: Final = 6_700

# Measured: what a worker's server and llama.cpp's handling of it cost beside its layers, for each
# token. 0.91, 0.8 and 0.79 of the speed of one machine with one, two and three workers on loopback.
WORKER_SECONDS: Final = 0.001

# Measured: a small head of llama-server, with nothing to send. Then weights are read from a disk.
START_SECONDS: Final = 0.28
START_RATE: Final = 1.5e9

# A multiply-add is done with each weight. Where a layout does not say how many those are, each is
# taken for so many bits: Q4_K_M.
BITS_PER_WEIGHT: Final = 4.85

# Measured: a few tokens at once are computed at half the speed of a long prompt.
SMALL_BATCH: Final = 2.0

_SHORTEST_PROMPT: Final = 1

Span = tuple[int, int, int]
"""Number of a device, its first layer, and the one behind its last."""

_FourParts = tuple[float, float, float, float]


class Law:
    """The formulas over one model, one list of devices and one mix.

    Plain sums over tables that are made once: a planner asks them thousands of times.
    """

    def __init__(
        self,
        layout: Layout,
        devices: Sequence[Device],
        wants: Wants,
        calibration: Calibration,
    ) -> None:
        self.layout = layout
        self.devices = tuple(devices)
        self.wants = wants
        self.calibration = calibration
        self.head_cpu = next((i for i, one in enumerate(devices) if one.is_head_cpu), None)
        mix = wants.mix
        used = layout.experts_used / layout.experts if layout.experts else 1.0
        self._used = min(used, 1.0)
        self._bits = BITS_PER_WEIGHT
        if layout.parameters:
            self._bits = 8 * layout.weights / layout.parameters
        self._active = [one.weights - one.experts * (1.0 - self._used) for one in layout.layers]
        self._kept = [
            size * _seen(one, mix.context_tokens) + one.state
            for size, one in zip(cache_bytes_per_token(layout, wants), layout.layers, strict=True)
        ]
        self._attended = [
            2.0 * layout.embedding * _seen(one, mix.prompt_tokens // 2) for one in layout.layers
        ]
        self._tables: dict[tuple[str, int, float], list[float]] = {}
        self._link_rtt = [one.link.rtt if one.link else 0.0 for one in devices]
        self._per_byte = [1.0 / one.link.rate if one.link else 0.0 for one in devices]
        self._hops = 2 * NUMBER_BYTES * layout.embedding
        self._mask = MASK_BYTES * mix.context_tokens
        self._logits = NUMBER_BYTES * layout.vocabulary

    # -- a token ------------------------------------------------------------------------------

    def step(self, spans: Sequence[Span], output_on_head: bool, tokens: float) -> _FourParts:
        """Seconds for a step that computes *tokens* at once: one for each answer, and drafts."""
        factors = self.calibration.token
        compute = waits = traffic = logits = 0.0
        for span in spans:
            computing, waiting, moving = self._share(span, tokens)
            compute += computing
            waits += waiting
            traffic += moving
        last = spans[-1][0]
        compute += self._output(last, output_on_head, tokens)
        if not output_on_head:
            logits = tokens * self._logits * self._per_byte[last]
        return (
            compute * factors.compute,
            waits * factors.waits,
            traffic * factors.traffic,
            logits * factors.traffic,
        )

    def share(self, span: Span, *, is_last: bool, output_on_head: bool) -> Parts:
        """What one device of the split adds to the seconds of a token."""
        compute, waits, traffic = self._share(span, 1)
        logits = 0.0
        if is_last and not output_on_head:
            compute += self._output(span[0], output_on_head, 1)
            logits = self._logits * self._per_byte[span[0]]
        parts = Parts(compute=compute, waits=waits, traffic=traffic, logits=logits)
        return self.calibration.token.scaled(parts)

    def _share(self, span: Span, tokens: float) -> tuple[float, float, float]:
        device, begin, end = span
        first, further = self._token(device), self._further(device, tokens)
        compute = first[end] - first[begin] + further[end] - further[begin]
        if not self.devices[device].is_remote:
            return compute, 0.0, 0.0
        moved = MESSAGE_BYTES + tokens * (self._hops + self._mask)
        return compute + WORKER_SECONDS, self._link_rtt[device], moved * self._per_byte[device]

    def _token(self, device: int) -> list[float]:
        key = ("token", device, 1.0)
        if key not in self._tables:
            bandwidth = self.devices[device].bandwidth
            self._tables[key] = _running(
                (active + kept) / bandwidth
                for active, kept in zip(self._active, self._kept, strict=True)
            )
        return self._tables[key]

    def _further(self, device: int, tokens: float) -> list[float]:
        """What a step of more tokens than one takes beyond that of one."""
        key = ("further", device, tokens)
        if key not in self._tables:
            one = self.devices[device]
            more = max(0.0, tokens - 1.0)
            # Each token has experts of its own, until all of them are read.
            experts = min(1.0, tokens * self._used) - self._used if more else 0.0
            self._tables[key] = _running(
                more
                * (SMALL_BATCH * self._multiply_adds(active) / one.compute + kept / one.bandwidth)
                + experts * layer.experts / one.bandwidth
                for layer, active, kept in zip(
                    self.layout.layers, self._active, self._kept, strict=True
                )
            )
        return self._tables[key]

    def _output(self, last: int, output_on_head: bool, tokens: float) -> float:
        """Seconds in which logits are computed, for so many tokens."""
        device = self.head_cpu if output_on_head else last
        if device is None:
            return 0.0
        one, size = self.devices[device], self.layout.output
        more = max(0.0, tokens - 1.0) * SMALL_BATCH * self._multiply_adds(size) / one.compute
        return size / one.bandwidth + more

    # -- a prompt -----------------------------------------------------------------------------

    def prompt(
        self, spans: Sequence[Span], output_on_head: bool, micro_batch: int, prompts: int
    ) -> _FourParts:
        """Seconds from *prompts* that come at once to the first token of their answers."""
        tokens = max(_SHORTEST_PROMPT, self.wants.mix.prompt_tokens) * prompts
        size = min(micro_batch, tokens)
        times = tokens / size - 1.0
        factors = self.calibration.prompt
        *waited, last = spans
        a_compute = a_waits = a_traffic = 0.0
        extra = 0.0
        for span in waited:
            compute, traffic = self.stage(span, size)
            a_compute += compute
            a_traffic += traffic
            a_waits += self._link_rtt[span[0]]
            extra += (FIRST_SHAPE_WAITS - 1) * self._link_rtt[span[0]]
        b_compute, b_traffic = self.stage(last, size)
        extra += FIRST_SHAPE_WAITS * self._link_rtt[last[0]]
        a_compute, b_compute = a_compute * factors.compute, b_compute * factors.compute
        a_traffic, b_traffic = a_traffic * factors.traffic, b_traffic * factors.traffic
        a_waits, extra = a_waits * factors.waits, extra * factors.waits
        is_waited = a_compute + a_waits + a_traffic > b_compute + b_traffic
        output = self._output(last[0], output_on_head, prompts) * factors.compute
        logits = 0.0
        if not output_on_head:
            logits = prompts * self._logits * self._per_byte[last[0]] * factors.traffic
        return (
            times * (a_compute if is_waited else b_compute) + a_compute + b_compute + output,
            times * (a_waits if is_waited else 0.0) + a_waits + extra,
            times * (a_traffic if is_waited else b_traffic) + a_traffic + b_traffic,
            logits,
        )

    def stage(self, span: Span, size: int) -> tuple[float, float]:
        """Seconds of computing and of traffic for a micro-batch of *size* tokens."""
        device, begin, end = span
        table = self.stages(device, size)
        compute = table[end] - table[begin]
        if not self.devices[device].is_remote:
            return compute, 0.0
        # The prompt is half read, on the average.
        mask = MASK_BYTES * (self.wants.mix.prompt_tokens // 2)
        graph = GRAPH_BYTES_PER_LAYER * (end - begin)
        moved = graph + size * (self._hops + mask)
        return compute + WORKER_SECONDS, moved * self._per_byte[device]

    def stages(self, device: int, size: int) -> list[float]:
        """Seconds of a micro-batch of *size* tokens in all layers before each."""
        key = ("stage", device, float(size))
        if key not in self._tables:
            one = self.devices[device]
            share = min(1.0, size * self._used)
            self._tables[key] = _running(
                max(
                    # Weights are gone through once for all tokens, however few there are.
                    (layer.weights - layer.experts * (1.0 - share)) / one.bandwidth,
                    size * (self._multiply_adds(active) + attended) / one.compute,
                )
                for layer, active, attended in zip(
                    self.layout.layers, self._active, self._attended, strict=True
                )
            )
        return self._tables[key]

    # -- a load and a switch ------------------------------------------------------------------

    def load(self, spans: Sequence[Span], output_on_head: bool) -> _FourParts:
        """Seconds until the head can be asked: one worker after the other."""
        factors = self.calibration.load
        whole = self.layout.embeddings + sum(one.weights for one in self.layout.layers)
        compute = START_SECONDS + whole / START_RATE
        waits = traffic = 0.0
        for place, (device, begin, end) in enumerate(spans):
            weights = sum(one.weights for one in self.layout.layers[begin:end])
            if place == len(spans) - 1 and not output_on_head:
                weights += self.layout.output
            waits += LOAD_WAITS * self._link_rtt[device]
            traffic += weights * self._per_byte[device]
        return compute * factors.compute, waits * factors.waits, traffic * factors.traffic, 0.0

    def switch(self, spans: Sequence[Span]) -> float:
        """Seconds in which llama-server without ``-cram 0`` saves what it knows of a prompt."""
        kept = 0.0
        for device, begin, end in spans:
            size = sum(self._kept[begin:end])
            waits = 2 * (end - begin) * self._link_rtt[device]
            kept += waits + size * self._per_byte[device]
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

    def seconds(
        self,
        spans: Sequence[Span],
        output_on_head: bool,
        micro_batch: int,
        slots: int,
        speculation: Speculation | None,
    ) -> float:
        """Seconds for the mix; the sum of the terms of a `Prediction`."""
        mix = self.wants.mix
        at_once = min(slots, mix.concurrent)
        gain = 1.0
        if speculation is not None:
            gain = self.gain(spans, output_on_head, at_once, speculation)
        prompt = sum(self.prompt(spans, output_on_head, micro_batch, at_once))
        step = sum(self.step(spans, output_on_head, at_once))
        return math.ceil(mix.concurrent / slots) * (prompt + mix.answer_tokens * step / gain)

    def _multiply_adds(self, size: float) -> float:
        """With weights of so many bytes, for one token."""
        return size * 8 / self._bits

    def traffic_bytes(self, span: Span, *, is_last: bool, output_on_head: bool) -> tuple[int, int]:
        """Bytes up and down for each token of an answer; none for the head's own."""
        if not self.devices[span[0]].is_remote:
            return 0, 0
        hop = NUMBER_BYTES * self.layout.embedding
        down = self._logits if is_last and not output_on_head else hop
        return MESSAGE_BYTES + hop + self._mask, down


def _running(values: Iterable[float]) -> list[float]:
    return list(accumulate(values, initial=0.0))


def _seen(layer: LayerSize, tokens: int) -> int:
    """Of so many tokens those that a layer looks back at."""
    if not layer.kv_per_token:
        return 0
    return tokens if layer.window is None else min(tokens, layer.window)


def four(parts: _FourParts) -> Parts:
    """As a value."""
    compute, waits, traffic, logits = parts
    return Parts(compute=compute, waits=waits, traffic=traffic, logits=logits)
