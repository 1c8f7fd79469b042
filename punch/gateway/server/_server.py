"""The HTTP server: listens, accepts connections within its limit, and drains them at the end.

What happens on a connection is left to `_connection`.
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...exceptions import AddressUnavailable
from ._connection import Connection, HandOver, Spell, plain
from ._limits import Limits, raise_descriptor_limit

log = get_logger(__name__)

# Connections that the kernel holds for us while we are busy; it cuts this to its own limit.
BACKLOG = 4096

# Connections that a process with few descriptors has all the same, and the share of all that it has
# for clients: the other half is for peers, logs, the database of keys and what comes and goes.
MIN_CONNECTIONS = 16
SHARE = 0.5

# What the system says where it has no descriptor or no memory for another connection (accept(2)).
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# Idle connections that are ended then, and for how long none is accepted, in seconds; and how often
# it is said.
MAKE_ROOM = 8
SHORTAGE_SECONDS = 0.1
WARN_SECONDS = 60.0

# How long requests under way may take to end once the gateway is told to.
DRAIN_SECONDS = 10.0

# How often idle connections are swept. One task that looks at all of them costs less than a cancel
# scope for each, which would be entered and left with every request.
SWEEP_SECONDS = 1.0


@attrs.frozen(kw_only=True)
class Sharing:
    """What a server shares with those of other processes; by default nothing."""

    accepts: bool = True
    """Whether it accepts connections itself, or others do at its sockets."""

    sockets: tuple[socket.socket, ...] = ()
    """Sockets that listen already, in place of its own, in the order of its ports."""

    hand_over: HandOver | None = None
    """Gives connections to the process that is to answer; `None` if that is always this one."""

    give_way: Callable[[int], Awaitable[None]] | None = None
    """Given how many connections there are, waits a moment where others have fewer: then a further
    one is for them to accept."""


ALONE = Sharing()


class Server:
    """Serves one ASGI application, in HTTP/1.1. Made by `open_server`.

    Args:
      app: The application.
      limits: What clients may do.
      spell: Makes the answer to an error that the application never hears of.
      websockets: Paths at which the application takes WebSockets.
      hand_over: Gives connections to other processes, see `Sharing`.
      give_way: Leaves some to others before it accepts, see `Sharing`.

    """

    def __init__(
        self,
        app: Callable[..., Any],
        limits: Limits,
        spell: Spell = plain,
        websockets: Container[str] = frozenset(),
        hand_over: HandOver | None = None,
        give_way: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._hand_over = hand_over
        self._give_way = give_way
        self._spell = spell
        self._websockets = websockets
        self._limits = limits
        self._app = app
        self.limit = limits.connections
        """Connections at a time: no more than there are descriptors for, with some to spare."""
        self._warn_at = -math.inf
        self._is_ending = False
        self._fewer = trio.Event()
        self._connections: set[Connection] = set()
        self.addresses: list[tuple[str, int]] = []
        """Where it listens: host and port, the first one first."""
        self.listeners: tuple[trio.SocketListener, ...] = ()
        """The same, as sockets."""
        self.nursery: trio.Nursery | None = None
        """Where its connections are served, while it is open."""

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    async def serve(
        self, listeners: list[trio.SocketListener], *, connections: trio.Nursery
    ) -> None:
        """Accept connections until cancelled; those that are open continue in *connections*."""
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self._accept, listener, connections)

    async def _accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        """Accept at one listener, and back off where the system gives no descriptor more."""
        while True:
            try:
                if self._give_way is not None:
                    await trio.lowlevel.wait_readable(listener.socket)
                    await self._give_way(self.connections)
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _SHORTAGES:
                    raise
                now = trio.current_time()
                if now >= self._warn_at:
                    self._warn_at = now + WARN_SECONDS
                    log.warning(
                        "no more connections can be accepted: idle ones are closed; raise the "
                        "limit of open files (ulimit -n) if there are to be more",
                        why=error.strerror,
                        connections=self.connections,
                    )
                # Each that ends gives its descriptor to the next: a client that waits is served.
                await self._make_room(MAKE_ROOM)
                await trio.sleep(SHORTAGE_SECONDS)
            else:
                connections.start_soon(self.connected, stream)

    async def _make_room(self, number: int) -> bool:
        """End those connections that have been idle for longest; false if there was none.

        They count no more at once: of many that come together each ends another one.
        """
        idle = [each for each in self._connections if each.is_idle and each.incoming.due < math.inf]
        chosen = sorted(idle, key=lambda each: each.incoming.due)[:number]
        self._connections.difference_update(chosen)
        for connection in chosen:
            await connection.lose()
        return bool(chosen)

    def adopt(self, connection: socket.socket, ahead: bytes) -> None:
        """Serve a client whose first request, *ahead*, another process has read."""
        assert self.nursery is not None, "only an open server adopts"
        connection.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        self.nursery.start_soon(self.connected, stream, ahead)

    async def connected(self, stream: trio.SocketStream, ahead: bytes = b"") -> None:
        """Serve one client until its connection ends; *ahead* was read of it before."""
        if self.limit <= self.connections < self._limits.connections:
            # There are fewer descriptors than connections are wanted.
            while self.connections >= self.limit and await self._make_room(1):
                pass
            with trio.move_on_after(SHORTAGE_SECONDS):
                while self.connections >= self.limit:
                    self._fewer = trio.Event()
                    await self._fewer.wait()
        if self.connections >= self.limit:
            await stream.aclose()
            return
        connection = Connection(
            stream,
            self._app,
            self._limits,
            lambda: self._is_ending,
            self._spell,
            self._websockets,
            self._hand_over,
            ahead,
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
        """Look at all connections, and end those of clients that take too long to ask."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now = trio.current_time()
            for connection in tuple(self._connections):
                # A copy of the set: connections may begin while this one ends.
                if connection.incoming.due <= now:
                    await connection.lose()
                else:
                    connection.look()

    async def drain(self, seconds: float) -> None:
        """End idle connections and WebSockets, and wait up to *seconds* for the others."""
        self._is_ending = True
        for connection in tuple(self._connections):
            connection.leave()
            if connection.is_idle:
                await connection.lose()
        with trio.move_on_after(seconds):
            while self.connections:
                self._fewer = trio.Event()
                await self._fewer.wait()

    async def end(self) -> None:
        """Close all connections: a client that reads nothing would keep the server for long."""
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
    more_ports: Mapping[int, str] | None = None,
    drain: float = DRAIN_SECONDS,
    spell: Spell = plain,
    websockets: Container[str] = frozenset(),
    sharing: Sharing = ALONE,
) -> AsyncIterator[Server]:
    """Serve *app* at an address for as long as the context lasts.

    Args:
      app: An ASGI application.
      host: Name or number of the interface.
      port: 0 for any that is free.
      limits: What clients may do.
      more_ports: Further ports to listen on, each with the setting that it is from.
      drain: Seconds that requests under way may take at the end.
      spell: Makes the answer to an error that the application never hears of; by default text.
      websockets: Paths at which the application takes WebSockets; elsewhere a request for one is
        answered as if it had not asked (RFC 9110, section 7.8).
      sharing: What other processes do of the work.

    Raises:
      AddressUnavailable: if the address cannot be listened on.

    """
    descriptors = raise_descriptor_limit()
    server = Server(app, limits, spell, websockets, sharing.hand_over, sharing.give_way)
    # The rest is for peers, files and what a connection needs besides its own.
    server.limit = min(limits.connections, max(MIN_CONNECTIONS, int(descriptors * SHARE)))
    listeners: list[trio.SocketListener] = []
    wanted = [(port, "is another gateway running? Choose another --port")]
    wanted += [
        (number, f"is Ollama itself running? Leave {setting} out, or choose another one")
        for number, setting in (more_ports or {}).items()
        if number != port or not number
    ]
    try:
        for number, remedy in () if sharing.sockets else wanted:
            opened = await _listen(host, number, remedy)
            listeners += opened
            server.addresses.append(_address_of(opened[0]))
    except AddressUnavailable:
        for listener in listeners:
            await listener.aclose()
        raise
    for each in sharing.sockets:
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(each)))
        server.addresses.append(_address_of(listeners[-1]))
    server.listeners = tuple(listeners)
    async with open_background() as nursery:
        server.nursery = nursery
        accepting = trio.CancelScope()

        async def accept() -> None:
            with accepting:
                await server.serve(listeners, connections=nursery)

        if sharing.accepts:
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


def _address_of(listener: trio.SocketListener) -> tuple[str, int]:
    bound = listener.socket.getsockname()
    return str(bound[0]), int(bound[1])


async def _listen(host: str, port: int, remedy: str) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        raise AddressUnavailable(
            f"cannot listen on {host} port {port}: {error.strerror or error}; {remedy}"
        ) from error
