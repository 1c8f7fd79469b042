"""What a machine says that it lends: what is really free, within what its owner lends."""

from __future__ import annotations

from pathlib import Path

import pytest

from punch.cluster.worker import RpcLender
from punch.cluster.worker import _rpc_lender as module
from punch.cluster.worker._rpc_lender import DEFAULT_SHARE, _Known
from punch.llama_cpp import RpcDevice, RpcVersion, Speeds

GIB = 1 << 30

CPU = RpcDevice(name="CPU", description="a processor", total_bytes=32 * GIB, free_bytes=32 * GIB)
GPU = RpcDevice(name="CUDA0", description="a card", total_bytes=8 * GIB, free_bytes=6 * GIB)


def lender(
    monkeypatch: pytest.MonkeyPatch,
    *devices: RpcDevice,
    memory: int | None = None,
    available: int | None = 10 * GIB,
) -> RpcLender:
    """A lender whose program has said that it has these devices."""
    monkeypatch.setattr(module, "measure_memory", lambda: (32 * GIB, available))
    found = RpcLender(Path("/rpc-server"), memory=memory)
    found._known = _Known(
        devices=devices,
        version=RpcVersion(7, 0, 0),
        bound="limit",
        build="b1",
        speeds=(Speeds(bandwidth=1e10, compute=1e11), *(None,) * (len(devices) - 1)),
    )
    return found


async def test_what_is_really_free_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself says of a CPU that all of it is free."""
    found = await lender(monkeypatch, CPU).survey()
    assert found.memory == int(10 * GIB * DEFAULT_SHARE)
    (device,) = found.devices
    assert (device.total, device.free) == (32 * GIB, found.memory)
    assert (device.bandwidth, device.compute) == (1e10, 1e11)
    assert (found.bound, found.rpc, found.build) == ("limit", (7, 0, 0), "b1")


async def test_no_more_is_lent_than_its_owner_lends(monkeypatch: pytest.MonkeyPatch) -> None:
    """On all devices together, in their order."""
    found = await lender(monkeypatch, GPU, CPU, memory=7 * GIB).survey()
    assert [device.free for device in found.devices] == [6 * GIB, 1 * GIB]
    assert found.memory == 7 * GIB


async def test_no_more_is_lent_than_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its owner lends: other programs have it."""
    found = await lender(monkeypatch, CPU, memory=20 * GIB, available=3 * GIB).survey()
    assert (found.memory, found.devices[0].free) == (3 * GIB, 3 * GIB)
    found = await lender(monkeypatch, CPU, memory=20 * GIB, available=0).survey()
    assert found.memory == 0


async def test_a_card_is_lent_whole_and_the_processor_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where its owner says nothing."""
    found = await lender(monkeypatch, GPU, CPU).survey()
    assert [device.free for device in found.devices] == [6 * GIB, int(10 * GIB * DEFAULT_SHARE)]


async def test_a_system_that_does_not_tell_lends_what_its_owner_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing where its owner says nothing either."""
    assert (await lender(monkeypatch, CPU, memory=GIB, available=None).survey()).memory == GIB
    assert (await lender(monkeypatch, CPU, available=None).survey()).memory == 0
