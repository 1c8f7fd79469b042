"""A client of the gateway's application that needs no server: plain ASGI, in virtual time."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from punch._subscribers import open_bus
from punch.dialer import Router
from punch.events import Event, RequestChanged, RequestEnded, RequestRecord, RequestStarted
from punch.gateway import GatewayParts, GatewaySettings, build_application
from punch.testing import Swarm, open_swarm

# Where one model is on offer, a name that no model has must not mean it.
BY_NAME = GatewaySettings(any_name=False)


@attrs.define
class Reply:
    """What came back so far."""

    status: int | None = None
    headers: dict[str, str] = attrs.field(factory=dict)
    writes: list[bytes] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.writes)

    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error."""
        (name, error), *more = self.json().items()
        assert name == "error"
        assert not more
        assert isinstance(error, dict)
        return error

    def events(self) -> list[Any]:
        """What the data of server-sent events says."""
        found = []
        for block in self.body.decode().split("\n\n"):
            for line in block.split("\n"):
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    found.append(data if data == "[DONE]" else json.loads(data))
        return found

    def comments(self) -> list[str]:
        """What keeps a waiting client waiting."""
        lines = self.body.decode().split("\n")
        return [line.removeprefix(": ") for line in lines if line.startswith(": ")]

    def lines(self) -> list[Any]:
        """The JSON of each line."""
        return [json.loads(line) for line in self.body.decode().splitlines()]

    def text(self, index: int = 0) -> str:
        """The text of a streamed chat."""
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events()
            if event != "[DONE]"
            for choice in event.get("choices", ())
            if choice["index"] == index
        )


class Connection:
    """One request on its way. Made by `Client.open`."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.reply = Reply()
        self._parts = list(parts)
        self._gone = trio.Event()
        self._changed = trio.Event()
        self.takes = math.inf
        """Writes that the client takes; more has to wait."""

    def leave(self) -> None:
        """Go away in the middle."""
        self._gone.set()

    def take(self, writes: float) -> None:
        """Take so many more writes."""
        self.takes += writes
        self._signal()

    async def until(self, writes: int) -> None:
        """Wait until there were so many writes."""
        while len(self.reply.writes) < writes:
            await self._changed.wait()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def receive(self) -> dict[str, Any]:
        """ASGI's receive."""
        if self._parts:
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI's send."""
        reply = self.reply
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            assert reply.status is None
            reply.status = message["status"]
            reply.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
            return
        assert reply.status is not None
        assert not reply.ended
        while self.takes < 1:
            await self._changed.wait()
        self.takes -= 1
        if message["body"]:
            reply.writes.append(message["body"])
            reply.times.append(trio.current_time())
        reply.ended = not message.get("more_body", False)
        if reply.ended:
            # As servers do: the other side is told that it is over.
            self._gone.set()
        self._signal()


class Client:
    """Asks an application."""

    def __init__(self, app: Any, seen: Seen, router: Router, swarm: Swarm) -> None:
        self.app = app
        self.seen = seen
        self.router = router
        self.swarm = swarm
        self.headers: dict[str, str] = {"host": "localhost"}

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Ask, and wait for the whole answer."""
        async with self.open(method, path, body, **headers) as connection:
            pass
        return connection.reply

    async def post(self, path: str, body: Any, **headers: str) -> Reply:
        """The same, for what most tests do."""
        return await self.request("POST", path, body, **headers)

    async def get(self, path: str, **headers: str) -> Reply:
        """The same, with no body."""
        return await self.request("GET", path, **headers)

    async def chat(self, *, said: str = "tell me", **fields: Any) -> Reply:
        """A chat of one question."""
        body = {"messages": [{"role": "user", "content": said}]} | fields
        return await self.post("/v1/chat/completions", body)

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: Any = None, *, query: str = "", **headers: str
    ) -> AsyncIterator[Connection]:
        """Ask, and look at the answer while it comes; it is complete at the end."""
        if isinstance(body, list) and all(isinstance(part, bytes) for part in body):
            parts = body
        elif isinstance(body, bytes):
            parts = [body]
        else:
            parts = [b"" if body is None else json.dumps(body).encode()]
        connection = Connection(parts)
        given = dict(self.headers)
        if body is not None:
            size = sum(map(len, parts))
            given |= {"content-type": "application/json", "content-length": str(size)}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in given.items() if v],
        }
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await self.app(scope, connection.receive, connection.send)
                connection._signal()

            nursery.start_soon(serve)
            yield connection


WORDS = {RequestStarted: "began", RequestChanged: "changed", RequestEnded: "ended"}


@attrs.define
class Seen:
    """A ledger that remembers."""

    told: list[tuple[str, RequestRecord]] = attrs.field(factory=list)

    def hear(self, event: Event) -> None:
        """Note it."""
        assert isinstance(event, RequestStarted | RequestChanged | RequestEnded)
        self.told.append((WORDS[type(event)], event.request))

    @property
    def words(self) -> list[str]:
        """What was told, in order."""
        return [word for word, _ in self.told]

    @property
    def last(self) -> RequestRecord:
        """The record that was spoken of last."""
        return self.told[-1][1]


@asynccontextmanager
async def open_client(
    listeners: Mapping[str, Any], *, settings: GatewaySettings | None = None, **more: Any
) -> AsyncIterator[Client]:
    """A client of a gateway with these listeners behind it: name to backend."""
    async with open_swarm() as swarm:
        for name, backend in listeners.items():
            await swarm.listener(name, backend)
        async with swarm.router() as router:
            seen, events = Seen(), open_bus()
            app = build_application(
                router,
                GatewayParts(
                    settings=settings or GatewaySettings(),
                    events=events,
                    wall=lambda: 1_700_000_000.0,
                    **more,
                ),
            )
            with events.account(*WORDS, note=lambda event: seen.hear(event)):
                yield Client(app, seen, router, swarm)
