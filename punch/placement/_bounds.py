"""What a set of devices takes at least, however the layers are cut.

As if layers could be cut anywhere, the cheapest devices filled first, the two halves of a pipeline
even, and buffers the smallest: each is at most what a real cut takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from ._costs import Costs
from ._room import Room
from ._settings import MIN_GAIN, Setting

MICRO_BATCHES: Final = (64, 128, 256, 512)
"""Tokens of a prompt that go through together. Measured: 32 are slower, whatever the split."""

# Seconds of a step: sums are made in another order here.
_ROUNDING: Final = 1e-12


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
            moved = costs.fixed(each, setting.tokens, 2 * first)[1] - batch
            # Of a pipeline that is even, half of all micro-batches, and half of one.
            batches = (tokens / min(MICRO_BATCHES[-1], tokens) + 1) / 2
            read = batches * (batch - moved) + (tokens / first + 1) / 2 * moved
            self._fixed.append(setting.answers * step + read + rtt)
        self._ending = [costs.ending(each, False, setting.tokens) for each in numbers]
        self._head_ending = math.inf
        if costs.head_cpu is not None:
            self._head_ending = setting.answers * costs.ending(costs.head_cpu, True, setting.tokens)
        self._guess = None if setting.speculation is None else _Guess(costs, setting, least)
        # Of two halves that work at once the larger takes half of both, at least.
        self._alone = self._ranked(costs, least, is_alone=True)
        self._together = self._ranked(costs, least, is_alone=False)

    def _ranked(
        self, costs: Costs, room: Room, *, is_alone: bool
    ) -> list[tuple[float, int, float, float, float]]:
        """Of each device, the cheapest first, what is known of it whatever it holds.

        Seconds for a byte of a layer and its cache, its number, bytes that it holds at most,
        seconds however many layers it has, and seconds of the logits.
        """
        answers = self._setting.answers
        held = [
            room.weights[i + 1] - room.weights[i] + room.cache[i + 1] - room.cache[i]
            for i in range(room.layers)
        ]
        ranked = []
        for each in range(len(costs.devices)):
            answer = costs.answer_layers(each, self._setting.tokens)
            prompt = costs.least_prompt(
                each, MICRO_BATCHES, prompts=self._setting.prompts, is_alone=is_alone
            )
            density = min(
                (
                    (answers * (answer[i + 1] - answer[i]) + prompt[i]) / size
                    for i, size in enumerate(held)
                    if size
                ),
                default=0.0,
            )
            ending = answers * self._ending[each]
            ranked.append((density, each, self._capacity[each], self._fixed[each], ending))
        return sorted(ranked)

    def seconds(self, one: Sequence[int]) -> float:
        """For the mix; infinite where the layers do not fit."""
        if len(one) > self._layers:
            return math.inf
        left: float = self._total
        seconds = 0.0
        ending = self._head_ending
        for density, each, capacity, fixed, own in self._alone if len(one) == 1 else self._together:
            if each in one:
                seconds += fixed
                if own < ending:
                    ending = own
                if left:
                    held = min(left, capacity)
                    seconds += held * density
                    left -= held
        return math.inf if left else self._setting.waves * (seconds + ending)

    def may_guess(self, one: Sequence[int]) -> bool:
        """Whether guessing may gain enough, where it is a part of the setting."""
        return self._guess is None or self._guess.may_pay(one)


class _Guess:
    """Whether guessing may gain enough, whatever the cut.

    It does not if a step without guesses takes less than a known share of one with them. What each
    device adds to the difference is so much for each byte that it holds, and so much whatever that
    is; the most of it, as if layers could be cut anywhere, is had with the best bytes first.
    """

    def __init__(self, costs: Costs, setting: Setting, room: Room) -> None:
        assert setting.speculation is not None
        share = max(
            MIN_GAIN / setting.speculation.tokens_per_step,
            1.0 / setting.speculation.doubted().tokens_per_step,
        )
        plain, guessed, size = setting.prompts, setting.tokens, MICRO_BATCHES[0]
        self._total = room.total
        self._head_ending = -math.inf
        if (cpu := costs.head_cpu) is not None:
            self._head_ending = costs.ending(cpu, True, plain) - share * costs.ending(
                cpu, True, guessed
            )
        held = [
            room.weights[i + 1] - room.weights[i] + room.cache[i + 1] - room.cache[i]
            for i in range(room.layers)
        ]
        ranked = []
        for each in range(len(costs.devices)):
            without = costs.answer_layers(each, plain)
            with_ = costs.answer_layers(each, guessed)
            gained = [
                b - a - share * (d - c)
                for (a, b), (c, d) in zip(pairwise(without), pairwise(with_), strict=True)
            ]
            best = max(
                (one / size_ for one, size_ in zip(gained, held, strict=True) if size_), default=0.0
            )
            fixed = costs.fixed(each, plain, size)[0] - share * costs.fixed(each, guessed, size)[0]
            ending = costs.ending(each, False, plain) - share * costs.ending(each, False, guessed)
            ranked.append((best, each, room.most(each), fixed, ending))
        self._ranked = sorted(ranked, reverse=True)

    def may_pay(self, one: Sequence[int]) -> bool:
        """Whether a set of devices may gain enough with it."""
        left, gained, ending = self._total, 0.0, self._head_ending
        for best, each, capacity, fixed, own in self._ranked:
            if each in one:
                gained += fixed
                ending = max(ending, own)
                held = min(left, capacity)
                gained += held * best
                left -= held
        return gained + ending >= -_ROUNDING
