"""Who asks to be let in, on the dashboard: what it shows, who may decide, and what they decide."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from http_feeds import Peers, wall
from membership.test_calls import member
from membership.test_nearby import add, waiting
from membership.test_telling import joined
from starlette.applications import Starlette
from starlette.requests import Request

import punch
from punch.dashboard import Newcomers, Rights, dashboard_routes, open_feed
from punch.events import Bus
from punch.exceptions import NotPermitted
from punch.gateway.keys import Key
from punch.membership import Home
from punch.membership.nearby import _requests as requests_on_disk

PATH = "/api/dashboard/newcomers"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return punch.create_namespace("home", called="attic", folder=tmp_path / "attic")


def request_from(
    host: str = "127.0.0.1", *, key: Key | None = None, path: str = PATH, **headers: str
) -> Request:
    names = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": names, "root_path": "", "scheme": "http",
        "server": ("127.0.0.1", 80), "client": (host, 1), "http_version": "1.1",
    }  # fmt: skip
    if key is not None:
        scope["punch.key"] = key
    return Request(scope)


async def test_the_page_shows_who_asks_with_the_six_digits(home: Home) -> None:
    """With where from and for how long, and nothing else of the machine."""
    now = time.time()
    assert add(home, digits="123456", host="192.0.2.9")
    newcomers = Newcomers(home, wall=lambda: now + 1)
    data = await newcomers.as_data(request_from())
    (row,) = data["newcomers"]
    assert row.pop("id")
    assert 290 <= row.pop("seconds") <= 300
    assert row == {
        "name": "laptop",
        "digits": "123 456",
        "host": "192.0.2.9",
        "state": "waiting",
        "said": "",
    }
    assert (data["namespace"], data["may"], data["why_not"]) == (str(home.namespace), True, None)
    late = Newcomers(home, wall=lambda: now + requests_on_disk.REQUEST_SECONDS + 2)
    assert (await late.as_data(request_from()))["newcomers"] == []


@pytest.mark.parametrize(
    ("host", "headers", "key", "may"),
    [
        ("127.0.0.1", {}, None, True),
        ("127.0.0.9", {}, None, True),
        ("::1", {}, None, True),
        ("::ffff:127.0.0.1", {}, None, True),
        ("::ffff:192.168.1.7", {}, None, False),
        ("192.168.1.7", {}, None, False),
        ("", {}, None, False),
        ("127.0.0.1", {"x_forwarded_for": "192.168.1.7"}, None, False),
        ("127.0.0.1", {"forwarded": "for=192.168.1.7"}, None, False),
        ("127.0.0.1", {"via": "1.1 proxy"}, None, False),
        ("127.0.0.1", {}, "phone", False),
        ("192.168.1.7", {}, "phone", False),
        ("192.168.1.7", {}, "boss", True),
        ("127.0.0.1", {"x_forwarded_for": "192.168.1.7"}, "boss", True),
    ],
)
async def test_who_may_decide(
    home: Home, host: str, headers: dict[str, str], key: str | None, may: bool
) -> None:
    """Without keys who is at this machine; with keys who has one that was made for it."""
    assert add(home, digits="123456")
    (asking,) = waiting(home)
    newcomers = Newcomers(home, rights=Rights(has_keys=lambda: key is not None))
    given = None if key is None else Key(key_id=key, name=key, is_admin=key == "boss")
    request = request_from(host, key=given, **headers)
    data = await newcomers.as_data(request)
    assert data["may"] is may
    assert (data["why_not"] is None) is may
    if may:
        said = await newcomers.decide(request, "approve", asking.identifier, asking.digits)
        assert said == f"laptop (123 456) is being let into {home.namespace}"
    else:
        with pytest.raises(NotPermitted):
            await newcomers.decide(request, "approve", asking.identifier, asking.digits)
        assert waiting(home) == (asking,)


async def test_with_keys_a_request_without_one_decides_nothing(home: Home) -> None:
    """Not even from this machine, if the door had let it through."""
    data = await Newcomers(home, rights=Rights(has_keys=lambda: True)).as_data(request_from())
    assert not data["may"]
    assert "--admin" in data["why_not"]


async def test_a_gateway_that_is_open_to_all_decides_nothing(home: Home) -> None:
    """Whoever comes from loopback may come through a proxy that does not say so."""
    data = await Newcomers(home, rights=Rights(is_open=True)).as_data(request_from())
    assert not data["may"]
    assert "open to all" in data["why_not"]


async def test_a_machine_that_is_no_admin_says_where_it_is_decided(
    home: Home, tmp_path: Path
) -> None:
    """What a file may hold there is shown, and not decided."""
    laptop = joined(home, "laptop", tmp_path)
    assert add(laptop, digits="123456", name="guest")
    (asking,) = waiting(laptop)
    newcomers = Newcomers(laptop)
    assert "no admin" in (await newcomers.as_data(request_from()))["why_not"]
    with pytest.raises(NotPermitted, match="no admin"):
        await newcomers.decide(request_from(), "approve", asking.identifier, asking.digits)
    assert punch.list_newcomers(laptop) == (asking,)


@attrs.define
class Reply:
    status: int = 0
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[[str, str], Awaitable[Reply]]


def asker(app: Starlette) -> Ask:
    async def ask(method: str, path: str) -> Reply:
        reply = Reply()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
            else:
                reply.body += message.get("body", b"")

        await app({**request_from(path=path).scope, "method": method}, receive, send)
        return reply

    return ask


async def test_what_is_decided_is_what_the_command_would_decide(home: Home) -> None:
    """In the same words; what shows other digits, or asks no more, is not decided."""
    assert add(home, digits="123456", host="a")
    assert add(home, digits="654321", host="b", name="thief")
    first, second = waiting(home)
    async with open_feed(Peers(), events=Bus(), wall=wall) as feed:
        await trio.testing.wait_all_tasks_blocked()
        ask = asker(Starlette(routes=dashboard_routes(feed, newcomers=Newcomers(home))))
        rows = (await ask("GET", PATH)).json()["newcomers"]
        assert [row["digits"] for row in rows] == ["123 456", "654 321"]
        wrong = await ask("POST", f"{PATH}/{first.identifier}/654321/approve")
        assert (wrong.status, "does not ask" in wrong.json()["error"]) == (409, True)
        assert (await ask("GET", f"{PATH}/{first.identifier}/123456/approve")).status == 405
        assert (await ask("POST", f"{PATH}/{first.identifier}/123456/remove")).status == 404
        said = await ask("POST", f"{PATH}/{first.identifier}/123456/approve")
        assert said.json() == {"said": f"laptop (123 456) is being let into {home.namespace}"}
        refused = await ask("POST", f"{PATH}/{second.identifier}/654321/refuse")
        assert refused.json() == {"said": "refused thief (654 321) from b"}
        again = await ask("POST", f"{PATH}/{second.identifier}/654321/approve")
        assert again.status == 409
        states = {
            row["digits"]: row["state"] for row in (await ask("GET", PATH)).json()["newcomers"]
        }
        assert states == {"123 456": "approved", "654 321": "refused"}
        home.folder.write("namespace.json", b"{}")
        home.folder.remove("chain")
        assert (await ask("GET", PATH)).status == 503


async def test_in_an_open_namespace_nobody_asks(home: Home) -> None:
    """And nothing can be decided there."""
    member(home, "desk")
    async with open_feed(Peers(), events=Bus(), wall=wall) as feed:
        await trio.testing.wait_all_tasks_blocked()
        ask = asker(Starlette(routes=dashboard_routes(feed)))
        found = await ask("GET", PATH)
        assert found.json()["newcomers"] == []
        assert (await ask("POST", f"{PATH}/x/123456/approve")).status == 404
