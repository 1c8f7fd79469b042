"""Serves the live feeds over WebSockets: what the page shows, the log, changes of backends.

Decides what a message says and what a slow reader misses. Handshakes, frames and pings are the
server's; who may enter is decided before anything here is asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import parse_qs

import trio
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Receive, Scope, Send

from .._background import open_background
from ..capability import PeerId
from ..events import Bus, Event, Lifecycle, Logged, Subscription
from ._feed import Feed

# The subprotocol that is spoken, for clients that want to hear one: browsers that offer a key.
SUBPROTOCOL = "punch"

# WebSockets at a time, all feeds together: as many as there are dashboards.
MAX_SOCKETS = 32

# Events that wait for one reader. One that is slower loses the newest and is told how many.
MAX_WAITING_EVENTS = 256

# How long events gather before the next ones are sent, in seconds.
GATHER_SECONDS = 0.05

# How often it is asked whether a reader's key is still good, in seconds.
KEY_SECONDS = 10.0

# How long one message may take until a reader of the dashboard's feed gets everything anew.
SLOW_SECONDS = 5.0

# Why a connection ends (RFC 6455, section 7.4.1): the gateway stops; the key is no longer good.
GOING_AWAY = 1001
NOT_PERMITTED = 1008

Row = dict[str, Any]
Say = Callable[[Row], Awaitable[None]]


def live_routes(
    feed: Feed, events: Bus, *, wall: Callable[[], float] = time.time
) -> list[BaseRoute]:
    """The WebSockets of a gateway.

    The last two have the names, and every message the keys, of a system that punch takes the place
    of: its programs read on.

    Args:
      feed: What the dashboard shows.
      events: Where the gateway and what is in its process publish.
      wall: The time, in seconds since 1970.

    """
    places = Places()

    def log(say: Say, scope: Scope) -> Awaitable[None]:
        return _follow(say, lambda wake: _lines(events, wake), _Spelled(wall, _log_row))

    def backends(say: Say, scope: Scope) -> Awaitable[None]:
        return _follow(say, lambda wake: _lifecycle(events, wake), _Spelled(wall, _event_row))

    async def dashboard(say: Say, scope: Scope) -> None:
        await _watch(say, feed, _last_seen(scope))

    serve = {
        "/ws/dashboard": dashboard,
        "/ws/logs": log,
        "/ws/backends": backends,
        "/ws/ollama_logs": backends,
        "/ws/llama_cpp_logs": backends,
    }
    return [WebSocketRoute(path, LiveSocket(work, places)) for path, work in serve.items()]


class Places:
    """Counts the WebSockets, so that there are no more than `MAX_SOCKETS`."""

    def __init__(self) -> None:
        self.used = 0
        """WebSockets that are open."""

    @contextmanager
    def one(self) -> Iterator[bool]:
        """A place, for as long as the context lasts; false if there is none."""
        if self.used >= MAX_SOCKETS:
            yield False
            return
        self.used += 1
        try:
            yield True
        finally:
            self.used -= 1


class LiveSocket:
    """One feed as a WebSocket; an ASGI application.

    Args:
      work: Sends messages until the feed ends.
      places: Where a place is taken for each client.

    """

    def __init__(self, work: Callable[[Say, Scope], Awaitable[None]], places: Places) -> None:
        self._work = work
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until it goes or the feed ends."""
        await receive()
        with self._places.one() as has_place:
            if not has_place:
                await _refuse(send)
                return
            chosen = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
            await send({"type": "websocket.accept", "subprotocol": chosen})

            async def say(row: Row) -> None:
                text = json.dumps(row, separators=(",", ":"), allow_nan=False)
                await send({"type": "websocket.send", "text": text})

            async with open_background() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                nursery.start_soon(_until_unwelcome, scope, send, nursery.cancel_scope)
                await self._work(say, scope)
                await send({"type": "websocket.close", "code": GOING_AWAY, "reason": "it is over"})


