"""The dashboard's keys: what each used and has left, and no secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import request_records as records
import trio
from http_feeds import Peers
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from trio.testing import MockClock

from punch.dashboard import Feed, KeyBook, dashboard_routes
from punch.dashboard._key_rows import SHOWN_DAYS
from punch.events import Bus
from punch.exceptions import ConfigurationError
from punch.gateway import Key, KeyStore, Quotas, open_usage

# 2030-03-01 12:00 UTC.
NOON = 1_898_596_800.0
DAY = 86_400.0


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time does not wait for threads: it would be over before the disk has answered."""

    async def run_here(work: Callable[..., object], *given: object, **_options: object) -> object:
        return work(*given)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    with KeyStore(tmp_path / "gateway.sqlite3", wall=lambda: NOON) as store:
        yield store


def book_of(store: KeyStore | None, quotas: Quotas | None = None) -> KeyBook:
    return KeyBook(quotas or Quotas(), keys=store, wall=lambda: NOON)


async def use(store: KeyStore, key: Key, *, days_ago: int = 0) -> None:
    """Note a request of a key on a day: 420 tokens of prompt and 11 of answer."""
    async with open_usage(
        store.database, events=Bus(), wall=lambda: NOON - days_ago * DAY
    ) as usage:
        usage.note(records.ended(records.easy(key_id=key.key_id)))


async def reply_of(book: KeyBook) -> Response:
    """What the route of a dashboard with this book answers."""
    app = Starlette(routes=dashboard_routes(Feed(Peers()), book=book))
    (route,) = [each for each in app.routes if getattr(each, "path", "").endswith("/keys")]
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    endpoint: Any = getattr(route, "endpoint")  # noqa: B009 - a route of another kind has none
    response = await endpoint(request)
    assert isinstance(response, Response)
    return response


async def test_a_key_is_shown_with_its_days_and_its_limits(
    store: KeyStore, autojump_clock: MockClock
) -> None:
    """As they are in the file; and nothing that a secret could be guessed from."""
    key, secret = store.create(
        "phone",
        models=["mock"],
        requests_per_minute=60,
        tokens_per_minute=1000,
        concurrency=4,
        expires_at=NOON + DAY,
    )
    await use(store, key, days_ago=1)
    await use(store, key)
    await use(store, key)
    response = await reply_of(book_of(store))
    data = json.loads(bytes(response.body))
    used = {"errors": 0, "prompt_tokens": 420, "completion_tokens": 11}
    assert (data["today"], data["days"], data["more"]) == ("2030-03-01", SHOWN_DAYS, 0)
    assert data["keys"] == [
        {
            "id": key.key_id,
            "name": "phone",
            "state": "active",
            "models": ["mock"],
            "more_models": 0,
            "created": NOON,
            "expires": NOON + DAY,
            "revoked": None,
            "limits": {"requests": 60, "tokens": 1000, "concurrency": 4},
            "left": {"running": 0, "requests": 60, "tokens": 1000},
            "days": [
                {"day": "2030-02-28", "requests": 1} | used,
                {"day": "2030-03-01", "requests": 2}
                | {name: 2 * value for name, value in used.items()},
            ],
        }
    ]
    assert response.headers["cache-control"] == "no-store"
    assert secret.rsplit("-", 1)[1] not in bytes(response.body).decode()


async def test_what_is_left_is_what_the_gateway_would_let_in(
    store: KeyStore, autojump_clock: MockClock
) -> None:
    """While a request is under way, and as the minute fills again."""
    key, _ = store.create("phone", requests_per_minute=60, tokens_per_minute=6000)
    quotas = Quotas()
    book = book_of(store, quotas)
    async with quotas.admit(key, "mock", weight=2, tokens=500):
        assert await _left(book) == {"running": 2, "requests": 58, "tokens": 5500}
    await trio.sleep(1)
    # The tokens came back, since none were charged; a request comes each second.
    assert await _left(book) == {"running": 0, "requests": 59, "tokens": 6000}


async def _left(book: KeyBook) -> Any:
    return (await book.as_data())["keys"][0]["left"]


async def test_without_keys_the_page_is_told_so(autojump_clock: MockClock) -> None:
    """Which is not the same as a file in which there are none; one may be made later."""
    book = book_of(None)
    assert (await book.as_data())["keys"] is None


async def test_a_key_that_was_made_later_is_shown(
    store: KeyStore, autojump_clock: MockClock
) -> None:
    """The gateway gives its book the keys when it begins to ask for one."""
    book = book_of(None)
    book.keys = store
    assert (await book.as_data())["keys"] == []
    store.create("phone")
    assert [row["name"] for row in (await book.as_data())["keys"]] == ["phone"]


async def test_the_good_and_the_recent_come_first_and_the_rest_is_counted(
    store: KeyStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands of keys the page gets some; and of a year, a month."""
    monkeypatch.setattr("punch.dashboard._key_rows.MAX_SHOWN_KEYS", 2)
    revoked, _ = store.create("revoked")
    store.revoke(revoked.key_id)
    used, _ = store.create("used")
    await use(store, used, days_ago=SHOWN_DAYS - 1)
    await use(store, used, days_ago=SHOWN_DAYS)
    store.create("other")
    data = await book_of(store).as_data()
    assert sorted(row["name"] for row in data["keys"]) == ["other", "used"]
    assert data["more"] == 1
    (days,) = [row["days"] for row in data["keys"] if row["name"] == "used"]
    assert [day["day"] for day in days] == ["2030-01-30"]


async def test_a_file_that_cannot_be_read_is_said_without_its_name(
    store: KeyStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key may see this page, and where files are is the operator's."""

    def fail(*_given: object, **_options: object) -> None:
        raise ConfigurationError(f"{store.path} cannot be used")

    monkeypatch.setattr("punch.dashboard._key_rows.read_usage", fail)
    response = await reply_of(book_of(store))
    assert response.status_code == 503
    assert str(store.path) not in bytes(response.body).decode()
