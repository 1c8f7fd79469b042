"""The original capability score: a weighted sum of six factors from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from types import MappingProxyType

import attrs

from ..capability import Gpu
from ..peers import Candidate, PeerRecord
from ._request import RouteRequest

_FACTORS = ("cpu", "memory", "disk", "latency", "reputation", "gpu")

PRESETS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "default": (0.15, 0.15, 0.05, 0.20, 0.20, 0.25),
        "cpu": (0.30, 0.25, 0.05, 0.20, 0.20, 0.00),
        "gpu": (0.10, 0.10, 0.05, 0.15, 0.20, 0.40),
        "latency": (0.10, 0.10, 0.05, 0.40, 0.20, 0.15),
        "reliability": (0.10, 0.10, 0.05, 0.15, 0.45, 0.15),
    }
)
"""Preset to the weight of each factor; the weights of a preset add up to 1."""

# The original's idea of a large machine: what earns the full factor.
MANY_CPUS = 16
MUCH_GPU_BYTES = 24576 << 20
MANY_GPU_UNITS = 10000


def factors(peer: PeerRecord) -> tuple[float, ...]:
    """The six factors of one peer, each 0 to 1, in the order of the weights.

    ::

        cpu        = min(cpus / 16, 1) * (1 - usage)
        memory     = available / total
        disk       = available / total
        latency    = 1 / (1 + milliseconds / 100)
        reputation = as it is
        gpu        = 0.5 * min(bytes / 24 GiB, 1) + 0.3 * min(units / 10000, 1)
                     + 0.2 * (1 - usage)

    What a peer did not measure earns nothing.
    """
    claim = peer.capability
    cpu = 0.0
    if claim.cpu_count is not None and claim.cpu_usage is not None:
        share = claim.cpu_count / MANY_CPUS if claim.cpu_count < MANY_CPUS else 1.0
        cpu = share * (1.0 - claim.cpu_usage)
    return (
        cpu,
        _share(claim.memory_available_bytes, claim.memory_total_bytes),
        _share(claim.disk_available_bytes, claim.disk_total_bytes),
        0.0 if peer.rtt is None else 1.0 / (1.0 + peer.rtt * 1000.0 / 100.0),
        peer.reputation if 0.0 <= peer.reputation <= 1.0 else float(peer.reputation > 0.0),
        _gpu(claim.gpus),
    )


def _share(part: int | None, whole: int | None) -> float:
    return min(part / whole, 1.0) if part is not None and whole else 0.0


def _gpu(gpus: Sequence[Gpu]) -> float:
    if not gpus:
        return 0.0
    size = units = measured = 0
    usage = 0.0
    # One loop, without generators: this runs for every peer of every decision.
    for gpu in gpus:
        size += gpu.total_bytes
        units += gpu.compute_units or 0
        if gpu.usage is not None:
            usage += gpu.usage
            measured += 1
    idle = 1.0 - usage / measured if measured else 0.0
    memory = size / MUCH_GPU_BYTES if size < MUCH_GPU_BYTES else 1.0
    cores = units / MANY_GPU_UNITS if units < MANY_GPU_UNITS else 1.0
    return 0.5 * memory + 0.3 * cores + 0.2 * idle


@attrs.frozen
class WeightedSum:
    """The highest weighted sum wins. It ignores queues and mixes units: for comparison."""

    weights: tuple[float, ...] = PRESETS["default"]
    """The weight of each factor."""

    term_names: tuple[str, ...] = _FACTORS
    unit: str = "points"
    lowest_is_best: bool = False

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """Weight times factor, for each factor."""
        cpu, memory, disk, latency, reputation, gpu = self.weights
        return [
            (cpu * a, memory * b, disk * c, latency * d, reputation * e, gpu * f)
            for a, b, c, d, e, f in [factors(candidate.peer) for candidate in candidates]
        ]
