"""Looks who is on the LAN, of whatever namespace: for a newcomer that is a member of none yet.

Nothing of what is found is proved, and nobody is told of us.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from ..._background import open_background
from ._candidates import MAX_CANDIDATES, Candidates
from ._multicast import Lan, Multicast
from ._records import Failed, LanRecord, Unheard, parse


class Nearby:
    """The records that are heard. Made by `open_nearby`."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}
        """Interfaces on which nothing is heard, each with the reason."""
        self._records: dict[tuple[str, str], LanRecord] = {}
        self._pace = Candidates()
        self._changed = trio.Event()

    @property
    def records(self) -> tuple[LanRecord, ...]:
        """All that are there now, in the order in which they were heard."""
        return tuple(self._records.values())

    async def wait_for(
        self, wanted: Callable[[LanRecord], bool], seconds: float
    ) -> tuple[LanRecord, ...]:
        """Those that are *wanted*, as soon as there is one; none after *seconds*."""
        with trio.move_on_after(seconds):
            while not any(map(wanted, self._records.values())):
                await self._changed.wait()
        return tuple(filter(wanted, self._records.values()))

    async def _hear(self, multicast: Multicast, lan: Lan) -> None:
        interfaces = {each.name: each for each in lan._interfaces()}
        async for event in multicast.events:
            if isinstance(event, Failed):
                self.failed[event.interface] = event.why
            elif isinstance(event, Unheard):
                self._records.pop((event.interface, event.instance), None)
            elif event.interface in interfaces:
                if not self._pace.has_time_for_a_record(trio.current_time()):
                    continue
                record = parse(event, interfaces[event.interface])
                name = event.interface, event.instance
                if record is not None and (
                    name in self._records or len(self._records) < MAX_CANDIDATES
                ):
                    self._records[name] = record
            self._changed.set()
            self._changed = trio.Event()


@asynccontextmanager
async def open_nearby(lan: Lan) -> AsyncIterator[Nearby]:
    """Hear who is on the LANs of this machine while the context lasts, saying nothing.

    ::

        async with open_nearby(lan) as nearby:
            found = await nearby.wait_for(lambda record: record.joins, 5.0)
    """
    nearby = Nearby()
    async with (
        lan._open(dict.fromkeys(lan._interfaces())) as multicast,
        open_background() as nursery,
    ):
        nursery.start_soon(nearby._hear, multicast, lan)
        yield nearby
