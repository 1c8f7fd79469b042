"""Looks for the fastest plan: which devices, in which order, with which settings.

Sets of devices are looked at by a lower bound of what they take, the lowest first, and no longer
once the bound is above the best plan that was found. What the bound leaves out is that shares have
whole layers, that a pipeline is never perfectly even, and memory that buffers take, so that few
sets have to be cut. Devices of the same kind stand for each other.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import Final

import attrs

from ._bounds import MICRO_BATCHES, Bounds
from ._costs import Span
from ._law import Law
from ._partition import Cutter
from ._room import Room
from ._settings import MIN_GAIN, Setting, Speculation, settings_of

# More sets than these are not looked at one by one: eight unlike devices have 255.
MAX_SETS: Final = 1024

# Cuts of a set with one setting; the bound has ended the search long before.
MAX_CUTS: Final = 400

# Of so many devices all orders are tried with all sizes of a micro-batch.
MAX_TRIED_ALL: Final = 3


@attrs.frozen(kw_only=True)
class Found:
    """The best way to run the model on one set of devices."""

    spans: tuple[Span, ...]
    """The shares."""

    output_on_head: bool
    micro_batch: int
    slots: int
    speculation: Speculation | None

    seconds: float
    """For the mix."""


@attrs.frozen(kw_only=True)
class Lost:
    """A set of devices that was not cut, or could not be."""

    devices: tuple[int, ...]
    """Their numbers."""

    bound: float
    """It takes so many seconds at least; infinite where the model does not fit."""

    @property
    def is_too_small(self) -> bool:
        """Whether the model does not fit."""
        return math.isinf(self.bound)


@attrs.frozen(kw_only=True)
class Outcome:
    """What a search found."""

    found: tuple[Found, ...]
    """The best of each set that was cut, the fastest first."""

    lost: tuple[Lost, ...]
    """The other sets."""


def sets_of(law: Law, usable: Sequence[int], *, min_workers: int) -> Iterator[tuple[int, ...]]:
    """The sets of devices that are looked at: all, or of very many unlike ones the likely ones."""
    devices = law.costs.devices
    kinds: dict[object, list[int]] = {}
    for each in usable:
        one = devices[each]
        # What the head has is told apart: its processor has rules of its own.
        key: object = (one.memory, one.bandwidth, one.compute, one.link) if one.is_remote else each
        kinds.setdefault(key, []).append(each)
    groups = list(kinds.values())
    if math.prod(len(group) + 1 for group in groups) <= MAX_SETS:
        chosen: Iterable[tuple[int, ...]] = (
            tuple(
                sorted(
                    each
                    for group, count in zip(groups, counts, strict=True)
                    for each in group[:count]
                )
            )
            for counts in product(*(range(len(group) + 1) for group in groups))
        )
    else:
        chosen = _likely(law, usable)
    for each_set in chosen:
        workers = {devices[each].holder for each in each_set if devices[each].is_remote}
        if each_set and len(workers) >= min_workers:
            yield each_set


def _likely(law: Law, usable: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The best by each virtue, so many of them as one likes, and those without any one."""
    devices = law.costs.devices
    virtues = (
        [-devices[each].bandwidth for each in usable],
        [-devices[each].compute for each in usable],
        [-float(devices[each].memory) for each in usable],
        [law.costs.fixed(each, 1, MICRO_BATCHES[0])[0] for each in usable],
    )
    seen = set()
    for virtue in virtues:
        ranked = [each for _, each in sorted(zip(virtue, usable, strict=True))]
        for count in range(1, len(ranked) + 1):
            first = ranked[:count]
            for one in (first, *(list(less) for less in combinations(first, count - 1))):
                key = tuple(sorted(one))
                if key not in seen:
                    seen.add(key)
                    yield key


