"""What a borrower knows of a worker, by the worker's word and by its own measuring."""

from __future__ import annotations

import attrs

from ...capability import PeerId
from ...llama_cpp import RpcVersion
from ..leases import LentDevice, Surveyed

# What no device of today comes near, from either side: a plan would lean on it.
MIN_SPEED = 1e6
MAX_BANDWIDTH = 1e14
MAX_COMPUTE = 1e17


@attrs.frozen(kw_only=True)
class WorkerFacts:
    """A worker, as a survey has found it."""

    peer_id: PeerId
    """The worker."""

    devices: tuple[LentDevice, ...]
    """What it lends, in the order in which its server lists it."""

    memory: int
    """Bytes that may be borrowed in all, now."""

    bound: str
    """What keeps its server within that: ``limit``, ``cgroup``, or ``promise`` for nothing but its
    word; words may be added."""

    rpc: RpcVersion | None
    """The RPC protocol that its server speaks; `None` if it does not say."""

    build: str
    """What its program says of its build."""

    threads: int
    """Threads that its server computes with; 0 if it does not say."""

    carriers: frozenset[str]
    """How the bytes of a lease may travel: ``direct``, ``stream``; words may be added."""

    is_leased: bool
    """True if somebody has its lease now."""

    rtt: float
    """Seconds from here to the worker and back, over the stream of the survey; the least of a few.
    A tunnel's is a little less, see `Lease.measure`."""

    is_own: bool = False
    """Whether the worker is of our own owner, by its chain of grants; in an open namespace, whether
    it is on this machine."""


def facts_of(peer_id: PeerId, said: Surveyed, rtt: float, *, is_own: bool = False) -> WorkerFacts:
    """The facts in what a worker has *said*.

    Raises:
      ValueError: if they cannot be true; the text says which.

    """
    names = [device.name for device in said.devices]
    if not names:
        raise ValueError("it lends no device")
    if len(set(names)) < len(names):
        raise ValueError("it lends two devices of one name")
    for device in said.devices:
        if device.free > device.total:
            raise ValueError(
                f"{device.free} of {device.total} bytes are free of {device.name}, it says"
            )
        if device.bandwidth and not MIN_SPEED <= device.bandwidth <= MAX_BANDWIDTH:
            raise ValueError(
                f"{device.name} reads {device.bandwidth:g} bytes of weights a second, it says"
            )
        if device.compute and not MIN_SPEED <= device.compute <= MAX_COMPUTE:
            raise ValueError(
                f"{device.name} does {device.compute:g} multiply-adds a second, it says"
            )
    total = sum(device.total for device in said.devices)
    if said.memory > total:
        raise ValueError(f"{said.memory} bytes may be borrowed of {total}, it says")
    return WorkerFacts(
        peer_id=peer_id,
        devices=said.devices,
        memory=said.memory,
        bound=said.bound,
        rpc=RpcVersion(*said.rpc) if len(said.rpc) == 3 else None,
        build=said.build,
        threads=said.threads,
        carriers=said.carriers,
        is_leased=said.is_leased,
        rtt=rtt,
        is_own=is_own,
    )
