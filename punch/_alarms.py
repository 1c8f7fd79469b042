"""Wakes who waits for a word until a time: one task for all of them, not a cancel scope for each.

A cancel scope with a deadline costs more than all the rest of such a wait, and nearly every wait
ends with the word, long before its time.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import count

import trio


class Alarms:
    """Rings each alarm at its time.

    Args:
      nursery: Where the task runs that does so.

    """

    def __init__(self, nursery: trio.Nursery) -> None:
        # One that rang before its time, or waits until later now, stays until the time is there.
        self._due: list[tuple[float, int, Alarm]] = []
        self._serial = count()
        self._next_at = math.inf
        self._scope = trio.CancelScope()
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        while True:
            self._next_at = self._due[0][0] if self._due else math.inf
            with trio.CancelScope(deadline=self._next_at) as self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                heappop(self._due)[-1].time_is_up()

    def add(self, alarm: Alarm, at: float) -> None:
        """Ring *alarm* at a time of trio's clock, in seconds."""
        heappush(self._due, (at, next(self._serial), alarm))
        if at < self._next_at:
            self._next_at = self._scope.deadline = at


class Alarm:
    """Wakes one task that waits, again and again: at a word, or when its time is up.

    Args:
      alarms: What knows the time.

    """

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._set_for = math.inf
        self._sleeper: trio.lowlevel.Task | None = None

    async def wait(self, until: float) -> None:
        """Wait for a ring: `ring`, or the time *until* of trio's clock, or now and then earlier."""
        # The text of an answer moves its time later with each part: then the earlier ring is kept,
        # and who is woken by it looks at the clock, and waits on.
        if until < self._set_for:
            self._set_for = until
            self._alarms.add(self, until)
        # An event for each wait would be half of what a word costs.
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, raise_cancel: object) -> trio.lowlevel.Abort:
        del raise_cancel
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    def ring(self) -> None:
        """Wake the task, if it waits."""
        if self._sleeper is not None:
            sleeper, self._sleeper = self._sleeper, None
            trio.lowlevel.reschedule(sleeper)

    def time_is_up(self) -> None:
        """Ring, and take another time from now on; called by `Alarms`."""
        self._set_for = math.inf
        self.ring()
