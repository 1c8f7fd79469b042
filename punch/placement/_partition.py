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

from ._costs import Span
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
        self._rows: dict[tuple[tuple[int, ...], float, bool], _Row] = {}
        self._own: dict[tuple[int, float], list[float]] = {}
        self._lasts: dict[int, tuple[list[float], list[float]]] = {}
        self._batches: dict[int, float] = {}

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
        total, times, waited, last = self._room.layers, self._times, order[:-1], order[-1]
        firsts = self._room.first_layers(
            last, has_output=not output_on_head, output_on_head=output_on_head
        )
        if not waited and firsts[total] > 0:
            return None
        tails, seconds_of = self._last(last)
        row = self._row_of(waited, bias, output_on_head)
        costs_before, reads_before = row.cost, row.prompt
        fixed = sum(map(self._batch, waited))
        weight = bias * times
        best, best_begin = math.inf, -1
        for begin in range(max(firsts[total], len(waited)), total if waited else 1):
            read, second = reads_before[begin], seconds_of[begin]
            first = read + fixed
            # What the row has counted of the larger half is taken back: here it is known.
            seconds = costs_before[begin] - weight * read + tails[begin] + fixed + second
            seconds += times * (max(second, first))
            if seconds < best:
                best, best_begin = seconds, begin
        if best_begin < 0:
            return None
        ends = [*row.ends(best_begin), total]
        begins = [0, *ends[:-1]]
        return best, tuple(zip(order, begins, ends, strict=True))

    def _last(self, device: int) -> tuple[list[float], list[float]]:
        """Of the last device, by its first layer: seconds of its answers, and of a micro-batch."""
        if device not in self._lasts:
            answers, own = self._setting.answers, self._costs.fixed(device, 1.0, self._size)[1]
            answer = self._costs.answer_layers(device, self._setting.tokens)
            prompt = self._costs.prompt_layers(device, self._size)
            self._lasts[device] = (
                [answers * (answer[-1] - one) for one in answer],
                [prompt[-1] - one + own for one in prompt],
            )
        return self._lasts[device]

    def _batch(self, device: int) -> float:
        """What a micro-batch takes on a device before the last one, whatever that holds."""
        if device not in self._batches:
            self._batches[device] = sum(self._costs.fixed(device, 1.0, self._size)[1:])
        return self._batches[device]

    def _row_of(self, waited: tuple[int, ...], bias: float, output_on_head: bool) -> _Row:
        """Of some devices before the last one; orders that begin alike share their beginning."""
        # Only with the head's processor does it matter where the output is.
        key = (waited, bias, output_on_head and self._costs.head_cpu in waited)
        row = self._rows.get(key)
        if row is None:
            if waited:
                before = self._row_of(waited[:-1], bias, output_on_head)
                row = self._further(before, waited[-1], bias, output_on_head)
            else:
                total = self._room.layers
                row = _Row([0.0, *[math.inf] * total], [0.0] * (total + 1))
            self._rows[key] = row
        return row

    def _further(self, before: _Row, device: int, bias: float, output_on_head: bool) -> _Row:
        """With one more device."""
        prompt = self._costs.prompt_layers(device, self._size)
        own = self._own.get((device, bias))
        if own is None:
            answers, weight = self._setting.answers, 1.0 + bias * self._times
            answer = self._costs.answer_layers(device, self._setting.tokens)
            own = [
                answers * one + weight * other for one, other in zip(answer, prompt, strict=True)
            ]
            self._own[device, bias] = own
        firsts = self._room.first_layers(device, has_output=False, output_on_head=output_on_head)
        return before.with_share(own, prompt, firsts)


class _Row:
    """The best ends of the devices before the last one, by how many layers they hold together."""

    def __init__(
        self,
        cost: list[float],
        prompt: list[float],
        begins: Sequence[int] = (),
        before: _Row | None = None,
    ) -> None:
        self.cost = cost
        """Of all of them, by the end of the last share."""
        self.prompt = prompt
        """The part of those in which a micro-batch is computed."""
        self._begins = begins
        self._before = before

    def with_share(self, own: list[float], prompt: list[float], firsts: list[int]) -> _Row:
        """With a share of one more device, which costs *own* for all layers before each."""
        before, read = self.cost, self.prompt
        cost, reads, begins = [math.inf], [0.0], [0]
        window: deque[tuple[float, int]] = deque()
        for end in range(1, len(own)):
            value = before[end - 1] - own[end - 1]
            while window and window[-1][0] >= value:
                window.pop()
            window.append((value, end - 1))
            first = firsts[end]
            while window and window[0][1] < first:
                window.popleft()
            least, begin = window[0] if window else (math.inf, end)
            cost.append(own[end] + least)
            begins.append(begin)
            reads.append(read[begin] + prompt[end] - prompt[begin])
        return _Row(cost, reads, begins, self)

    def ends(self, end: int) -> list[int]:
        """The ends of all shares, of which the last one is *end*."""
        found: list[int] = []
        row = self
        while row._before is not None:
            found.append(end)
            end, row = row._begins[end], row._before
        return found[::-1]
