"""What fits where: bytes of layers, and how far a device's share can reach."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from ..gguf import Layout
from ._wants import Device, Wants

# What computing takes for each token of a micro-batch, in numbers of an embedding at F32: the
# widest feed-forward layers in use are some four times as wide, and their gate and its product,
# input and residual lie beside them. An upper bound: llama.cpp reuses what it has done with.
_NUMBERS_PER_TOKEN: Final = 16

# Allocations are padded, and a server has some memory of its own.
_FIXED_BYTES: Final = 8 * 2**20


def cache_bytes(layout: Layout, wants: Wants, *, slots: int, micro_batch: int) -> tuple[int, ...]:
    """What each layer keeps of the contexts of all slots."""
    return layout.kv_bytes(
        slots * wants.context_tokens,
        wants.key_type,
        wants.value_type,
        slots=slots,
        micro_batch=micro_batch,
    )


def cache_bytes_per_token(layout: Layout, wants: Wants) -> tuple[float, ...]:
    """What each layer keeps of one token, in the wanted types."""
    tokens = 256  # llama.cpp keeps multiples of so many.
    kept = layout.kv_bytes(tokens, wants.key_type, wants.value_type)
    return tuple((size - one.state) / tokens for size, one in zip(kept, layout.layers, strict=True))


def buffer_bytes(layout: Layout, wants: Wants, *, micro_batch: int, has_output: bool) -> int:
    """What computing takes beside weights and cache; an upper bound."""
    numbers = _NUMBERS_PER_TOKEN * layout.embedding + wants.context_tokens
    if has_output:
        numbers += layout.vocabulary
    return _FIXED_BYTES + 4 * micro_batch * numbers


def message_bytes(layout: Layout, weights: int) -> int:
    """What a worker needs beside *weights* while it loads them.

    The server has each tensor twice: whole in its message (SET_TENSOR), and where it stays.
    """
    return min(layout.largest_tensor, weights)


def head_bytes(layout: Layout, *, output_on_head: bool) -> int:
    """What lies in the head's memory, wherever the layers are."""
    copied = layout.output - layout.tied_matrix if output_on_head else 0
    return layout.embeddings + copied


class Room:
    """Memory, for one number of slots and one micro-batch."""

    def __init__(
        self,
        layout: Layout,
        devices: Sequence[Device],
        wants: Wants,
        *,
        slots: int,
        micro_batch: int,
    ) -> None:
        self.layout = layout
        self.devices = devices
        self.wants = wants
        self.micro_batch = micro_batch
        self.cache = list(
            accumulate(cache_bytes(layout, wants, slots=slots, micro_batch=micro_batch), initial=0)
        )
        self.weights = list(accumulate((one.weights for one in layout.layers), initial=0))
        self._first: dict[tuple[int, bool, bool], list[int]] = {}

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.layout.layers)

    @property
    def total(self) -> int:
        """Bytes of all layers with their cache."""
        return self.weights[-1] + self.cache[-1]

    def free(self, device: int, *, has_output: bool, output_on_head: bool) -> int:
        """Bytes of a device that layers and their cache may have, messages apart."""
        one = self.devices[device]
        free = one.memory - self._buffers(has_output)
        if has_output:
            free -= self.layout.output - (self.layout.tied_matrix if one.is_head_cpu else 0)
        if one.is_head_cpu:
            free -= head_bytes(self.layout, output_on_head=output_on_head)
            if output_on_head and not has_output:
                free -= 4 * self.micro_batch * self.layout.vocabulary
        return free

    def head_has_room(self, head_cpu: int | None, *, output_on_head: bool) -> bool:
        """Whether what must lie with the head fits, where it holds no layers."""
        if head_cpu is None:
            return not output_on_head
        needed = head_bytes(self.layout, output_on_head=output_on_head)
        if output_on_head:
            needed += self._buffers(has_output=True)
        return needed <= self.devices[head_cpu].memory

    def taken(
        self, device: int, begin: int, end: int, *, has_output: bool, output_on_head: bool
    ) -> int:
        """Bytes that a share takes on its device, at most."""
        one = self.devices[device]
        whole = self.weights[end] - self.weights[begin] + self.cache[end] - self.cache[begin]
        unused = self.free(device, has_output=has_output, output_on_head=output_on_head)
        message = self._message(device, begin, end, has_output) if one.is_remote else 0
        return one.memory - unused + whole + message

    def fits(
        self, device: int, begin: int, end: int, *, has_output: bool, output_on_head: bool
    ) -> bool:
        """Whether a share does."""
        taken = self.taken(device, begin, end, has_output=has_output, output_on_head=output_on_head)
        return taken <= self.devices[device].memory

    def first_layers(self, device: int, *, has_output: bool, output_on_head: bool) -> list[int]:
        """Of each end, the first layer from which a share up to it fits; the end where none."""
        key = (device, has_output, output_on_head)
        if key not in self._first:
            free = self.free(device, has_output=has_output, output_on_head=output_on_head)
            output = self.layout.output if has_output else 0
            largest = self.layout.largest_tensor if self.devices[device].is_remote else 0
            weights, cache = self.weights, self.cache
            found, begin = [0], 0
            for end in range(1, self.layers + 1):
                while begin < end:
                    own = weights[end] - weights[begin]
                    if own + cache[end] - cache[begin] + min(largest, own + output) <= free:
                        break
                    begin += 1
                found.append(begin)
            self._first[key] = found
        return self._first[key]

    def most(self, device: int) -> int:
        """Bytes of the largest share that fits, without the output."""
        firsts = self.first_layers(device, has_output=False, output_on_head=False)
        held = [one + other for one, other in zip(self.weights, self.cache, strict=True)]
        return max(held[end] - held[begin] for end, begin in enumerate(firsts))

    def _buffers(self, has_output: bool) -> int:
        return buffer_bytes(
            self.layout, self.wants, micro_batch=self.micro_batch, has_output=has_output
        )

    def _message(self, device: int, begin: int, end: int, has_output: bool) -> int:
        weights = self.weights[end] - self.weights[begin]
        return message_bytes(self.layout, weights + (self.layout.output if has_output else 0))
