"""Tells the planner's lessons what the head of a split was seen to do, each time by which plan."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ...placement import Answered, Device, Lessons, Plan
from ...wire import Timings, Usage


class Learning:
    """Of one split.

    Args:
      lessons: What is told; `None` for nothing.

    """

    def __init__(self, lessons: Lessons | None) -> None:
        self._lessons = lessons
        self._plan: Plan | None = None
        self._devices: Sequence[Device] = ()
        self._began_at = 0.0
        self._is_ready = False

    def begin(self, plan: Plan, devices: Sequence[Device]) -> None:
        """A head is started by *plan*, which was made for *devices*."""
        self._plan, self._devices = plan, tuple(devices)
        self._began_at, self._is_ready = trio.current_time(), False

    def ready(self) -> None:
        """It has made its first token."""
        if self._lessons is not None and self._plan is not None and not self._is_ready:
            seconds = trio.current_time() - self._began_at
            self._lessons.learn_load(self._plan, self._devices, seconds)
        self._is_ready = True

    def answered(self, usage: Usage, timings: Timings) -> None:
        """It has made an answer, and nothing else meanwhile."""
        if self._lessons is None or self._plan is None or not self._is_ready:
            return
        self._lessons.learn(
            self._plan,
            self._devices,
            Answered(
                prompt_tokens=usage.computed_tokens,
                cached_tokens=usage.cached_tokens or 0,
                prompt_seconds=timings.prefill,
                answer_tokens=usage.completion_tokens,
                answer_seconds=timings.decode,
            ),
        )
