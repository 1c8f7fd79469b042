"""What fits where: bytes of layers, and how far a device's share can reach."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ..gguf import Layout
from ._memory import buffer_bytes, cache_bytes, head_bytes, message_bytes
from ._wants import Device, Wants


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