async def _refuse(send: Send) -> None:
    body = json.dumps({"error": {"message": "too many WebSockets are open; close one"}}).encode()
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"10")]
    start = {"type": "websocket.http.response.start", "status": 503, "headers": headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Read what the client says, which asks for nothing here, until it leaves."""
    while (await receive())["type"] != "websocket.disconnect":
        pass
    scope.cancel()


async def _until_unwelcome(scope: Scope, send: Send, cancel: trio.CancelScope) -> None:
    """End the connection of a client whose key was revoked, or has expired."""
    may_stay = True
    while may_stay:
        await trio.sleep(KEY_SECONDS)
        may_stay = await scope["punch.may_stay"]()
    reason = "the key is not good any more"
    await send({"type": "websocket.close", "code": NOT_PERMITTED, "reason": reason})
    cancel.cancel()


def _last_seen(scope: Scope) -> str | None:
    """The id of the last frame that a client had, which it gives in the address."""
    found = parse_qs(scope["query_string"].decode("latin-1")).get("last_event_id")
    return found[0] if found else None


async def _watch(say: Say, feed: Feed, last_seen: str | None) -> None:
    """What the dashboard's page shows: everything, then each change."""
    try:
        with feed.watch(last_seen) as watcher:
            while (frame := await watcher.receive()) is not None:
                began = trio.current_time()
                await say({"type": frame.event, "id": frame.id, "data": frame.data})
                if trio.current_time() - began > SLOW_SECONDS:
                    watcher.start_over()
    except BlockingIOError as error:
        await say({"type": "error", "message": f"{error}; close a dashboard"})


# ---- events ----


def _lines(events: Bus, wake: Callable[[], None]) -> AbstractContextManager[Subscription]:
    return events.subscribe(Logged, wake=wake, limit=MAX_WAITING_EVENTS)


def _lifecycle(events: Bus, wake: Callable[[], None]) -> AbstractContextManager[Subscription]:
    return events.follow(Lifecycle, wake=wake, limit=MAX_WAITING_EVENTS)


async def _follow(
    say: Say,
    subscribe: Callable[[Callable[[], None]], AbstractContextManager[Subscription]],
    spelled: _Spelled,
) -> None:
    """Say each event as it comes, and how many were lost."""
    news = trio.Event()
    with subscribe(lambda: news.set()) as subscription:
        await say(spelled.note("info", "connected"))
        while True:
            await news.wait()
            news = trio.Event()
            batch = subscription.drain()
            for event in batch.events:
                await say(spelled(event))
            if batch.lost:
                await say(spelled.note("lost", "this reader is too slow", count=batch.lost))
            await trio.sleep(GATHER_SECONDS)


class _Spelled:
    """Makes messages of events."""

    def __init__(self, wall: Callable[[], float], row: Callable[[Event], Row]) -> None:
        self._wall = wall
        self._row = row

    def __call__(self, event: Event) -> Row:
        return self._timed(event.at) | self._row(event)

    def note(self, kind: str, words: str, **more: Any) -> Row:
        """A message of the feed itself."""
        return self._timed(trio.current_time()) | _row(kind, "info", words, {}) | more

    def _timed(self, at: float) -> Row:
        # Computed anew each time: trio's clock may stand still while the machine sleeps.
        return {"timestamp": round(self._wall() - trio.current_time() + at, 3)}


def _row(kind: str, level: str, words: str, fields: Mapping[str, Any]) -> Row:
    peer: PeerId | str = fields.get("peer_id") or "here"
    component = fields.get("lane") or fields.get("backend") or "punch"
    return {
        "type": kind,
        "level": level,
        "message": words,
        "node": peer,
        "component": component,
        "event": dict(fields),
    }


def _event_row(event: Event) -> Row:
    """An event of any kind: its fields under ``event``, and in words under ``message``."""
    assert isinstance(event, Lifecycle)
    fields = event.told()
    kind = str(fields.pop("type"))
    said = ", ".join(
        f"{name} {value}"
        for name, value in fields.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    )
    words = kind.replace("_", " ")
    failed = fields.get("state") == "failed" or fields.get("error") is not None
    failed |= kind.endswith(("_failed", "_lost"))
    return _row(
        kind, "warning" if failed else "info", f"{words}: {said}" if said else words, fields
    )


def _log_row(event: Event) -> Row:
    """A line of the log: its own words under ``message``, the rest under ``event``."""
    assert isinstance(event, Logged)
    line = event.line
    fields = {"logger": line["logger"], **line["fields"]}
    return _row("log", str(line["level"]), str(line["event"]), fields)
