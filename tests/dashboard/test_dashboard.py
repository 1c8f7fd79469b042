"""The dashboard's routes: a page that can do nothing but show, and data behind the key."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import decision_logs as made
import pytest
import request_records as records
import trio
from http_feeds import Peers, wall
from starlette.applications import Starlette
from starlette.routing import Route
from trio.testing import MockClock

from punch.dashboard import Feed, dashboard_routes, open_feed
from punch.dashboard._routes import CONTENT_TYPES
from punch.decision_log import open_decision_log
from punch.events import Bus, Logged

STATIC = resources.files("punch.dashboard") / "static"


@attrs.define
class Reply:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    writes: list[bytes] = attrs.field(factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[tuple[str, str, Any]]:
        """Id, kind and data of each server-sent event."""
        found = []
        for block in self.body.decode("ascii").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "data" in fields:
                found.append((fields["id"], fields["event"], json.loads(fields["data"])))
        return found


@attrs.define
class Page:
    """The application with a feed behind it."""

    app: Starlette
    feed: Feed

    async def get(
        self,
        path: str,
        *,
        method: str = "GET",
        until: trio.Event | None = None,
        hold: float = 0.0,
        reply: Reply | None = None,
        **headers: str,
    ) -> Reply:
        """Ask, and hang up when *until* happens; each part is taken after *hold* seconds."""
        reply = reply or Reply()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await (trio.Event() if until is None else until).wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                await trio.sleep(hold)
                reply.writes.append(message.get("body", b""))

        names = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        await self.app(
            {
                "type": "http", "method": method, "path": path, "raw_path": path.encode(),
                "query_string": b"", "headers": names, "root_path": "", "scheme": "http",
                "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "http_version": "1.1",
            },
            receive,
            send,
        )  # fmt: skip
        return reply

    def watch(self, nursery: trio.Nursery, **given: Any) -> Reply:
        """Follow the feed; what comes is in the reply as it comes."""
        reply = Reply()
        path = "/api/dashboard/events"
        nursery.start_soon(partial(self.get, path, reply=reply, **given))
        return reply


@asynccontextmanager
async def opened(events: Bus | None = None, path: Path | None = None) -> AsyncIterator[Page]:
    async with open_feed(Peers(), events=events or Bus(), wall=wall) as feed:
        await trio.testing.wait_all_tasks_blocked()
        yield Page(Starlette(routes=dashboard_routes(feed, decision_log=path)), feed)


def parts_of(page: bytes) -> list[str]:
    """Addresses that the page loads."""
    return re.findall(r'(?:href|src)="(/assets/[^"]+)"', page.decode())


async def test_the_page_may_load_nothing_but_its_own_parts(autojump_clock: MockClock) -> None:
    """A strict policy, and none of its exceptions is needed."""
    async with opened() as page:
        reply = await page.get("/")
    assert reply.status == 200
    policy = dict(
        part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cross-origin-opener-policy"] == "same-origin"
    text = reply.body.decode()
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|https?://", text) == []


async def test_parts_are_kept_for_ever_and_the_page_is_asked_for_each_time(
    autojump_clock: MockClock,
) -> None:
    """The version of all of them is in the address, so that none can be out of date."""
    async with opened() as page:
        first = await page.get("/")
        assert first.headers["cache-control"] == "no-cache"
        again = await page.get("/", if_none_match=f'"x", W/{first.headers["etag"]}')
        assert (again.status, again.body) == (304, b"")
        parts = parts_of(first.body)
        assert len(parts) == 8
        for part in parts:
            reply = await page.get(part)
            assert reply.status == 200
            assert "immutable" in reply.headers["cache-control"]
            known = await page.get(part, if_none_match=reply.headers["etag"])
            assert known.status == 304
        version = parts[0].split("/")[2]
        for path in (
            "/assets/0000000000000000/main.js",
            f"/assets/{version}/index.html",
            f"/assets/{version}/nothing.js",
            f"/assets/{version}/..%2f_dashboard.py",
        ):
            assert (await page.get(path)).status == 404


def test_every_part_is_ours_small_and_writes_no_markup() -> None:
    """No inline code, no third party, and no way for data to become markup."""
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, file.name
        assert Path(file.name).suffix in CONTENT_TYPES
        if file.name.endswith(".js"):
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
                assert word not in text, f"{file.name} uses {word}"
            for imported in re.findall(r"(?m)^(?:import|export) .* from \"([^\"]+)\";$", text):
                assert imported.startswith("./"), f"{file.name} imports {imported}"
                assert (STATIC / imported.removeprefix("./")).is_file()
        if file.name.endswith(".css"):
            assert "url(" not in text
            assert "@import" not in text


async def test_the_feed_streams_and_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    """A snapshot, updates, comments while it is quiet; and a way back in."""
    async with opened() as page, trio.open_nursery() as nursery:
        until = trio.Event()
        reply = page.watch(nursery, until=until)
        await trio.sleep(1)
        page.feed.hear(Logged(at=0.0, line={"event": "one"}))
        await trio.sleep(12)
        assert page.feed.watching == 1
        until.set()
        await trio.testing.wait_all_tasks_blocked()
        assert page.feed.watching == 0
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        assert [kind for _, kind, _ in reply.events()] == ["snapshot", "update"]
        assert reply.writes.count(b": still here\n\n") == 2

        last = reply.events()[-1][0]
        page.feed.hear(Logged(at=0.0, line={"event": "two"}))
        until = trio.Event()
        later = page.watch(nursery, until=until, last_event_id=last)
        await trio.sleep(1)
        until.set()
        await trio.testing.wait_all_tasks_blocked()
        (event,) = later.events()
        assert event[1] == "update"
        assert [line["event"] for line in event[2]["logs"]] == ["two"]


async def test_a_slow_client_is_told_everything_anew_and_one_that_is_stuck_is_left(
    autojump_clock: MockClock,
) -> None:
    """What it does not take is not made, so there is nothing to keep for it."""
    async with opened() as page, trio.open_nursery() as nursery:
        until = trio.Event()
        slow = page.watch(nursery, until=until, hold=7.0)
        stuck = page.watch(nursery, until=until, hold=1000.0)
        for number in range(40):
            await trio.sleep(1)
            page.feed.hear(Logged(at=0.0, line={"event": str(number)}))
        assert page.feed.watching == 2
        await trio.sleep(30)
        assert page.feed.watching == 1
        until.set()
        await trio.testing.wait_all_tasks_blocked()
    assert stuck.events() == []
    assert {kind for _, kind, _ in slow.events()} == {"snapshot"}


async def test_the_end_of_the_feed_ends_every_stream(autojump_clock: MockClock) -> None:
    """So that a gateway can drain; the client sees a whole answer, and comes back."""
    async with opened() as page, trio.open_nursery() as nursery:
        reply = page.watch(nursery)
        await trio.sleep(2)
        page.feed.close()
        await trio.sleep(1)
        assert page.feed.watching == 0
        assert reply.writes[-1] == b""


async def test_too_many_dashboards_are_told_so(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a time after which one may try again."""
    monkeypatch.setattr("punch.dashboard._feed.MAX_WATCHERS", 0)
    async with opened() as page:
        reply = await page.get("/api/dashboard/events")
    assert (reply.status, reply.headers["retry-after"]) == (503, "10")
    assert "too many" in reply.json()["error"]


