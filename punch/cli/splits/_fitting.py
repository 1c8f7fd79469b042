"""Works out whether a model fits here, at which context, and how it would be split over workers.

Machines and links are values here; they are measured, and the outcome is printed, by `_fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from ...capability import Gpu
from ...gguf import Layout
from ...llama_cpp import Speeds
from ...placement import HEAD, HEAD_CPU, Device, Link, Plan, Refused, Wants, plan

_CONTEXT_STEP: Final = 256  # Contexts are asked for in these steps, as llama.cpp rounds them.


# What a device is planned with that nobody could measure: which layers fit where does not depend
# on it, and what does is not shown.
_ANY_BANDWIDTH: Final = 10e9
_ANY_COMPUTE: Final = 50e9


@attrs.frozen(kw_only=True)
class Here:
    """The machine that this runs on, as it was measured."""

    memory_total: int
    """Main memory that a program here may use, in bytes."""

    memory_free: int
    """The part of it that is free, in bytes."""

    speeds: Speeds | None = None
    """How fast its processor is; `None` if there is no program to measure it with."""

    gpus: Mapping[str, Gpu] = attrs.field(factory=dict)
    """Its GPUs, by the names that llama.cpp has for them."""

    gpu_speeds: Mapping[str, Speeds] = attrs.field(factory=dict)
    """How fast they are; empty as `speeds`."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """The processor with what is free of the memory, and the GPUs."""
        found = [_device(HEAD_CPU, self.memory_free, self.speeds)]
        for name, gpu in self.gpus.items():
            free = gpu.total_bytes if gpu.free_bytes is None else gpu.free_bytes
            found.append(_device(name, free, self.gpu_speeds.get(name)))
        return tuple(found)


def _device(name: str, memory: int, speeds: Speeds | None) -> Device:
    return Device(
        id=name,
        holder=HEAD,
        memory=memory,
        bandwidth=_ANY_BANDWIDTH if speeds is None else speeds.bandwidth,
        compute=_ANY_COMPUTE if speeds is None else speeds.compute,
    )


@attrs.frozen(kw_only=True)
class Told:
    """A worker that was only told of, or asked."""

    name: str
    """What to call it."""

    memory: int
    """Bytes that it lends."""

    bandwidth: float | None
    """Bytes of weights that it goes through a second; `None`: as this machine."""

    link: Link
    """The way there."""

    compute: float | None = None
    """Multiply-adds a second; `None`: as many for a byte as this machine."""

    holder: str | None = None
    """The machine that has it, if that is not its name."""

    peer_id: str | None = None
    """Its identity, if it was asked."""

    def device(self, here: Here) -> Device:
        """The worker as a device to plan with."""
        ours = here.devices[0]
        bandwidth = self.bandwidth or ours.bandwidth
        return Device(
            id=self.name,
            holder=self.holder or self.name,
            memory=self.memory,
            bandwidth=bandwidth,
            compute=self.compute or ours.compute * bandwidth / ours.bandwidth,
            link=self.link,
        )


@attrs.frozen(kw_only=True)
class Fit:
    """Where a model fits, and how fast that would be."""

    layout: Layout
    """The model."""

    here: Here
    """This machine."""

    wants: Wants
    """What was asked for."""

    workers: tuple[Told, ...] = ()
    """Other machines that were planned with."""

    left_out: Mapping[str, str] = attrs.field(factory=dict)
    """Workers that were asked and lend nothing to us, and why."""

    alone: Plan | Refused
    """On this machine alone, with the context that was asked for."""

    context: int | None
    """The longest context that fits here, in tokens; `None` if not even the shortest does."""

    split: Plan | Refused | None = None
    """Over workers, even where that is slower; `None` without workers."""

    chosen: Plan | Refused
    """What a coordinator here would do of its own accord."""

    @property
    def is_measured(self) -> bool:
        """Whether the seconds of the plans are worth something."""
        return self.here.speeds is not None

    @property
    def needed(self) -> int:
        """Bytes of all weights and of the cache for what was asked for."""
        slots = self.wants.slots or 1
        kept = self.layout.kv_bytes(
            slots * self.wants.context_tokens,
            self.wants.key_type,
            self.wants.value_type,
            slots=slots,
        )
        return self.layout.weights - self.layout.not_loaded + sum(kept)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: bytes, seconds, and tokens a second."""
        layout = self.layout
        return {
            "model": {
                "layers": len(layout.layers),
                "weights": layout.weights,
                "layer_weights": [layer.weights for layer in layout.layers],
                "embeddings": layout.embeddings,
                "output": layout.output,
                "not_loaded": layout.not_loaded,
                "is_tied": layout.is_tied,
                "kv_per_token": sum(layer.kv_per_token for layer in layout.layers),
                "state": sum(layer.state for layer in layout.layers),
                "windows": sum(layer.window is not None for layer in layout.layers),
                "kv_exact": layout.kv_exact,
                "experts": layout.experts,
                "experts_used": layout.experts_used,
                "vocabulary": layout.vocabulary,
                "context_tokens": layout.context_tokens,
            },
            "here": {
                "memory_total": self.here.memory_total,
                "memory_free": self.here.memory_free,
                "devices": [_plain(device, self.is_measured) for device in self.here.devices],
                "is_measured": self.is_measured,
            },
            "wants": {
                "context_tokens": self.wants.context_tokens,
                "slots": self.wants.slots,
                **attrs.asdict(self.wants.mix),
            },
            "needed": self.needed,
            "fits_here": isinstance(self.alone, Plan),
            "longest_context_here": self.context,
            "alone": self.alone.as_dict(),
            "workers": [attrs.asdict(worker) for worker in self.workers],
            "left_out": dict(self.left_out),
            "split": None if self.split is None else self.split.as_dict(),
            "chosen": self.chosen.as_dict(),
        }


