"""Serves the dashboard: the page, its parts, the feed, and the story of a request.

The page and its parts hold no data and are public; what is shown is under ``/api/`` and takes
the same key as every other request there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path

import attrs
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from .._background import open_background
from ..adoption import AdoptedServer
from ..decision_log import LogLine, read_log
from ..exceptions import ConfigurationError, NotPermitted
from ..gateway.keys import Quotas
from ._answers import NEVER_KEPT, SECURITY_HEADERS, data_of, error_of
from ._feed import Feed, Frame, Watcher
from ._key_rows import KeyBook
from ._machines import Machines
from ._network import Charted
from ._network_routes import network_routes
from ._newcomers import DECISIONS, Newcomers
from ._stories import story_body

# A stream without an event gets a comment after this long, in seconds: proxies close silent
# connections, and so does the page after three times as long.
KEEP_ALIVE_SECONDS = 5.0

# A watcher that takes this long for one frame gets everything anew instead of what it missed.
SLOW_SECONDS = 5.0

# A watcher that takes this long for one frame has gone.
GONE_SECONDS = 60.0

# A request id is never longer.
MAX_ID_CHARACTERS = 128

# The version is part of the address: what was fetched once is never asked for again.
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"

CONTENT_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Where the page names its parts, in place of the version of all of them.
VERSION_MARK = b"{version}"


@attrs.frozen(kw_only=True)
class Asset:
    """A file of the page."""

    body: bytes
    """The bytes."""

    content_type: str
    """The media type."""

    etag: str
    """The entity tag: a hash of the content."""


def load_assets() -> tuple[Asset, Mapping[str, Asset], str]:
    """The page, its parts by name, and the version of all of them together."""
    folder = resources.files(__package__) / "static"
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
    digest = hashlib.sha256()
    for name, body in sorted(files.items()):
        digest.update(f"{name} {len(body)}\n".encode() + body)
    version = digest.hexdigest()[:16]
    page = files.pop("index.html").replace(VERSION_MARK, version.encode())
    parts = {name: _asset(name, body) for name, body in files.items()}
    return _asset("index.html", page), parts, version


def _asset(name: str, body: bytes) -> Asset:
    return Asset(
        body=body,
        content_type=CONTENT_TYPES[Path(name).suffix],
        etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"',
    )


def dashboard_routes(
    feed: Feed,
    *,
    decision_log: Path | None = None,
    book: KeyBook | None = None,
    newcomers: Newcomers | None = None,
    machines: Machines | None = None,
    router: Charted | None = None,
    adopted: Callable[[], Sequence[AdoptedServer]] = tuple,
) -> list[BaseRoute]:
    """The routes of the dashboard.

    Args:
      feed: What it shows.
      decision_log: The file that has the stories of earlier requests, if there is one.
      book: The API keys, which the gateway may have none of.
      newcomers: Who asks to be let into a closed namespace; `None` in an open one.
      machines: Who is a member of it, and was invited; `None` in an open one.
      router: Who is connected with whom, and where models could run; `None` to show nothing of it.
      adopted: Gives the servers of others that this process has lanes of.

    """
    dashboard = Dashboard(
        feed,
        decision_log=decision_log,
        book=book or KeyBook(Quotas()),
        newcomers=newcomers,
    )
    return [
        Route("/", dashboard.page, methods=["GET"], include_in_schema=False),
        Route("/assets/{version}/{file}", dashboard.part, methods=["GET"], include_in_schema=False),
        Route("/api/dashboard/snapshot", dashboard.snapshot, methods=["GET"]),
        Route("/api/dashboard/events", dashboard.events, methods=["GET"]),
        Route("/api/dashboard/history", dashboard.history, methods=["GET"]),
        Route("/api/dashboard/keys", dashboard.keys, methods=["GET"]),
        Route("/api/dashboard/requests/{request_id:path}", dashboard.story, methods=["GET"]),
        Route("/api/dashboard/newcomers", dashboard.newcomers, methods=["GET"]),
        *(
            Route(
                f"/api/dashboard/newcomers/{{identifier}}/{{digits}}/{what}",
                partial(dashboard.decide, what),
                methods=["POST"],
            )
            for what in (DECISIONS if newcomers is not None else ())
        ),
        *network_routes(feed, machines=machines, router=router, adopted=adopted),
    ]


class Dashboard:
    """Answers for `dashboard_routes`."""

    def __init__(
        self,
        feed: Feed,
        *,
        decision_log: Path | None,
        book: KeyBook,
        newcomers: Newcomers | None,
    ) -> None:
        self._feed = feed
        self._newcomers = newcomers
        self._book = book
        self._path = decision_log
        self._page, self._parts, self._version = load_assets()
        # Reading some 30 MB for one story is enough at a time.
        self._reading = trio.CapacityLimiter(1)

    async def page(self, request: Request) -> Response:
        """The page."""
        return _served(request, self._page, REVALIDATE)

    async def part(self, request: Request) -> Response:
        """A script, style or image of the page."""
        part = self._parts.get(request.path_params["file"])
        if part is None or request.path_params["version"] != self._version:
            # A page from before an update asks for parts that are gone; a reload gets the new page.
            return Response(status_code=404, headers=dict(SECURITY_HEADERS))
        return _served(request, part, IMMUTABLE)

    async def snapshot(self, request: Request) -> Response:
        """Everything that is shown, once."""
        return data_of(self._feed.since(0))

    async def events(self, request: Request) -> Response:
        """Everything that is shown, then each change as it happens."""
        return EventStream(self._feed, request.headers.get("last-event-id"))

    async def history(self, request: Request) -> Response:
        """The last day, minute by minute."""
        return data_of(self._feed.history())

    async def keys(self, request: Request) -> Response:
        """The API keys, what they used and what they have left."""
        try:
            return data_of(await self._book.as_data())
        except ConfigurationError:
            # The file's name is for the operator, whose log has it.
            return error_of(503, "the file of API keys cannot be read")

    async def newcomers(self, request: Request) -> Response:
        """The machines that ask to be let into the namespace."""
        if self._newcomers is None:
            return data_of({"namespace": None, "may": False, "why_not": None, "newcomers": []})
        try:
            return data_of(await self._newcomers.as_data(request))
        except ConfigurationError:
            return error_of(503, "the files of the namespace cannot be read")

    async def decide(self, what: str, request: Request) -> Response:
        """Let a machine in that asks, or refuse it."""
        assert self._newcomers is not None
        given = request.path_params
        try:
            said = await self._newcomers.decide(request, what, given["identifier"], given["digits"])
        except NotPermitted as error:
            return error_of(403, error.message)
        except ConfigurationError as error:
            return error_of(409, error.message)
        return data_of({"said": said})

    async def story(self, request: Request) -> Response:
        """All that is known of one request."""
        request_id = request.path_params["request_id"]
        if not 0 < len(request_id) <= MAX_ID_CHARACTERS:
            return error_of(404, "no request has such an id")
        row, prompt = self._feed.row_of(request_id)
        lines, source = self._feed.lines_of(request_id), "memory"
        if not lines and self._path is not None:
            try:
                lines = await trio.to_thread.run_sync(
                    _read, self._path, request_id, limiter=self._reading
                )
            except ConfigurationError:
                lines = []
            source = "log"
        if row is None and not lines:
            return error_of(404, "nothing is known of that request: it may be too long ago")
        return data_of(
            {
                "request_id": request_id,
                "request": row,
                "prompt": prompt,
                "source": source,
                "lines": story_body(request_id, lines),
                "choices": [
                    {"request_id": choice, "lines": story_body(choice, of_choice)}
                    for choice, of_choice in self._feed.choices_of(request_id)
                ],
            }
        )


def _read(path: Path, request_id: str) -> list[LogLine]:
    return [line for line in read_log(path, request_id=request_id) if isinstance(line, LogLine)]


def _served(request: Request, asset: Asset, cache: str) -> Response:
    headers = {**SECURITY_HEADERS, "etag": asset.etag, "cache-control": cache}
    known = [tag.strip().removeprefix("W/") for tag in _tags(request)]
    if asset.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers={**headers, "content-type": asset.content_type})


def _tags(request: Request) -> list[str]:
    return request.headers.get("if-none-match", "").split(",")


class EventStream(Response):
    """The feed as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html.

    One task and nothing in between: what the client does not take is not made.
    """

    def __init__(self, feed: Feed, last_event_id: str | None) -> None:
        self._feed = feed
        self._last_event_id = last_event_id
        super().__init__(
            headers={
                **SECURITY_HEADERS,
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": NEVER_KEPT,
                "x-accel-buffering": "no",
            }
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the feed until the client goes or the feed ends."""
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        try:
            with self._feed.watch(self._last_event_id) as watcher:
                async with open_background() as nursery:
                    nursery.start_soon(self._until_gone, receive, nursery.cancel_scope)
                    await self._send_all(watcher, send)
        except BlockingIOError:
            busy = error_of(503, "too many dashboards are open; close one")
            busy.headers["retry-after"] = "10"
            await busy(scope, receive, send)

    async def _until_gone(self, receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _send_all(self, watcher: Watcher, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while True:
            with trio.move_on_after(KEEP_ALIVE_SECONDS) as quiet:
                frame = await watcher.receive()
            body = b": still here\n\n" if quiet.cancelled_caught else written(frame)
            began = trio.current_time()
            with trio.move_on_after(GONE_SECONDS) as gone:
                await send({"type": "http.response.body", "body": body, "more_body": bool(body)})
            if gone.cancelled_caught or not body:
                return
            if trio.current_time() - began > SLOW_SECONDS:
                watcher.start_over()


def written(frame: Frame | None) -> bytes:
    """*frame* as a server-sent event; empty for `None`, the end."""
    if frame is None:
        return b""
    data = json.dumps(frame.data, separators=(",", ":"), allow_nan=False)
    return f"id: {frame.id}\nevent: {frame.event}\ndata: {data}\n\n".encode("ascii")
