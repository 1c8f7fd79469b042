"""A coordinator whose split loses a worker while its lane is timed opens it anew, a few times."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from punch.cli.splits._coordinator import MAX_OPENINGS, _added
from punch.exceptions import BackendCrashed


class Listener:
    """Takes no lane until it was offered one often enough."""

    def __init__(self, *, losses: int, was_ready: bool) -> None:
        self.splits: list[Any] = []
        self.tries = 0
        self._losses = losses
        self._was_ready = was_ready

    def make(self) -> Any:
        self.splits.append(SimpleNamespace(was_ready=self._was_ready))
        return self.splits[-1]

    async def add(self, backend: Any, **options: Any) -> Any:
        assert backend is self.splits[-1]
        self.tries += 1
        if self.tries <= self._losses:
            raise BackendCrashed(f"worker {self.tries} was lost")
        return options["name"]


async def added(listener: Any) -> Any:
    """Add a lane to a listener that is made up."""
    return await _added(listener, listener.make, listener.splits, queue_limit=4, calibrate=True)


async def test_a_split_that_was_ready_is_opened_anew() -> None:
    """Its coordinator outlives a worker that was lost while the lane was timed."""
    listener = Listener(losses=MAX_OPENINGS - 1, was_ready=True)
    assert await added(listener) == "split"
    assert listener.tries == MAX_OPENINGS


async def test_a_split_that_is_always_lost_is_given_up() -> None:
    """The last loss is what is told."""
    listener = Listener(losses=99, was_ready=True)
    with pytest.raises(BackendCrashed, match=f"worker {MAX_OPENINGS} was lost"):
        await added(listener)


async def test_a_split_without_a_plan_is_tried_once() -> None:
    """A refusal is no better the second time."""
    listener = Listener(losses=1, was_ready=False)
    with pytest.raises(BackendCrashed, match="worker 1 was lost"):
        await added(listener)
    assert listener.tries == 1
