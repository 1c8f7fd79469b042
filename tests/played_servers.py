"""Played machines for tests of adoption: servers by host and port, and a listener that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import httpx
import trio
from model_servers import Asked, ModelServer, Reply, error, reply

from punch.adoption import Adoption, Given, Place, open_adoption
from punch.backends.openai import OpenAIBackend
from punch.listener import RunningLane

LIMIT = 100_000
OWN = ("127.0.0.1", "192.168.1.5")


class WebServer(ModelServer):
    """What a developer has running: a page for every path."""

    def respond(self, asked: Asked) -> Reply:
        """A page, whatever was asked for."""
        self.asked.append(asked)
        return Reply(200, b"<!doctype html><title>shop</title>", "text/html")


class Gateway(ModelServer):
    """A gateway of punch, of any version.

    Args:
      models: What its namespace has.
      owner: Its word for the owner, which another version may have changed.
      needs_key: Whether it wants a key for its list.

    """

    def __init__(self, *models: str, owner: str = "punch", needs_key: bool = False) -> None:
        super().__init__(*models, owner=owner)
        self.needs_key = needs_key

    def respond(self, asked: Asked) -> Reply:
        """What it says of itself, which needs no key; and its list, which may."""
        if asked.path == "/api/version":
            self.asked.append(asked)
            return reply({"version": "0.12.6", "punch": "0.0.1"})
        if self.needs_key:
            self.asked.append(asked)
            return error(401, "no key")
        return super().respond(asked)


class Network(httpx.AsyncBaseTransport):
    """Leads each request to the server at its host and port.

    Args:
      servers: The servers, by ``HOST:PORT``.

    """

    def __init__(self, servers: dict[str, ModelServer]) -> None:
        self.servers = servers
        self.reached: list[str] = []
        """Where somebody tried to connect, in order."""
        self.names: dict[str, tuple[str, ...]] = {}
        """What names are looked up to."""

    def at(self, host: str, port: int) -> ModelServer | None:
        """The server there that is up."""
        hosts = self.names.get(host, (host,))
        found = (self.servers.get(f"{each}:{port}") for each in hosts)
        return next((server for server in found if server is not None and server.is_up), None)

    async def reach(self, host: str, port: int) -> bool:
        """Whether anybody is there."""
        self.reached.append(f"{host}:{port}")
        return self.at(host, port) is not None

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of a host."""
        return self.names.get(host, ())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        server = self.at(request.url.host, request.url.port or 80)
        if server is None:
            raise httpx.ConnectError("refused")
        return await server.transport().handle_async_request(request)


@attrs.define(eq=False)
class PlayedLane:
    """A lane that answers nobody."""

    id: str
    name: str
    backend: OpenAIBackend


class PlayedListener:
    """A listener of which only the lanes matter."""

    def __init__(self) -> None:
        self.added: list[str] = []
        """Names of all lanes that ever were, in order."""
        self._lanes: list[PlayedLane] = []
        self.most = 64
        self.refusal: Exception | None = None
        """What adding a lane fails with."""

    @property
    def lanes(self) -> tuple[RunningLane, ...]:
        """The lanes."""
        return cast("tuple[RunningLane, ...]", tuple(self._lanes))

    @property
    def names(self) -> list[str]:
        """The names of the lanes."""
        return [lane.name for lane in self._lanes]

    async def add(self, backend: OpenAIBackend, *, name: str | None = None) -> RunningLane:
        """Add a lane."""
        if self.refusal is not None:
            raise self.refusal
        lane = PlayedLane(id=name or "", name=name or "", backend=backend)
        self._lanes.append(lane)
        self.added.append(lane.name)
        return cast("RunningLane", lane)

    async def remove(self, lane: RunningLane) -> None:
        """Remove a lane."""
        await trio.lowlevel.checkpoint()
        self._lanes.remove(cast("PlayedLane", lane))


@asynccontextmanager
async def adopting(
    network: Network,
    listener: PlayedListener,
    *,
    given: Sequence[Given] = (),
    places: Sequence[Place] = (),
    ours: Callable[[], Iterable[str]] = tuple,
    **options: Any,
) -> AsyncIterator[Adoption]:
    """Adopt what *network* has, in virtual time."""
    with trio.fail_after(LIMIT):
        async with open_adoption(
            listener,
            given=given,
            places=places,
            ours=ours,
            own=lambda: OWN,
            resolve=network.resolve,
            reach=network.reach,
            transport=network,
            **options,
        ) as adoption:
            yield adoption
