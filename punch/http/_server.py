"""The HTTP server: sockets, connections and what they may cost. The only importer of Hypercorn.

Hypercorn speaks HTTP; what it leaves to whoever runs it is here:

* It waits without end for the rest of a request line, and for a client that takes nothing of what
  it is sent: both have a limit here.
* It ends a connection after 1,000 requests. Ours last as long as somebody uses them.
* It takes HTTP/2 without TLS, which has other ways to take nothing and none of our limits.
* While a request is under way it reads no further once the client has sent a byte too many, and
  so never sees it go.
* An error in one connection must not end the others, nor may a full table of descriptors.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from ..background import open_background, take
from ..exceptions import AddressUnavailable
from ..logs import get_logger
from ._limits import Limits, raise_descriptor_limit

log = get_logger(__name__)

# Connections that the kernel holds for us while we are busy; it cuts this to its own limit.
BACKLOG = 4096

# What one read takes at most.
READ_BYTES = 64 << 10

# What a client may send ahead while its request is under way; then nobody reads until that ends.
MOST_AHEAD = 64 << 10

# What one write takes at most: a client that takes it in time gets the time for the next.
WRITE_BYTES = 64 << 10

# How long requests under way may take to end once the gateway is told to.
DRAIN_SECONDS = 10.0

# Requests on one connection: more than anybody sends.
ENDLESS = 1 << 62


class _Paused(Exception):
    """There is more, and a request is under way."""


class _Pause:
    """In place of the event in which Hypercorn's reader waits for the end of a request.

    Ours goes on reading meanwhile, and is told when the end is there.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.nap = trio.CancelScope()
        """What the reader waits in while it is on; cancelled at its end."""

    async def clear(self) -> None:
        """A request is under way, and bytes behind it are there."""
        self.is_on = True

    async def wait(self) -> None:
        """Leave the protocol as it is."""
        raise _Paused

    async def set(self) -> None:
        """The request is over."""
        self.is_on = False
        self.nap.cancel()

    def is_set(self) -> bool:
        """Whether nothing is waited for."""
        return not self.is_on


class _Http1(H11Protocol):
    """HTTP/1 and nothing else."""

    @classmethod
    def of(cls, wrapper: Any) -> _Http1:
        """What *wrapper* would choose between, if there were no HTTP/2."""
        own = cls(
            wrapper.app,
            wrapper.config,
            wrapper.context,
            wrapper.task_group,
            wrapper.state,
            wrapper.ssl,
            wrapper.client,
            wrapper.server,
            wrapper.send,
        )
        own.pause = _Pause()
        own.can_read = own.pause
        return own

    pause: _Pause

    async def handle(self, event: Event) -> None:
        """Take in what was read, as far as that is for the request under way.

        Empty lines before a request are none of it (RFC 9112, section 2.2).
        """
        if isinstance(event, RawData) and event.data and self._is_between:
            data = event.data.lstrip(b"\r\n")
            if not data:
                return
            event = RawData(data)
        try:
            await super().handle(event)
        except _Paused:
            return

    @property
    def _is_between(self) -> bool:
        """Nothing of a request is there."""
        states = self.connection.our_state, self.connection.their_state
        return states == (h11.IDLE, h11.IDLE) and not self.ahead

    @property
    def ahead(self) -> int:
        """Bytes that are there for after the request under way."""
        return len(self.connection.trailing_data[0])

    async def resume(self) -> None:
        """Take in what came meanwhile."""
        data = self.connection.trailing_data[0]
        if self.connection.our_state is not h11.IDLE:
            return
        self.connection = h11.Connection(
            h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
        )
        if data:
            await self.handle(RawData(data))

    async def _check_protocol(self, event: h11.Request) -> None:
        # An upgrade need not be done: RFC 9110, section 7.8.
        return

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version in (b"1.0", b"1.1"):
            await super()._create_stream(request)
            return
        await self._send_error_response(505)
        await self.send(Closed())


