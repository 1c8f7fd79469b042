"""Cuts the layers of a model into one share for each of some devices in a given order.

A share is a run of layers, so a cut is a row of ends. For a token every layer costs what it costs
where it lies, and for a prompt the devices before the last one work beside it (see `_law`)::

    seconds = answer * (sum of all) + waited + last + (micro_batches - 1) * max(waited, last)

For a weight `bias` between 0 and 1, which stands for the larger of the two, the best ends of the
devices before the last one are found layer by layer (dynamic programming over a sliding minimum,
since a share that fits still fits without its first layer); then the last share is tried from each
layer on, with the true maximum. With one device before the last one that is exact; with more, the
two biases at the ends are tried.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from ._costs import Costs, Span
from ._law import Law
from ._room import Room
from ._settings import Setting


class Cutter:
    """Cuts for one setting and one micro-batch."""

    def __init__(self, law: Law, room: Room, setting: Setting) -> None:
        self._costs = law.costs
        self._room = room
        self._setting = setting
        tokens = law.costs.prompt_tokens(setting.prompts)
        self._size = min(room.micro_batch, tokens)
        self._times = tokens / self._size - 1.0
        self._rows: dict[tuple[Sequence[int], float, bool], _Rows] = {}

    def best(
        self, order: tuple[int, ...], *, output_on_head: bool, biases: Sequence[float]
    ) -> tuple[Span, ...] | None:
        """The shares of the fastest cut that fits; `None` if none does.

        Args:
          order: Numbers of the devices, in their order.
          output_on_head: Where the output is.
          biases: What the larger of the two is taken for; all are tried.

        """
        cpu = self._costs.head_cpu
        if cpu not in order and not self._room.head_has_room(cpu, output_on_head=output_on_head):
            return None
        if len(order) > self._room.layers:
            return None
        cuts = [self._best(order, output_on_head, bias) for bias in biases]
        found = [cut for cut in cuts if cut is not None]
        return min(found)[1] if found else None

    def _best(
        self, order: tuple[int, ...], output_on_head: bool, bias: float
    ) -> tuple[float, tuple[Span, ...]] | None:
        costs, setting, times, size = self._costs, self._setting, self._times, self._size
        total, waited, last = self._room.layers, order[:-1], order[-1]
        firsts = self._room.first_layers(
            last, has_output=not output_on_head, output_on_head=output_on_head
        )
        if not waited and firsts[total] > 0:
            return None
        answer = costs.answer_layers(last, setting.tokens)
        prompt = costs.prompt_layers(last, size)
        own = costs.fixed(last, setting.tokens, size)[1]
        rows = self._rows_of(waited, bias, output_on_head)
        fixed = sum(sum(costs.fixed(each, setting.tokens, size)[1:]) for each in waited)
        best, best_begin = math.inf, -1
        for begin in range(max(firsts[total], len(waited)), total if waited else 1):
            before = rows.cost[-1][begin]
            if before == math.inf:
                continue
            read = rows.prompt[-1][begin]
            first = read + fixed
            second = prompt[total] - prompt[begin] + own
            seconds = (
                before
                - (1.0 + bias * times) * read
                + setting.answers * (answer[total] - answer[begin])
                + first
                + second
                + times * max(first, second)
            )
            if seconds < best:
                best, best_begin = seconds, begin
        if best_begin < 0:
            return None
        ends = [*rows.ends(best_begin), total]
        begins = [0, *ends[:-1]]
        return best, tuple(zip(order, begins, ends, strict=True))

    def _rows_of(self, waited: tuple[int, ...], bias: float, output_on_head: bool) -> _Rows:
        # Only with the head's processor does it matter where the output is.
        key = (waited, bias, output_on_head and self._costs.head_cpu in waited)
        if key not in self._rows:
            self._rows[key] = _Rows(
                self._costs,
                self._room,
                waited,
                self._setting,
                self._size,
                1.0 + bias * self._times,
                output_on_head,
            )
        return self._rows[key]


class _Rows:
    """The best ends of the devices before the last one, by how many layers they hold together."""

    def __init__(
        self,
        costs: Costs,
        room: Room,
        waited: Sequence[int],
        setting: Setting,
        size: int,
        weight: float,
        output_on_head: bool,
    ) -> None:
        total = room.layers
        self.cost: list[list[float]] = [[0.0, *[math.inf] * total]]
        """Of each device the cost of all up to it, by the end of its share."""
        self.prompt: list[list[float]] = [[0.0] * (total + 1)]
        """The part of those in which a micro-batch is computed."""
        self._begin: list[list[int]] = []
        for device in waited:
            answer = costs.answer_layers(device, setting.tokens)
            prompt = costs.prompt_layers(device, size)
            own = [
                setting.answers * one + weight * other
                for one, other in zip(answer, prompt, strict=True)
            ]
            firsts = room.first_layers(device, has_output=False, output_on_head=output_on_head)
            self._add(own, prompt, firsts)

    def _add(self, own: list[float], prompt: list[float], firsts: list[int]) -> None:
        before, read = self.cost[-1], self.prompt[-1]
        cost, reads, begins = [math.inf], [0.0], [0]
        window: deque[tuple[float, int]] = deque()
        for end in range(1, len(own)):
            value = before[end - 1] - own[end - 1]
            while window and window[-1][0] >= value:
                window.pop()
            window.append((value, end - 1))
            while window and window[0][1] < firsts[end]:
                window.popleft()
            least, begin = window[0] if window else (math.inf, end)
            cost.append(own[end] + least)
            begins.append(begin)
            reads.append(read[begin] + prompt[end] - prompt[begin])
        self.cost.append(cost)
        self.prompt.append(reads)
        self._begin.append(begins)

    def ends(self, end: int) -> list[int]:
        """The ends of all shares, of which the last one is *end*."""
        found: list[int] = []
        for begins in reversed(self._begin):
            found.append(end)
            end = begins[end]
        return found[::-1]