def _plain(device: Device, is_measured: bool) -> dict[str, Any]:
    found = attrs.asdict(device)
    return found if is_measured else {**found, "bandwidth": None, "compute": None}


def fit(
    layout: Layout,
    here: Here,
    wants: Wants,
    *,
    workers: Sequence[Told] = (),
    left_out: Mapping[str, str] | None = None,
) -> Fit:
    """Plan *layout* for this machine alone, and for this machine with *workers*."""
    head = list(here.devices)
    single = attrs.evolve(wants, min_workers=0)
    alone = plan(layout, head, single)

    def fits(context: int) -> bool:
        asked = attrs.evolve(single, context_tokens=context)
        return isinstance(plan(layout, head, asked), Plan)

    chosen, split = alone, None
    if workers:
        everywhere = [*head, *(worker.device(here) for worker in workers)]
        chosen = split = plan(layout, everywhere, wants)
        if not isinstance(chosen, Plan) or not chosen.is_split:
            forced = attrs.evolve(wants, is_forced=True, min_workers=max(1, wants.min_workers))
            split = plan(layout, everywhere, forced)
    longest = layout.context_tokens or max(wants.context_tokens, _CONTEXT_STEP)
    return Fit(
        layout=layout,
        here=here,
        wants=wants,
        workers=tuple(workers),
        left_out=left_out or {},
        alone=alone,
        context=_longest(fits, longest),
        split=split,
        chosen=chosen,
    )


def _longest(fits: Callable[[int], bool], most: int) -> int | None:
    """The largest number of tokens up to *most* that *fits*, in steps; `None` if none does."""
    if fits(most):
        return most
    least, above = 0, -(-most // _CONTEXT_STEP)  # In steps: `least` fits, `above` does not.
    while above - least > 1:
        middle = (least + above) // 2
        if fits(middle * _CONTEXT_STEP):
            least = middle
        else:
            above = middle
    return least * _CONTEXT_STEP or None
