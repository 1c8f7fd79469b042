"""Waits that end with a word or at a time, and share one task."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from punch._alarms import Alarm, Alarms


async def ring(alarm: Alarm, seconds: float) -> None:
    """Ring after a while."""
    await trio.sleep(seconds)
    alarm.ring()


async def test_a_wait_ends_at_its_time(autojump_clock: MockClock) -> None:
    """Of several each at its own, in any order."""
    woken: list[tuple[float, float]] = []
    async with trio.open_nursery() as nursery, trio.open_nursery() as waiting:
        alarms = Alarms(nursery)

        async def wait(until: float) -> None:
            await Alarm(alarms).wait(until)
            woken.append((until, trio.current_time()))

        began = trio.current_time()
        for seconds in (3.0, 1.0, 2.0, 1.0):
            waiting.start_soon(wait, began + seconds)
        waiting.start_soon(trio.sleep, 4.0)
        await trio.sleep(3.5)
        nursery.cancel_scope.cancel()
    assert woken == [(began + seconds, began + seconds) for seconds in (1.0, 1.0, 2.0, 3.0)]


async def test_a_ring_ends_a_wait_before_its_time(autojump_clock: MockClock) -> None:
    """The next wait lasts until its own time at the most, and no ring is left from before."""
    async with trio.open_nursery() as nursery:
        alarm, began = Alarm(Alarms(nursery)), trio.current_time()
        nursery.start_soon(ring, alarm, 1.0)
        await alarm.wait(began + 5.0)
        assert trio.current_time() == began + 1.0
        await alarm.wait(began + 2.0)
        assert trio.current_time() == began + 2.0
        nursery.cancel_scope.cancel()


async def test_a_time_that_moves_later_costs_one_early_ring(autojump_clock: MockClock) -> None:
    """However often it moved: nothing is set for each part of an answer."""
    async with trio.open_nursery() as nursery:
        alarms = Alarms(nursery)
        alarm, began = Alarm(alarms), trio.current_time()
        for part in range(100):
            nursery.start_soon(ring, alarm, 0.0)
            await alarm.wait(began + 5.0 + part)
        assert len(alarms._due) == 1
        rings = []
        while trio.current_time() < began + 104.0:
            await alarm.wait(began + 104.0)
            rings.append(trio.current_time() - began)
        assert rings == [5.0, 104.0]
        nursery.cancel_scope.cancel()


async def test_a_time_that_is_over_is_rung_at_once(autojump_clock: MockClock) -> None:
    """As with a deadline that has passed."""
    async with trio.open_nursery() as nursery:
        alarm, began = Alarm(Alarms(nursery)), trio.current_time()
        await alarm.wait(began - 1.0)
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


async def test_a_ring_after_a_wait_that_was_cancelled_wakes_nobody(
    autojump_clock: MockClock,
) -> None:
    """Nor does a second ring; and the alarm can be waited for again."""
    async with trio.open_nursery() as nursery:
        alarm, began = Alarm(Alarms(nursery)), trio.current_time()
        with trio.move_on_after(1.0):
            await alarm.wait(began + 5.0)
        alarm.ring()
        alarm.ring()
        await trio.sleep(1.0)
        nursery.start_soon(ring, alarm, 1.0)
        await alarm.wait(began + 9.0)
        assert trio.current_time() == began + 3.0
        nursery.cancel_scope.cancel()
