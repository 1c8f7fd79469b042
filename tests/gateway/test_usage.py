"""What each key used, and what of it is in the file when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import request_records as records
import trio
from trio.testing import MockClock

from punch.events import DEFAULT_LIMIT, Bus, Cost
from punch.exceptions import ConfigurationError
from punch.gateway import DayUsage, KeyStore, open_usage, read_usage
from punch.gateway.keys._usage import MAX_COUNTED, MAX_DAYS, WRITE_SECONDS

# What a book has in memory: the uses of keys on days.
Pending = dict[tuple[str, str], DayUsage]

# 2030-03-01 12:00 UTC.
NOON = 1_898_596_800.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.sqlite3"


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time does not wait for threads: it would be over before the disk has answered."""

    async def run_here(
        work: Callable[..., object], *arguments: object, **_options: object
    ) -> object:
        return work(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)


async def test_requests_of_a_day_add_up_for_each_key(path: Path, autojump_clock: MockClock) -> None:
    """Tokens, requests and errors; again after a restart."""
    for _ in range(2):
        async with open_usage(path, wall=lambda: NOON, events=Bus()) as book:
            book.note(records.ended(records.easy()))
            book.note(records.ended(records.easy(status=503, error_code="no_peer", cost=Cost())))
            book.note(records.ended(records.easy(key_id="bob")))
            book.note(records.ended(records.easy(key_id=None)))
    assert read_usage(path) == {
        "ada": (
            DayUsage(
                day="2030-03-01", requests=4, errors=2, prompt_tokens=840, completion_tokens=22
            ),
        ),
        "bob": (DayUsage(day="2030-03-01", requests=2, prompt_tokens=840, completion_tokens=22),),
    }


async def test_a_day_ends_at_midnight_in_utc(path: Path, autojump_clock: MockClock) -> None:
    """Wherever the gateway is."""
    now = NOON
    async with open_usage(path, wall=lambda: now, events=Bus()) as book:
        book.note(records.ended(records.easy()))
        now = NOON + 12 * 3600
        book.note(records.ended(records.easy()))
    assert [day.day for day in read_usage(path)["ada"]] == ["2030-03-01", "2030-03-02"]


async def test_what_ended_is_in_the_file_within_a_second(
    path: Path, autojump_clock: MockClock
) -> None:
    """And a burst is one transaction."""
    async with open_usage(path, events=Bus()) as book:
        for _ in range(100):
            book.note(records.ended(records.easy()))
        assert read_usage(path) == {}
        await trio.sleep(WRITE_SECONDS + 0.01)
        assert read_usage(path)["ada"][0].requests == 100
        book.note(records.ended(records.easy()))
        await trio.sleep(WRITE_SECONDS + 0.01)
        assert read_usage(path)["ada"][0].requests == 101


async def test_a_disk_that_fails_for_a_while_loses_nothing(
    path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did not take is written with what comes next."""
    async with open_usage(path, events=Bus()) as book:
        real = book._write

        def fail(_pending: Pending) -> None:
            raise ConfigurationError("the disk is full")

        monkeypatch.setattr(book, "_write", fail)
        book.note(records.ended(records.easy()))
        await trio.sleep(3)
        book.note(records.ended(records.easy()))
        await trio.sleep(3)
        monkeypatch.setattr(book, "_write", real)
        await trio.sleep(2 * WRITE_SECONDS)
        assert read_usage(path)["ada"][0].requests == 2


async def test_what_is_kept_is_bounded(path: Path, autojump_clock: MockClock) -> None:
    """A year and a month: who wants more exports it."""
    now = NOON
    async with open_usage(path, wall=lambda: now, events=Bus()) as book:
        book.note(records.ended(records.easy()))
        await book.write()
        now += (MAX_DAYS + 1) * 86_400
        book.note(records.ended(records.easy()))
    assert len(read_usage(path)["ada"]) == 1


async def test_numbers_stay_such_that_the_file_takes_them(
    path: Path, autojump_clock: MockClock
) -> None:
    """In memory, and added up in the file: SQLite's integers end at 2**63."""
    for requests in (1, 3, 5):
        async with open_usage(path, wall=lambda: NOON, events=Bus()) as book:
            for _ in range(requests):
                book.note(records.ended(records.easy(cost=Cost(prompt=2**70, answer=2**62))))
    (day,) = read_usage(path)["ada"]
    assert (day.prompt_tokens, day.completion_tokens) == (MAX_COUNTED, MAX_COUNTED)
    assert day.requests == 9


async def test_what_cannot_be_written_takes_nothing_else_with_it(
    path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug with one key's numbers is logged, and the books go on."""
    async with open_usage(path, events=Bus()) as book:
        real = book._write

        def fail(pending: Pending) -> None:
            if any(key_id == "bob" for key_id, _ in pending):
                raise OverflowError("Python int too large to convert to SQLite INTEGER")
            real(pending)

        monkeypatch.setattr(book, "_write", fail)
        for key_id in ("ada", "bob", "cid"):
            book.note(records.ended(records.easy(key_id=key_id)))
        await trio.sleep(2 * WRITE_SECONDS)
        assert sorted(read_usage(path)) == ["ada", "cid"]
        book.note(records.ended(records.easy()))
        await trio.sleep(2 * WRITE_SECONDS)
        assert read_usage(path)["ada"][0].requests == 2


async def test_keys_and_their_books_share_one_connection(
    path: Path, autojump_clock: MockClock
) -> None:
    """Which the books leave open, as it is not theirs."""
    with KeyStore(path) as keys:
        key, _ = keys.create("ada")
        async with open_usage(keys.database, events=Bus()) as book:
            book.note(records.ended(records.easy(key_id=key.key_id)))
        assert read_usage(keys.database)[key.key_id][0].requests == 1
        assert keys.list() == (key,)


async def test_a_caller_that_leaves_is_no_error(path: Path, autojump_clock: MockClock) -> None:
    """It had what it wanted."""
    async with open_usage(path, events=Bus()) as book:
        book.note(records.ended(records.easy(error_code="disconnected", status=None)))
    assert read_usage(path)["ada"][0].errors == 0


async def test_no_request_is_lost_however_many_end_at_once(
    path: Path, autojump_clock: MockClock
) -> None:
    """Far more than any subscriber's queue holds, with no moment for a task in between."""
    events = Bus()
    async with open_usage(path, events=events, wall=lambda: NOON):
        for _ in range(3 * DEFAULT_LIMIT):
            events.publish(records.ended(records.easy()))
    assert read_usage(path)["ada"][0].requests == 3 * DEFAULT_LIMIT
