"""A plan that takes long keeps nobody waiting but who asked for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import trio

from punch.cluster.coordinator._planning import MAX_DEVICES_AT_ONCE, planned
from punch.placement import HEAD, Device, Refused


def devices(count: int) -> list[Device]:
    return [
        Device(id=f"d{number}", holder=HEAD, memory=1, bandwidth=1.0, compute=1.0)
        for number in range(count)
    ]


async def test_the_program_goes_on_while_many_devices_are_planned() -> None:
    """The plan is made once somebody else has had a turn, which it would wait for in vain."""
    had_a_turn = threading.Event()

    def slow(found: Sequence[Device]) -> Refused:
        assert had_a_turn.wait(5)
        return Refused(word="no_device", reason=f"of {len(found)}")

    async def somebody_else() -> None:
        had_a_turn.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(somebody_else)
        plan = await planned(slow, devices(MAX_DEVICES_AT_ONCE + 1))
    assert isinstance(plan, Refused)
    assert plan.reason == f"of {MAX_DEVICES_AT_ONCE + 1}"


@pytest.mark.parametrize("count", [0, MAX_DEVICES_AT_ONCE])
async def test_a_few_are_planned_at_once(count: int) -> None:
    """A thread would take longer than the plan."""
    threads = []

    def quick(found: Sequence[Device]) -> Refused:
        threads.append(threading.get_ident())
        return Refused(word="no_device", reason=str(len(found)))

    await planned(quick, devices(count))
    assert threads == [threading.get_ident()]
