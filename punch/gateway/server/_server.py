"""The HTTP server: where it listens, how many connections it has, and when it ends one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..._background import open_background
from ..._logs import get_logger
from ...exceptions import AddressUnavailable
from ._connection import Connection, Spell, plain
from ._limits import Limits, raise_descriptor_limit

log = get_logger(__name__)

# Connections that the kernel holds for us while we are busy; it cuts this to its own limit.
BACKLOG = 4096

# How long requests under way may take to end once the gateway is told to.
DRAIN_SECONDS = 10.0

# How often it is looked for clients that take too long to ask. One task that looks at all of them
# costs less than a deadline for each that is set and taken back with every request.
SWEEP_SECONDS = 1.0


class Server:
    """Serves one ASGI application, in HTTP/1.1. Made by `open_server`.

    Args:
      app: The application.
      limits: What clients may do.
      spell: How to say what the application never hears of.

    """

    def __init__(self, app: Callable[..., Any], limits: Limits, spell: Spell = plain) -> None:
        self._spell = spell
        self._limits = limits
        self._app = app
        self._is_ending = False
        self._fewer = trio.Event()
        self._connections: set[Connection] = set()
        self.address: tuple[str, int] = ("", 0)
        """Where it listens: host and port."""

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    async def serve(
        self, listeners: list[trio.SocketListener], *, connections: trio.Nursery
    ) -> None:
        """Take connections until cancelled; they live on in *connections*."""
        await trio.serve_listeners(self.connected, listeners, handler_nursery=connections)

    async def connected(self, stream: trio.SocketStream) -> None:
        """Serve one client until it has enough."""
        if self.connections >= self._limits.connections:
            await stream.aclose()
            return
        connection = Connection(
            stream, self._app, self._limits, lambda: self._is_ending, self._spell
        )
        self._connections.add(connection)
        try:
            await connection.run()
        except Exception:
            # An error in one connection must not end the others.
            log.exception("a connection met a bug")
        finally:
            self._connections.discard(connection)
            self._fewer.set()

    async def sweep(self) -> None:
        """End the connections of clients that take too long to ask; until cancelled."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now = trio.current_time()
            for connection in tuple(self._connections):
                # Others may begin while this one ends.
                if connection.due <= now:
                    await connection.lose()

    async def drain(self, seconds: float) -> None:
        """End idle connections, and wait for the others, but not longer than *seconds*."""
        self._is_ending = True
        for connection in tuple(self._connections):
            if connection.is_idle:
                await connection.lose()
        with trio.move_on_after(seconds):
            while self.connections:
                self._fewer = trio.Event()
                await self._fewer.wait()

    async def end(self) -> None:
        """End all connections: whoever takes nothing of what it is sent would keep us for long."""
        self._is_ending = True
        for connection in tuple(self._connections):
            await connection.lose()


@asynccontextmanager
async def open_server(
    app: Callable[..., Any],
    *,
    host: str,
    port: int,
    limits: Limits,
    drain: float = DRAIN_SECONDS,
    spell: Spell = plain,
) -> AsyncIterator[Server]:
    """Serve *app* at an address for as long as the context lasts.

    Args:
      app: An ASGI application.
      host: Name or number of the interface.
      port: 0 for any that is free.
      limits: What clients may do.
      drain: Seconds that requests under way may take at the end.
      spell: How to say what the application never hears of; by default in plain words.

    Raises:
      AddressUnavailable: if nobody can listen there.

    """
    raise_descriptor_limit()
    server = Server(app, limits, spell)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        raise AddressUnavailable(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "is another gateway running? Choose another --port"
        ) from error
    bound = listeners[0].socket.getsockname()
    server.address = (str(bound[0]), int(bound[1]))
    async with open_background() as nursery:
        accepting = trio.CancelScope()

        async def accept() -> None:
            with accepting:
                await server.serve(listeners, connections=nursery)

        nursery.start_soon(accept)
        nursery.start_soon(server.sweep)
        try:
            yield server
            accepting.cancel()
            for listener in listeners:
                await listener.aclose()
            await server.drain(drain)
        finally:
            await server.end()
