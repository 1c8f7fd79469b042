"""The requests under way, and the events of each: started once, then changes, then ended once."""

from __future__ import annotations

import trio

from ..events import (
    Bus,
    RequestChanged,
    RequestEnded,
    RequestRecord,
    RequestRefused,
    RequestStarted,
)


class LiveRequests:
    """Publishes what becomes of each request, in order.

    Args:
      events: Where to.

    """

    def __init__(self, events: Bus | None = None) -> None:
        self.events = Bus() if events is None else events
        """Where it is published."""
        self.under_way: set[RequestRecord] = set()
        """Requests that have started and not ended."""

    def start(self, record: RequestRecord) -> None:
        """Publish that *record* started, unless that was published."""
        if record in self.under_way or record.ended_at is not None:
            return
        self.under_way.add(record)
        if self.events.wants(RequestStarted):
            self.events.publish(RequestStarted(at=trio.current_time(), request=record))

    def change(self, record: RequestRecord) -> None:
        """Publish that *record* changed, if it is under way."""
        if record in self.under_way and self.events.wants(RequestChanged):
            self.events.publish(RequestChanged(at=trio.current_time(), request=record))

    def end(self, record: RequestRecord) -> None:
        """Publish that *record* is over, unless that was published."""
        if record.ended_at is not None:
            return
        self.start(record)
        self.under_way.discard(record)
        record.ended_at = now = trio.current_time()
        if self.events.wants(RequestEnded):
            self.events.publish(RequestEnded(at=now, request=record))

    def refuse(self, status: int) -> None:
        """Publish that a request got no further than the door."""
        if self.events.wants(RequestRefused):
            self.events.publish(RequestRefused(at=trio.current_time(), status=status))
