"""Keeps the book of what each key used on each day, in the gateway's file.

Requests are counted in memory and written by one task, half a second after the first of them:
what a gateway that is killed had not written is what ended within its last second.

What a request costs is decided in `_charging`; here it is only added up.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...events import DISCONNECTED, Bus, Event, RequestEnded
from ...exceptions import ConfigurationError
from ._database import Database, Execute

log = get_logger(__name__)

# From the first request that is not written to the writing, in seconds. With a slow disk's time
# added it stays below a second.
WRITE_SECONDS = 0.5

# Days that are kept: a year, and a month to look at it.
MAX_DAYS = 400

# What is not written yet, in pairs of a key and a day; more come only if the disk is full.
MAX_PENDING = 16_384

# Every count is cut here: two of them together still fit SQLite's integers.
MAX_COUNTED = (1 << 62) - 1


@attrs.frozen(kw_only=True)
class DayUsage:
    """The usage of one key on one day."""

    day: str
    """The day in UTC, ISO 8601."""

    requests: int = 0
    """Requests that ended on it."""

    errors: int = 0
    """Requests that ended with an error; not those whose caller was gone."""

    prompt_tokens: int = 0
    """Tokens of their prompts."""

    completion_tokens: int = 0
    """Tokens of their answers."""

    def plus(self, other: DayUsage) -> DayUsage:
        """The sum of both, with this day."""
        return DayUsage(
            day=self.day,
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            prompt_tokens=min(MAX_COUNTED, self.prompt_tokens + other.prompt_tokens),
            completion_tokens=min(MAX_COUNTED, self.completion_tokens + other.completion_tokens),
        )


_COLUMNS = tuple(field.name for field in attrs.fields(DayUsage))

_ADD = f"""
INSERT INTO usage (key_id, {", ".join(_COLUMNS)}) VALUES (?, {", ".join("?" for _ in _COLUMNS)})
ON CONFLICT (key_id, day) DO UPDATE SET
    {", ".join(f"{n} = min({MAX_COUNTED}, {n} + excluded.{n})" for n in _COLUMNS[1:])}
"""  # noqa: S608 - our own names


class UsageBook:
    """Adds up usage and writes it. Made by `open_usage`.

    A bill may lose nothing, so this is a ledger of the bus (`Bus.account`) and no subscriber with
    a queue: a request is noted here before `RequestEnded` is published to anybody else, and in
    the file half a second later, or when the gateway ends.
    """

    def __init__(self, database: Database, *, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall = wall
        self._pending: dict[tuple[str, str], DayUsage] = {}
        self._news = trio.Event()
        self._warned = False
        self._oldest_day = ""

    def note(self, event: Event) -> None:
        """Note what an ended request has used, if it had a key."""
        if not isinstance(event, RequestEnded) or event.request.key_id is None:
            return
        record, key_id = event.request, event.request.key_id
        day = datetime.fromtimestamp(self._wall(), UTC).date().isoformat()
        cost = record.cost
        failed = record.error_code not in (None, DISCONNECTED)
        self._add(
            key_id,
            DayUsage(
                day=day,
                requests=1,
                errors=int(failed),
                prompt_tokens=min(MAX_COUNTED, cost.prompt),
                completion_tokens=min(MAX_COUNTED, cost.answer),
            ),
        )

    def _add(self, key_id: str, used: DayUsage) -> None:
        place = (key_id, used.day)
        before = self._pending.get(place)
        if before is not None:
            self._pending[place] = before.plus(used)
        elif len(self._pending) < MAX_PENDING:
            self._pending[place] = used
        else:
            log.error("usage is lost: too much of it waits for the disk", key=key_id, day=used.day)
        self._news.set()

    async def keep(self) -> None:
        """Write what was noted, for ever."""
        while True:
            await self._news.wait()
            await trio.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what was noted so far; if the disk does not take it, it is kept for later."""
        pending, self._pending = self._pending, {}
        self._news = trio.Event()
        if pending:
            await self._put(pending)

    async def _put(self, pending: dict[tuple[str, str], DayUsage]) -> None:
        try:
            # Shielded: after a cancellation it would be unknown whether the thread has written.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._write, pending)
            if self._warned:
                log.info("usage is written again")
            self._warned = False
        except ConfigurationError as error:
            if not self._warned:
                log.warning("usage cannot be written", why=str(error))
            self._warned = True
            for (key_id, _), used in pending.items():
                self._add(key_id, used)
        except Exception:
            # One row that cannot be written must not lose the others, nor end the gateway.
            if len(pending) > 1:
                for place, used in pending.items():
                    await self._put({place: used})
            else:
                log.exception("usage is lost", keys=[key_id for key_id, _ in pending])

    def _write(self, pending: dict[tuple[str, str], DayUsage]) -> None:
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        oldest = (today - timedelta(days=MAX_DAYS)).isoformat()

        def add(execute: Execute) -> None:
            for (key_id, _), used in pending.items():
                execute(_ADD, (key_id, *attrs.astuple(used)))
            if oldest != self._oldest_day:
                execute("DELETE FROM usage WHERE day < ?", (oldest,))

        self._database.write(add)
        self._oldest_day = oldest


def read_usage(file: Path | Database, *, since: str = "") -> dict[str, tuple[DayUsage, ...]]:
    """The usage of each key of a file, by key id, the oldest day first. Blocks.

    Args:
      file: Its path, or the file itself if it is open, which it stays.
      since: The first day, in UTC and ISO 8601; all that there are by default.

    Raises:
      ConfigurationError: if the file cannot be used.

    """
    database = file if isinstance(file, Database) else Database(file)
    try:
        query = f"SELECT key_id, {', '.join(_COLUMNS)} FROM usage WHERE day >= ? ORDER BY day"  # noqa: S608 - our own names
        rows = database.read(query, (since,))
    finally:
        if database is not file:
            database.close()
    found: dict[str, tuple[DayUsage, ...]] = {}
    for key_id, *values in rows:
        used = DayUsage(**dict(zip(_COLUMNS, values, strict=True)))
        found[key_id] = (*found.get(key_id, ()), used)
    return found


@asynccontextmanager
async def open_usage(
    file: Path | Database, *, events: Bus, wall: Callable[[], float] = time.time
) -> AsyncIterator[UsageBook]:
    """The books of a file, for as long as the context lasts; all of it is written at its end.

    Args:
      file: Its path, or the file itself if it is open, which it stays: `KeyStore.database`.
      events: Where the gateway publishes.
      wall: The time, in seconds since 1970.

    Raises:
      ConfigurationError: if the file cannot be used.

    """
    if isinstance(file, Database):
        database = file
    else:
        database = await trio.to_thread.run_sync(Database, file)
    book = UsageBook(database, wall=wall)
    try:
        async with open_background() as nursery:
            nursery.start_soon(book.keep)
            with events.account(RequestEnded, note=book.note):
                yield book
    finally:
        with trio.CancelScope(shield=True):
            await book.write()
            if database is not file:
                await trio.to_thread.run_sync(database.close)
