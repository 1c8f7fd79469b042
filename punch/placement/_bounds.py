"""What a set of devices takes at least, however the layers are cut.

As if layers could be cut anywhere, the cheapest devices filled first, the two halves of a pipeline
even, and buffers the smallest: each is at most what a real cut takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from ._costs import Costs
from ._room import Room
from ._settings import Setting

MICRO_BATCHES: Final = (64, 128, 256, 512)
"""Tokens of a prompt that go through together. Measured: 32 are slower, whatever the split."""


class Bounds:
    """The bounds with one setting."""

    def __init__(self, costs: Costs, setting: Setting, room: Callable[[int, int], Room]) -> None:
        self._setting = setting
        least = room(setting.slots, MICRO_BATCHES[0])
        self._total = least.total
        self._layers = least.layers
        numbers = range(len(costs.devices))
        self._capacity = [least.most(each) for each in numbers]
        tokens = costs.prompt_tokens(setting.prompts)
        first = min(MICRO_BATCHES[0], tokens)
        self._fixed = []
        for each in numbers:
            step, batch, rtt = costs.fixed(each, setting.tokens, first)
            self._fixed.append(setting.answers * step + batch + rtt)
        self._ending = [costs.ending(each, False, setting.tokens) for each in numbers]
        self._head_ending = math.inf
        if costs.head_cpu is not None:
            self._head_ending = costs.ending(costs.head_cpu, True, setting.tokens)
        # Of two halves that work at once the larger takes half of both, at least.
        self._alone = self._ranked(costs, least, tokens)
        self._together = self._ranked(costs, least, (tokens + first) / 2)

    def _ranked(self, costs: Costs, room: Room, times: float) -> list[tuple[float, int]]:
        """Seconds for a byte of a layer and its cache, and the device; the cheapest first."""
        size = min(MICRO_BATCHES[-1], costs.prompt_tokens(self._setting.prompts))
        factor = times * costs.calibration.prompt.compute / size
        answers = self._setting.answers
        held = [
            room.weights[i + 1] - room.weights[i] + room.cache[i + 1] - room.cache[i]
            for i in range(room.layers)
        ]
        ranked = []
        for each in range(len(costs.devices)):
            answer = costs.answer_layers(each, self._setting.tokens)
            prompt = costs.stages(each, size)
            density = min(
                (
                    (answers * (answer[i + 1] - answer[i]) + factor * (prompt[i + 1] - prompt[i]))
                    / size_
                    for i, size_ in enumerate(held)
                    if size_
                ),
                default=0.0,
            )
            ranked.append((density, each))
        return sorted(ranked)

    def seconds(self, one: Sequence[int]) -> float:
        """For the mix; infinite where the layers do not fit."""
        if len(one) > self._layers:
            return math.inf
        left: float = self._total
        seconds = 0.0
        for density, each in self._alone if len(one) == 1 else self._together:
            if each in one:
                held = min(left, self._capacity[each])
                seconds += held * density
                left -= held
                if not left:
                    break
        if left:
            return math.inf
        ending = min(self._head_ending, *(self._ending[each] for each in one))
        seconds += sum(self._fixed[each] for each in one) + self._setting.answers * ending
        return self._setting.waves * seconds
