"""Tells the gateway's own process what happens in a front, event by event.

The gateway publishes what it is told as its own events, so that metrics and dashboard are of all
fronts together, and none of them knows that there are any. What may lose nothing is done where it
happens: a front bills its own requests, and writes its own decisions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import cast

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...decision_log import LineMade
from ...events import (
    STOPPED,
    Bus,
    Event,
    PromptRead,
    RequestChanged,
    RequestEnded,
    RequestRecord,
    RequestRefused,
    RequestStarted,
    Subscription,
)
from ._link import Link
from ._messages import Told, slim

log = get_logger(__name__)

# How long events gather, in seconds: one message for many costs both sides less, and a page that
# shows them is not looked at more often.
GATHER_SECONDS = 0.05

# Events of one message, and messages that may wait: of a gateway that is too busy to take them,
# events are lost and counted, as with every subscriber.
MAX_EVENTS = 256
MAX_MESSAGES = 8

_KINDS = (RequestStarted, RequestChanged, RequestEnded, RequestRefused, LineMade)
_OfRequest = RequestStarted | RequestChanged | RequestEnded | PromptRead
_OF_REQUESTS = (RequestStarted, RequestChanged, RequestEnded, PromptRead)


class Telling:
    """Tells the gateway what happens here. Made by `open_telling`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._subscription: Subscription | None = None
        self._news = trio.Event()
        # The records that the gateway was told of, and of whose end it was not, by their keys. An
        # address would not do as a key: the next record may have it.
        self._keys: dict[RequestRecord, int] = {}
        self._serials = count(1)

    async def run(self) -> None:
        """Tell everything, until cancelled."""
        while True:
            await self._news.wait()
            await trio.sleep(GATHER_SECONDS)
            self._news = trio.Event()
            self.tell()

    def wake(self) -> None:
        """Tell soon: something happened."""
        self._news.set()

    def tell(self) -> None:
        """Tell what has happened since the last time."""
        assert self._subscription is not None, "it tells what it is subscribed to"
        while self._link.waiting < MAX_MESSAGES:
            batch = self._subscription.drain(MAX_EVENTS)
            if not batch.events and not batch.lost:
                return
            self._link.send(self._told(batch.events, batch.lost))
            if batch.lost:
                self._tell_ends()
        # The gateway is too busy to take more now.
        self.wake()

    def _tell_ends(self) -> None:
        """Tell again of the ends that were among the lost events: all others were told by now."""
        ended = [each for each in self._keys if each.ended_at is not None]
        ends = [RequestEnded(at=trio.current_time(), request=each) for each in ended]
        for first in range(0, len(ends), MAX_EVENTS):
            self._link.send(self._told(tuple(ends[first : first + MAX_EVENTS]), 0))

    def _told(self, events: tuple[Event, ...], lost: int) -> Told:
        copies: dict[RequestRecord, RequestRecord] = {}
        told: list[Event] = []
        keys: list[int | None] = []
        for event in events:
            if isinstance(event, _OF_REQUESTS):
                record = event.request
                if record not in copies:
                    copies[record] = slim(record)
                told.append(attrs.evolve(event, request=copies[record]))
                keys.append(self._key_of(record, is_last=isinstance(event, RequestEnded)))
            else:
                told.append(event.short() if isinstance(event, LineMade) else event)
                keys.append(None)
        return Told(events=tuple(told), keys=tuple(keys), lost=lost)

    def _key_of(self, record: RequestRecord, *, is_last: bool) -> int:
        key = self._keys.pop(record, None) or next(self._serials)
        if not is_last:
            self._keys[record] = key
        return key


@asynccontextmanager
async def open_telling(link: Link, events: Bus, *, prompts: bool = False) -> AsyncIterator[None]:
    """Tell the gateway what is published on *events*, for as long as the context lasts.

    Args:
      link: Leads to the gateway.
      events: Of this front.
      prompts: Whether the words of requests are told, too.

    """
    kinds = (*_KINDS, PromptRead) if prompts else _KINDS
    telling = Telling(link)
    with events.subscribe(*kinds, wake=telling.wake) as telling._subscription:
        async with open_background() as nursery:
            nursery.start_soon(telling.run)
            try:
                yield
            finally:
                telling.tell()


class Retelling:
    """Publishes in the gateway what one front tells.

    Args:
      events: Of the gateway.

    """

    def __init__(self, events: Bus) -> None:
        self._events = events
        self._records: dict[int, RequestRecord] = {}

    @property
    def under_way(self) -> int:
        """How many requests the front works at, as far as it was told."""
        return len(self._records)

    def hear(self, told: Told) -> None:
        """Publish what was told."""
        for event, key in zip(told.events, told.keys, strict=True):
            if key is not None:
                self._hear_of(cast("_OfRequest", event), key)
            else:
                self._events.publish(event)
        if told.lost:
            log.warning("events of a front are lost: there were too many at once", lost=told.lost)
            self._events.lose(told.lost, *_KINDS)

    def _hear_of(self, event: _OfRequest, key: int) -> None:
        known = self._records.get(key)
        if known is None:
            known = self._records[key] = event.request
        elif known is not event.request:
            # Whoever has heard of the request holds this record, and reads its newest state.
            for field in attrs.fields(RequestRecord):
                setattr(known, field.name, getattr(event.request, field.name))
        if isinstance(event, RequestEnded):
            del self._records[key]
        self._events.publish(attrs.evolve(event, request=known))

    def end(self) -> None:
        """End the requests of a front that is gone."""
        for record in self._records.values():
            self._end(record)
        self._records.clear()

    def _end(self, record: RequestRecord) -> None:
        now = trio.current_time()
        if record.ended_at is None:
            record.ended_at, record.error_code = now, STOPPED
            self._events.publish(RequestEnded(at=now, request=record))
