"""The trio side of `punch.events`: a subscriber with a task of its own, and a bus that logs faults.

What a subscriber does with an event is its own; this module sees to it that no publisher waits
for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from ._background import open_background
from ._logs import get_logger
from .events import DEFAULT_LIMIT, Bus, Event, Subscription

log = get_logger(__name__)

# How long events gather once a subscriber has handled what there was, in seconds, as long as in the
# decision log: to wake a task for each would cost a busy gateway more than to handle it.
GATHER_SECONDS = 0.02


def open_bus() -> Bus:
    """A bus whose subscribers' faults are in the log."""
    return Bus(failed=_note_fault)


def _note_fault(error: Exception, event: Event) -> None:
    log.error("a subscriber has a bug", exc_info=error, told=type(event).__name__)


class Subscriber:
    """Handles events one after the other. Made by `open_subscriber`."""

    def __init__(self, handle: Callable[[Event], None], lost: Callable[[int], None] | None) -> None:
        self._handle = handle
        self._lost = lost
        self._news = trio.Event()
        self._subscription: Subscription | None = None

    def catch_up(self) -> None:
        """Handle all events published so far, now: before a total is shown, for example."""
        if self._subscription is None:
            return
        batch = self._subscription.drain()
        for event in batch.events:
            try:
                self._handle(event)
            except Exception as error:  # noqa: BLE001 - one event's bug is not the next one's
                _note_fault(error, event)
        if batch.lost and self._lost is not None:
            self._lost(batch.lost)

    def _wake(self) -> None:
        self._news.set()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            self.catch_up()
            await trio.sleep(GATHER_SECONDS)


@asynccontextmanager
async def open_subscriber(
    events: Bus,
    *kinds: type[Event],
    handle: Callable[[Event], None],
    lost: Callable[[int], None] | None = None,
    limit: int = DEFAULT_LIMIT,
) -> AsyncIterator[Subscriber]:
    """Have *handle* called with every event of *kinds*, in a task of its own.

    At the end of the context what was published before it is handled too.

    Args:
      events: Where they are published.
      kinds: Which events; subclasses are kinds of their own.
      handle: Takes one event: quick, and never awaits. What it raises is logged.
      lost: Called with the number of lost events, each time that some were.
      limit: Events that may wait.

    """
    subscriber = Subscriber(handle, lost)
    with events.subscribe(*kinds, wake=subscriber._wake, limit=limit) as subscription:
        subscriber._subscription = subscription
        async with open_background() as nursery:
            nursery.start_soon(subscriber._run)
            try:
                yield subscriber
            finally:
                subscriber.catch_up()