class Search:
    """A search over one law; keeps what it worked out."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self._wants = law.costs.wants
        self._rooms: dict[tuple[int, int], Room] = {}
        self._cutters: dict[tuple[Setting, int], Cutter] = {}
        self._settings = tuple(settings_of(law.costs.wants))
        self._bounds = [Bounds(law.costs, each, self.room) for each in self._settings]

    def room(self, slots: int, micro_batch: int) -> Room:
        """What fits, with these settings."""
        key = (slots, micro_batch)
        if key not in self._rooms:
            self._rooms[key] = Room(
                self._law.costs.layout,
                self._law.costs.devices,
                self._wants,
                slots=slots,
                micro_batch=micro_batch,
            )
        return self._rooms[key]

    def run(self, sets: Iterable[tuple[int, ...]]) -> Outcome:
        """The fastest ways to run the model on *sets* of devices."""
        looked_at = []
        heap: list[tuple[float, int, tuple[int, ...], int]] = []
        for one in sets:
            looked_at.append(one)
            bounds = [each.seconds(one) for each in self._bounds]
            heap += [
                (bound, len(one), one, i) for i, bound in enumerate(bounds) if bound < math.inf
            ]
        heapq.heapify(heap)
        found: dict[tuple[int, ...], Found] = {}
        best = math.inf
        for _ in range(MAX_CUTS):
            if not heap or heap[0][0] > best:
                break
            _, _, one, i = heapq.heappop(heap)
            if not self._bounds[i].may_guess(one):
                continue
            mine = self._best_of(one, self._settings[i])
            if mine is not None and (one not in found or mine.seconds < found[one].seconds):
                found[one] = mine
                best = min(best, mine.seconds)
        # What was cut with all settings and not found has no room after all.
        left: dict[tuple[int, ...], float] = {}
        for bound, _, one, _ in heap:
            left[one] = min(bound, left.get(one, math.inf))
        lost = [
            Lost(devices=one, bound=left.get(one, math.inf))
            for one in looked_at
            if one not in found
        ]
        return Outcome(
            found=tuple(sorted(found.values(), key=lambda each: (each.seconds, len(each.spans)))),
            lost=tuple(sorted(lost, key=lambda each: each.bound)),
        )

    def least_room(self) -> Room:
        """What fits, with the settings that take the least."""
        return self.room(min(each.slots for each in self._settings), MICRO_BATCHES[0])

    def capacity(self, device: int) -> int:
        """Bytes that a device has for layers and their cache, at most."""
        return self.least_room().most(device)

    # -- one set ------------------------------------------------------------------------------

    def _best_of(self, one: tuple[int, ...], setting: Setting) -> Found | None:
        """The best that can be made of a set with a setting."""
        sizes = self._micro_batches(one, setting)
        orders = list(self._orders(one))
        biases: tuple[float, ...] = (0.0, 1.0) if len(one) > 2 else (1.0,)
        if len(one) > MAX_TRIED_ALL:
            # Which one is the last is found out with one size, and the size for the best two.
            biases = (0.5,)
            tried = [
                (self._best_cut(order, setting, sizes[-1:], biases), order) for order in orders
            ]
            done = [(mine.seconds, order) for mine, order in tried if mine is not None]
            orders = [order for _, order in sorted(done)[:2]]
        cuts = [self._best_cut(order, setting, sizes, biases) for order in orders]
        return min(
            (each for each in cuts if each is not None),
            key=lambda each: each.seconds,
            default=None,
        )

    def _best_cut(
        self,
        order: tuple[int, ...],
        setting: Setting,
        sizes: Sequence[int],
        biases: Sequence[float],
    ) -> Found | None:
        best: Found | None = None
        for micro_batch in sizes:
            cutter = self._cutter(setting, micro_batch)
            for output_on_head in self._outputs(order):
                spans = cutter.best(order, output_on_head=output_on_head, biases=biases)
                if spans is None:
                    continue
                mine = self._found(spans, output_on_head, micro_batch, setting)
                if mine is not None and (best is None or mine.seconds < best.seconds):
                    best = mine
        return best

    def _cutter(self, setting: Setting, micro_batch: int) -> Cutter:
        key = (setting, micro_batch)
        if key not in self._cutters:
            room = self.room(setting.slots, micro_batch)
            self._cutters[key] = Cutter(self._law, room, setting)
        return self._cutters[key]

    def wished(self, pairs: Sequence[tuple[int, float]]) -> tuple[Span, ...]:
        """Layers of each device in proportion to its share; none where that is less than half."""
        total, whole = len(self._law.costs.layout.layers), math.fsum(share for _, share in pairs)
        held = 0.0
        spans, begin = [], 0
        for device, share in pairs:
            held += share
            end = round(total * held / whole)
            if begin < end:
                spans.append((device, begin, end))
            begin = end
        return tuple(spans)

    def cut_as_wished(self, pairs: Sequence[tuple[int, float]]) -> Found | None:
        """The best settings for devices with such shares; `None` if their layers do not fit."""
        spans = self.wished(pairs)
        order = tuple(device for device, _, _ in spans)
        best: Found | None = None
        for setting in self._settings:
            for output_on_head in self._outputs(order):
                for micro_batch in self._micro_batches(order, setting):
                    if not self.fits(spans, output_on_head, micro_batch, setting.slots):
                        continue
                    mine = self._found(spans, output_on_head, micro_batch, setting)
                    if mine is not None and (best is None or mine.seconds < best.seconds):
                        best = mine
        return best

    def fits(
        self, spans: Sequence[Span], output_on_head: bool, micro_batch: int, slots: int
    ) -> bool:
        """Whether each share does, and what must lie with the head."""
        room, cpu = self.room(slots, micro_batch), self._law.costs.head_cpu
        if cpu not in {span[0] for span in spans} and not room.head_has_room(
            cpu, output_on_head=output_on_head
        ):
            return False
        return all(
            room.fits(
                *span,
                has_output=span is spans[-1] and not output_on_head,
                output_on_head=output_on_head,
            )
            for span in spans
        )

    def _found(
        self,
        spans: tuple[Span, ...],
        output_on_head: bool,
        micro_batch: int,
        setting: Setting,
    ) -> Found | None:
        """A cut as a way to run the model; `None` if its speculation gains too little."""
        law, speculation = self._law, setting.speculation
        if speculation is not None and not self._pays(spans, output_on_head, speculation):
            return None
        return Found(
            spans=spans,
            output_on_head=output_on_head,
            micro_batch=micro_batch,
            slots=setting.slots,
            speculation=speculation,
            seconds=law.seconds(spans, output_on_head, micro_batch, setting.slots, speculation),
        )

    def _pays(
        self, spans: tuple[Span, ...], output_on_head: bool, speculation: Speculation
    ) -> bool:
        """Whether guessing gains in plain text and loses nothing in text with few right guesses."""
        gain = self._law.gain
        return (
            gain(spans, output_on_head, 1, speculation) >= MIN_GAIN
            and gain(spans, output_on_head, 1, speculation.doubted()) >= 1.0
        )

    def _orders(self, one: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """All that differ: the last one counts, and the head's processor is the first."""
        cpu = [each for each in one if each == self._law.costs.head_cpu]
        others = [each for each in one if each != self._law.costs.head_cpu]
        if not others:
            yield tuple(cpu)
        for last in others:
            yield (*cpu, *(each for each in others if each != last), last)

    def _outputs(self, order: tuple[int, ...]) -> tuple[bool, ...]:
        cpu = self._law.costs.head_cpu
        return (False,) if cpu is None or order[-1] == cpu else (False, True)

    def _micro_batches(self, one: tuple[int, ...], setting: Setting) -> tuple[int, ...]:
        """Those worth a look: of one device all are the same, but for the memory that they take."""
        tokens = self._law.costs.prompt_tokens(setting.prompts)
        least = next((size for size in MICRO_BATCHES if size >= tokens), MICRO_BATCHES[-1])
        if len(one) == 1:
            return MICRO_BATCHES[::-1]
        return tuple(size for size in MICRO_BATCHES if size <= least)[::-1]
