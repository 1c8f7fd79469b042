"""A worker as a split has it: what its lease says counts more than what its survey said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import pytest
import trio

from punch._background import open_background
from punch.capability import PeerId
from punch.cluster.borrowing import Borrower, WorkerFacts
from punch.cluster.coordinator import WorkerLender
from punch.cluster.coordinator._held import Held
from punch.cluster.coordinator._surveys import devices_of
from punch.cluster.leases import LentDevice
from punch.exceptions import PeerFailed
from punch.llama_cpp import RpcVersion
from punch.tunnels import Measured, TunnelStatistics

ANNA = PeerId("anna")
FACTS = WorkerFacts(
    peer_id=ANNA,
    devices=(LentDevice(name="CPU", total=900, free=600), LentDevice(name="GPU", total=400)),
    memory=600,
    bound="limit",
    rpc=RpcVersion(7, 0, 0),
    build="b1",
    threads=0,
    carriers=frozenset({"direct"}),
    is_leased=False,
    rtt=0.001,
)


@attrs.define
class FakeLease:
    """A lease of what a test says."""

    devices: tuple[str, ...] = ("CPU", "GPU")
    memory: int = 600
    endpoint: str = "127.0.0.1:1"
    why: str | None = None
    is_own: bool = False
    lost: trio.Event = attrs.field(factory=trio.Event)

    def statistics(self) -> TunnelStatistics:
        return TunnelStatistics()

    async def measure(self) -> Measured:
        return Measured(rtt=0.002, rate=1e8)


@attrs.define
class FakeBorrower:
    """Borrows one lease."""

    lease: FakeLease

    async def survey(self, peer_id: PeerId, addresses: Any) -> WorkerFacts:
        return FACTS

    @asynccontextmanager
    async def take(self, peer_id: PeerId, addresses: Any) -> AsyncIterator[FakeLease]:
        yield self.lease


async def held_of(lease: FakeLease) -> Held:
    """The loan of a worker that was asked, and then gave *lease*."""
    lender = WorkerLender(cast("Borrower", FakeBorrower(lease)), ANNA, lambda: ())
    found = await lender.survey()
    held = Held(lender, found, devices_of("anna", found), is_loading=lambda: False)
    async with open_background() as nursery:
        await nursery.start(held.run, lambda held, why: None)
        held.is_over.set()
    return held


async def test_a_lease_of_less_memory_is_planned_with(autojump_clock: object) -> None:
    """What it was said to be before is not borrowed."""
    whole = await held_of(FakeLease(memory=700))
    assert [device.memory for device in whole.lendable.devices] == [600, 0]
    less = await held_of(FakeLease(memory=150))
    assert [device.memory for device in less.lendable.devices] == [150, 0]


@pytest.mark.parametrize("devices", [("CPU",), ("GPU", "CPU"), ("CPU", "GPU", "X")])
async def test_a_lease_of_other_devices_is_none(
    autojump_clock: object, devices: tuple[str, ...]
) -> None:
    """The head counts devices through, so those of other workers would be taken for its own."""
    with pytest.raises(PeerFailed, match="and said CPU, GPU"):
        await held_of(FakeLease(devices=devices))