async def test_whoever_asks_for_the_head_of_the_events_holds_nothing(
    autojump_clock: MockClock,
) -> None:
    """It is answered at once, and nobody watches."""
    async with opened() as page:
        with trio.fail_after(1):
            reply = await page.get("/api/dashboard/events", method="HEAD")
        assert page.feed.watching == 0
    assert (reply.status, reply.body) == (200, b"")


async def test_a_story_comes_from_memory_or_else_from_the_log(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With every line of the decision log; of what nobody knows it says so."""
    path = tmp_path / "decisions.jsonl"
    await made.write(path, lambda events: made.note_continued(events, "old/1"))
    events = Bus()
    async with open_decision_log(path, events), opened(events, path) as page:
        record = records.new("new-1", endpoint="/api/chat")
        page.feed.hear(records.started(record))
        made.note_success(events, "new-1")
        while len(page.feed.lines_of("new-1")) < 3:
            # Virtual time must pass: lines of a second batch wait for the subscriber's next turn.
            await trio.sleep(0.001)
        new = (await page.get("/api/dashboard/requests/new-1")).json()
        old = (await page.get("/api/dashboard/requests/old/1")).json()
        gone = await page.get("/api/dashboard/requests/nobody")
        long = await page.get("/api/dashboard/requests/" + "x" * 129)
    assert new["source"] == "memory"
    assert new["request"]["endpoint"] == "/api/chat"
    assert new["prompt"] is None
    assert [line["kind"] for line in new["lines"]] == ["decided", "attempted", "ended"]
    assert (old["source"], old["request"]) == ("log", None)
    assert [line["kind"] for line in old["lines"]] == [
        "decided", "attempted", "decided", "attempted", "ended",
    ]  # fmt: skip
    assert (gone.status, long.status) == (404, 404)
    assert "nothing is known" in gone.json()["error"]


async def test_the_snapshot_is_the_first_frame_and_never_kept(autojump_clock: MockClock) -> None:
    """For scripts and tests; a browser must not show an old one."""
    async with opened() as page:
        reply = await page.get("/api/dashboard/snapshot")
    assert reply.headers["cache-control"] == "no-store"
    assert [peer["id"] for peer in reply.json()["peers"]] == [p.peer_id for p in made.PEERS]


async def test_the_last_day_is_there_by_the_minute(autojump_clock: MockClock) -> None:
    """Long after the snapshot has forgotten its seconds."""
    async with opened() as page:
        record = records.new("old-1")
        page.feed.hear(records.started(record))
        page.feed.hear(records.ended(record))
        began = (await page.get("/api/dashboard/history")).json()
        # Not second by second, of which a day has many; the last ones are slept through.
        autojump_clock.jump(23 * 3600 - 90)
        await trio.sleep(90)
        later = (await page.get("/api/dashboard/history")).json()
        autojump_clock.jump(2 * 3600 - 90)
        await trio.sleep(90)
        gone = await page.get("/api/dashboard/history")
    (point,) = began["points"]
    assert (point["t"] % 60, point["requests"], began["seconds"]) == (0, 1, 60)
    assert later["points"] == [point]
    assert gone.json()["points"] == []
    assert gone.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_here_can_be_changed(method: str, autojump_clock: MockClock) -> None:
    """The dashboard shows, and does nothing else; but for `test_newcomers`."""
    async with opened() as page:
        for route in page.app.routes:
            assert isinstance(route, Route)
            assert route.methods is not None
            assert method not in route.methods
