"""What computing a layer costs on each device, and what goes over each link.

Tables of running sums, made when they are first asked for: what some layers cost is a difference,
so that formulas and planner may ask thousands of times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

from ..gguf import LayerSize, Layout
from ._calibration import Calibration
from ._room import cache_bytes_per_token
from ._wants import Device, Wants

# Positions, the ids of tokens and slots, and the heads of seven messages (counted: 4.7 KB up, of
# which the activations of SmolLM2 are 2.3 KB and its mask half a kilobyte).
MESSAGE_BYTES: Final = 2_000

# Numbers travel as F32, a mask as F16.
NUMBER_BYTES: Final = 4
MASK_BYTES: Final = 2

# Counted: a graph takes 200 KB for the 30 layers of SmolLM2, and goes with every micro-batch whose
# shape is new.
GRAPH_BYTES_PER_LAYER: Final = 6_700

# Measured: what a worker's server and llama.cpp's handling of it cost beside its layers, for each
# token. 0.91, 0.8 and 0.79 of the speed of one machine with one, two and three workers on loopback.
WORKER_SECONDS: Final = 0.001

# A multiply-add is done with each weight. Where a layout does not say how many those are, each is
# taken for so many bits: Q4_K_M.
BITS_PER_WEIGHT: Final = 4.85

# Measured: a few tokens at once are computed at half the speed of a long prompt.
SMALL_BATCH: Final = 2.0

_SHORTEST_PROMPT: Final = 1

Span = tuple[int, int, int]
"""Number of a device, its first layer, and the one behind its last."""


class Costs:
    """Of one model, one list of devices and one mix."""

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
        self.kept = [
            size * _seen(one, mix.context_tokens) + one.state
            for size, one in zip(cache_bytes_per_token(layout, wants), layout.layers, strict=True)
        ]
        self._attended = [
            2.0 * layout.embedding * _seen(one, mix.prompt_tokens // 2) for one in layout.layers
        ]
        self._tables: dict[tuple[str, int, float], list[float]] = {}
        self.rtt = [one.link.rtt if one.link else 0.0 for one in devices]
        self.per_byte = [1.0 / one.link.rate if one.link else 0.0 for one in devices]
        self._hops = 2 * NUMBER_BYTES * layout.embedding
        self._mask = MASK_BYTES * mix.context_tokens
        # The prompt is half read, on the average.
        self._prompt_mask = MASK_BYTES * (mix.prompt_tokens // 2)
        self.logits = NUMBER_BYTES * layout.vocabulary

    def one_step(self, span: Span, tokens: float) -> tuple[float, float, float]:
        """Seconds of computing, of waiting and of traffic that a share adds to a step."""
        device, begin, end = span
        first, further = self._token(device), self._further(device, tokens)
        compute = first[end] - first[begin] + further[end] - further[begin]
        if not self.devices[device].is_remote:
            return compute, 0.0, 0.0
        moved = MESSAGE_BYTES + tokens * (self._hops + self._mask)
        return compute + WORKER_SECONDS, self.rtt[device], moved * self.per_byte[device]

    def _token(self, device: int) -> list[float]:
        key = ("token", device, 1.0)
        if key not in self._tables:
            bandwidth = self.devices[device].bandwidth
            self._tables[key] = _running(
                (active + kept) / bandwidth
                for active, kept in zip(self._active, self.kept, strict=True)
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
                    self.layout.layers, self._active, self.kept, strict=True
                )
            )
        return self._tables[key]

    def output(self, last: int, output_on_head: bool, tokens: float) -> float:
        """Seconds in which logits are computed, for so many tokens."""
        device = self.head_cpu if output_on_head else last
        if device is None:
            return 0.0
        one, size = self.devices[device], self.layout.output
        more = max(0.0, tokens - 1.0) * SMALL_BATCH * self._multiply_adds(size) / one.compute
        return size / one.bandwidth + more

    def prompt_tokens(self, prompts: int) -> int:
        """Tokens of so many prompts together."""
        return max(_SHORTEST_PROMPT, self.wants.mix.prompt_tokens) * prompts

    def stage(self, span: Span, size: int) -> tuple[float, float]:
        """Seconds of computing and of traffic for a micro-batch of *size* tokens."""
        device, begin, end = span
        table = self.stages(device, size)
        compute = table[end] - table[begin]
        if not self.devices[device].is_remote:
            return compute, 0.0
        graph = GRAPH_BYTES_PER_LAYER * (end - begin)
        moved = graph + size * (self._hops + self._prompt_mask)
        return compute + WORKER_SECONDS, moved * self.per_byte[device]

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

    def answer_layers(self, device: int, tokens: float) -> list[float]:
        """Seconds of a step of *tokens* in all layers before each."""
        key = ("answer", device, tokens)
        if key not in self._tables:
            factor = self.calibration.token.compute
            both = zip(self._token(device), self._further(device, tokens), strict=True)
            self._tables[key] = [(one + more) * factor for one, more in both]
        return self._tables[key]

    def prompt_layers(self, device: int, size: int) -> list[float]:
        """Seconds of a micro-batch of *size* tokens in all layers before each, graphs included."""
        key = ("prompt", device, float(size))
        if key not in self._tables:
            factors = self.calibration.prompt
            graph = GRAPH_BYTES_PER_LAYER * self.per_byte[device] * factors.traffic
            self._tables[key] = [
                seconds * factors.compute + graph * layers
                for layers, seconds in enumerate(self.stages(device, size))
            ]
        return self._tables[key]

    def least_prompt(
        self, device: int, sizes: Sequence[int], *, prompts: int, is_alone: bool
    ) -> list[float]:
        """Seconds that each layer adds to prompts at least, whichever the size of a micro-batch.

        Of two halves that work at once the larger takes half of both, at least.
        """
        tokens = self.prompt_tokens(prompts)
        key = ("alone" if is_alone else "half", device, float(tokens))
        if key not in self._tables:
            found = [math.inf] * len(self.kept)
            for size in {min(size, tokens) for size in sizes}:
                times = tokens / size if is_alone else (tokens / size + 1) / 2
                times *= self.calibration.prompt.compute
                added = (b - a for a, b in pairwise(self.stages(device, size)))
                found = [min(least, times * one) for least, one in zip(found, added, strict=True)]
            self._tables[key] = found
        return self._tables[key]

    def fixed(self, device: int, tokens: float, size: int) -> tuple[float, float, float]:
        """What a device adds, however many layers it has.

        Returns:
          Seconds of a step; of a micro-batch, without its round trip; and that round trip.

        """
        if not self.devices[device].is_remote:
            return 0.0, 0.0, 0.0
        per_byte, rtt = self.per_byte[device], self.rtt[device]
        token, prompt = self.calibration.token, self.calibration.prompt
        moved = (MESSAGE_BYTES + tokens * (self._hops + self._mask)) * per_byte
        step = WORKER_SECONDS * token.compute + rtt * token.waits + moved * token.traffic
        batch = size * (self._hops + self._prompt_mask) * per_byte * prompt.traffic
        return step, WORKER_SECONDS * prompt.compute + batch, rtt * prompt.waits

    def ending(self, last: int, output_on_head: bool, tokens: float) -> float:
        """Seconds of a step in which logits are made and come back."""
        factors = self.calibration.token
        made = self.output(last, output_on_head, tokens) * factors.compute
        if output_on_head:
            return made
        return made + tokens * self.logits * self.per_byte[last] * factors.traffic

    def _multiply_adds(self, size: float) -> float:
        """With weights of so many bytes, for one token."""
        return size * 8 / self._bits

    def traffic_bytes(self, span: Span, *, is_last: bool, output_on_head: bool) -> tuple[int, int]:
        """Bytes up and down for each token of an answer; none for the head's own."""
        if not self.devices[span[0]].is_remote:
            return 0, 0
        hop = NUMBER_BYTES * self.layout.embedding
        down = self.logits if is_last and not output_on_head else hop
        return MESSAGE_BYTES + hop + self._mask, down


def _running(values: Iterable[float]) -> list[float]:
    return list(accumulate(values, initial=0.0))


def _seen(layer: LayerSize, tokens: int) -> int:
    """Of so many tokens those that a layer looks back at."""
    if not layer.kv_per_token:
        return 0
    return tokens if layer.window is None else min(tokens, layer.window)