class _Connection(TCPServer):
    """One client's connection.

    Its reader keeps the time. Hypercorn has a task that waits for the end of each pause: to start
    and to stop one costs as much as to parse a request.
    """

    def __init__(self, *args: Any, limits: Limits) -> None:
        super().__init__(*args)
        self._limits = limits
        self._is_idle = True
        self._in_a_head = False
        self._reading = trio.CancelScope(deadline=trio.current_time() + limits.idle)
        self._head = b""

    async def protocol_send(self, event: Event) -> None:
        """Send, and give up on a client that takes nothing."""
        data = event.data if isinstance(event, RawData) else b""
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            # The head leaves with what follows it, as ASGI has it: one write, one packet.
            self._head += data
            return
        if self._head or data:
            head, self._head = self._head, b""
            await self._write(head + data)
        if isinstance(event, Updated):
            self._is_idle, self._in_a_head = event.idle, False
            pause = self._limits.idle if event.idle else math.inf
            self._reading.deadline = trio.current_time() + pause
        elif not isinstance(event, RawData):
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        await take(self.send_lock)
        latest = trio.current_time() + self._limits.stuck
        try:
            # Shielded: half a chunk would take what comes after it with it.
            with trio.CancelScope(deadline=latest, shield=True) as patience:
                if len(data) <= WRITE_BYTES:
                    await self.stream.send_all(data)
                else:
                    await self._write_long(memoryview(data), patience)
            if patience.cancelled_caught:
                log.info("a client takes too long for what it is sent: dropped")
                await self.stream.aclose()
                await self.protocol.handle(Closed())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())
        finally:
            self.send_lock.release()

    async def _write_long(self, data: memoryview, patience: trio.CancelScope) -> None:
        for place in range(0, len(data), WRITE_BYTES):
            patience.deadline = trio.current_time() + self._limits.stuck
            await self.stream.send_all(data[place : place + WRITE_BYTES])

    async def _read_data(self) -> None:
        """Read until the end; who has begun a request must get on with its headers."""
        protocol = _Http1.of(self.protocol)
        self.protocol = cast("Any", protocol)
        with self._reading:
            while True:
                try:
                    if protocol.pause.is_on:
                        data = await self._read_ahead(protocol)
                    else:
                        data = await self.stream.receive_some(READ_BYTES)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    break
                self._in_a_head = self._is_idle
                if data is None:
                    await protocol.resume()
                    self._in_a_head &= protocol.ahead > 0
                else:
                    await protocol.handle(RawData(bytes(data)))
                if data == b"":
                    break
                if self._in_a_head:
                    latest = trio.current_time() + self._limits.slowest
                    self._reading.deadline = min(self._reading.deadline, latest)
        await self.protocol.handle(Closed())

    async def _read_ahead(self, protocol: _Http1) -> bytes | bytearray | None:
        """Read while a request is under way; `None` once it is over."""
        # One is good for one time.
        with trio.CancelScope() as protocol.pause.nap:
            if protocol.ahead >= MOST_AHEAD:
                await trio.sleep_forever()
            return await self.stream.receive_some(READ_BYTES)
        return None

    def end_if_idle(self) -> None:
        """End it, unless a request is under way: then it ends with that."""
        if self._is_idle:
            self._reading.cancel()

    async def _idle_timeout(self) -> None:
        """What Hypercorn would wait in."""


class Server:
    """Serves one ASGI application. Made by `open_server`."""

    def __init__(self, app: Any, limits: Limits) -> None:
        self._limits = limits
        self._app = ASGIWrapper(app)
        self._context = WorkerContext(None)
        self._config = config = Config()
        config.keep_alive_max_requests = ENDLESS
        config.h11_max_incomplete_size = limits.head
        # Who listens here is nobody's business, and the date costs time in every answer.
        config.include_server_header = False
        config.include_date_header = False
        config.errorlog = None
        self._fewer = trio.Event()
        self._connections: set[_Connection] = set()
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
        await trio.serve_listeners(self._connected, listeners, handler_nursery=connections)

    async def _connected(self, stream: trio.SocketStream) -> None:
        if self.connections >= self._limits.connections:
            await stream.aclose()
            return
        connection = _Connection(
            self._app,
            self._config,
            self._context,
            ConnectionState({}),
            stream,
            limits=self._limits,
        )
        self._connections.add(connection)
        try:
            await connection
        except Exception:
            log.exception("a connection met a bug")
        finally:
            self._connections.discard(connection)
            self._fewer.set()

    async def drain(self, seconds: float) -> None:
        """End idle connections, and wait for the others, but not longer than *seconds*."""
        await self._context.terminated.set()
        for connection in self._connections:
            connection.end_if_idle()
        with trio.move_on_after(seconds):
            while self.connections:
                self._fewer = trio.Event()
                await self._fewer.wait()
        for connection in tuple(self._connections):
            # Whoever takes nothing of what it is sent would keep us for longer.
            await trio.aclose_forcefully(connection.stream)


@asynccontextmanager
async def open_server(
    app: Callable[..., Any],
    *,
    host: str,
    port: int,
    limits: Limits,
    drain: float = DRAIN_SECONDS,
) -> AsyncIterator[Server]:
    """Serve *app* at an address for as long as the context lasts.

    Args:
      app: An ASGI application.
      host: Name or number of the interface.
      port: 0 for any that is free.
      limits: What clients may do.
      drain: Seconds that requests under way may take at the end.

    Raises:
      AddressUnavailable: if nobody can listen there.

    """
    raise_descriptor_limit()
    server = Server(app, limits)
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
        yield server
        accepting.cancel()
        for listener in listeners:
            await listener.aclose()
        await server.drain(drain)
