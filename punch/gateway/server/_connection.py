"""Serves one client's connection: reads its requests one after another, writes their answers.

Decides when a client is lost, how long it may be silent and when the connection ends. Bytes are
parsed and framed by `_http1`; what an answer says is the application's.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Any, Protocol

import trio

from ..._background import acquire_now
from ..._logs import get_logger
from ._http1 import BadRequest, Framing, Request, RequestParser
from ._limits import Limits
from ._websocket_cycle import WebSocketCycle

log = get_logger(__name__)

# Most bytes that one read takes.
READ_BYTES = 64 << 10

# Bytes that a client may send ahead while its request is under way; after these, nothing is read
# until the request ends, and TCP holds the client back.
MAX_AHEAD_BYTES = 64 << 10

# Most bytes that one write takes: a client that takes them in time gets as long for the next.
WRITE_BYTES = 64 << 10

# How long a client that is still sending is read and ignored before the connection closes. Closing
# at once makes the kernel send a reset, which takes the answer with it (RFC 9112, section 9.6).
LINGER_SECONDS = 2.0

DISCONNECT = {"type": "http.disconnect"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_LOST = (trio.BrokenResourceError, trio.ClosedResourceError)


Spell = Callable[[BadRequest | None], tuple[bytes, bytes]]
"""Media type and body of an error: of a request that cannot be read, or else of a bug."""


HandOver = Callable[[Request, trio.SocketStream, "bytes | None"], Awaitable[bool]]
"""Gives a connection to another process, if the request that was read is for that one to answer;
whether it is. Takes the bytes that the request came in, with what came behind it: `None` if they
cannot be told from those of the request before it, and then the connection just ends."""


def plain(error: BadRequest | None) -> tuple[bytes, bytes]:
    """The error as plain text, where the application has no form of its own."""
    words = "the server has a bug here" if error is None else str(error)
    return b"text/plain; charset=utf-8", words.encode(errors="replace")


class Cycle(Protocol):
    """A request and what becomes of it."""

    framing: Framing
    """Frames the answer."""

    async def run(self, app: Callable[..., Any]) -> None:
        """Have *app* answer the request."""

    def leave(self) -> None:
        """End soon by itself what would not end: the server does."""


class Connection:
    """Reads requests off one socket and has the application answer each.

    Only `run` and the application that it calls read or write. While a request is under way, what
    is read belongs to its body or shows that the client went away: later requests wait.

    Args:
      stream: The client's socket.
      app: An ASGI application.
      limits: What clients may do.
      is_ending: Whether the server is ending: then no further request is taken.
      spell: Makes the answer to an error that the application never hears of.
      websockets: Paths at which a request may ask for a WebSocket.
      hand_over: Gives the connection away where another process is to answer; `None` for never.
      ahead: Bytes of a request that another process has read, which is answered here.

    """

    def __init__(
        self,
        stream: trio.SocketStream,
        app: Callable[..., Any],
        limits: Limits,
        is_ending: Callable[[], bool],
        spell: Spell,
        websockets: Container[str] = frozenset(),
        hand_over: HandOver | None = None,
        ahead: bytes = b"",
    ) -> None:
        self.due = trio.current_time() + limits.idle
        """When the server ends the connection for want of a request, in seconds of trio's clock."""
        self.is_idle = True
        """No request is under way."""
        self.is_lost = False
        """The connection cannot be used any more: the client went away, or took too long."""
        self.client = _address(stream.socket.getpeername)
        self.server = _address(stream.socket.getsockname)
        self._stream = stream
        self._app = app
        self.limits = limits
        """What the client may do."""
        self._is_ending = is_ending
        self._spell = spell
        self._parser = RequestParser(limits.head, websockets)
        self._cycle: Cycle | None = None
        self._ahead = bytearray(ahead)
        self._hand_over = hand_over
        self._raw: bytearray | None = None
        # What was handed over is answered where it came to, or it could go round.
        self._is_placed = bool(ahead)
        self._gone = trio.Event()
        self._reading = trio.Lock()
        self._writing = trio.Lock()

    async def run(self) -> None:
        """Answer requests until the client or the server ends the connection."""
        try:
            while (request := await self._next_request()) is not None:
                self.is_idle, self.due = False, math.inf
                if self._hand_over is not None and await self._is_handed_over(request):
                    return
                cycle = self._cycle = self._cycle_of(request)
                await cycle.run(self._app)
                self._cycle = None
                if cycle.framing.closes or self.is_lost:
                    if not request.is_complete or self._ahead or self._parser.has_more:
                        await self.linger()
                    return
                self.is_idle, self.due = True, trio.current_time() + self.limits.idle
            if self.error is not None:
                await self.refuse(self.error)
                await self.linger()
        finally:
            self._parser.close()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    def _cycle_of(self, request: Request) -> Cycle:
        if not request.is_websocket:
            return RequestCycle(self, request)
        rest, self._parser.rest = self._parser.rest, bytearray()
        return WebSocketCycle(self, request, rest)

    def leave(self) -> None:
        """End a WebSocket, which would not end by itself: the server ends."""
        if self._cycle is not None:
            self._cycle.leave()

    def scope_of(self, request: Request) -> dict[str, Any]:
        """The part of an ASGI scope that plain requests and WebSockets share."""
        return {
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "path": request.place,
            "raw_path": request.path,
            "query_string": request.query,
            "root_path": "",
            "headers": request.headers,
            "client": self.client,
            "server": self.server,
        }

    async def _next_request(self) -> Request | None:
        """The next request once its head is complete; `None` if there will be none."""
        parser = self._parser
        if self._hand_over is not None:
            self._raw = None if parser.has_more else bytearray()
        if self._ahead:
            ahead, self._ahead = self._ahead, bytearray()
            self._feed(ahead)
        in_head = False
        while not parser.requests:
            if parser.error is not None or self._is_ending():
                return None
            if parser.in_head and not in_head:
                # A head that was begun must come within seconds, however long the idle time is.
                in_head = True
                self.due = min(self.due, trio.current_time() + self.limits.slowest)
            data = await self.read()
            if not data:
                return None
            self._feed(data)
        return parser.requests.popleft()

    def _feed(self, data: bytes | bytearray) -> None:
        if self._raw is not None:
            self._raw += data
        self._parser.feed(data)

    async def _is_handed_over(self, request: Request) -> bool:
        """Whether another process is to answer *request*: it has the connection then."""
        raw, self._raw = self._raw, None
        if self._is_placed:
            self._is_placed = False
            return False
        assert self._hand_over is not None
        return await self._hand_over(request, self._stream, None if raw is None else bytes(raw))

    async def read(self) -> bytes | bytearray:
        """The next bytes; empty at the end."""
        if self.is_lost:
            return b""
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except _LOST:
            data = b""
        # Bytes that arrived while the client was dropped are ignored: it will send them again.
        self.is_lost |= not data
        return b"" if self.is_lost else data

    async def hear(self, request: Request) -> None:
        """Read until there is more of *request*, or the client has gone away."""
        await acquire_now(self._reading)
        try:
            if request.has_news or self.has_no_more_of(request):
                return
            if not request.is_complete:
                self._parser.feed(await self.read())
                return
            if len(self._ahead) < MAX_AHEAD_BYTES:
                self._ahead += await self.read()
            else:
                await self._gone.wait()
        finally:
            self._reading.release()

    def has_no_more_of(self, request: Request) -> bool:
        """Whether the client went away, or the rest of *request* cannot be read."""
        return self.is_lost or (self._parser.error is not None and not request.is_complete)

    async def write(self, data: bytes) -> None:
        """Send *data*; a client that went away, or takes nothing for too long, is lost."""
        await acquire_now(self._writing)
        latest = trio.current_time() + self.limits.stuck
        try:
            # Shielded: half of a chunk would make everything after it unreadable.
            with trio.CancelScope(deadline=latest, shield=True) as patience:
                if len(data) <= WRITE_BYTES:
                    await self._stream.send_all(data)
                else:
                    await self._write_long(memoryview(data), patience)
            if patience.cancelled_caught:
                log.info("a client takes too long for what it is sent: dropped")
                await self.lose()
        except _LOST:
            await self.lose()
        finally:
            self._writing.release()

    async def _write_long(self, data: memoryview, patience: trio.CancelScope) -> None:
        for place in range(0, len(data), WRITE_BYTES):
            patience.deadline = trio.current_time() + self.limits.stuck
            await self._stream.send_all(data[place : place + WRITE_BYTES])

    async def lose(self) -> None:
        """Close the connection at once; pending reads and writes find the client gone."""
        self.is_lost = True
        self._gone.set()
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)

    async def refuse(self, error: BadRequest | None) -> None:
        """Answer with *error*, or else with a bug, unless the client is gone."""
        if self.is_lost:
            return
        status = 500 if error is None else error.status
        kind, body = self._spell(error)
        headers = [(b"content-type", kind), *(() if error is None else error.headers)]
        framing = Framing(None, closes=True)
        await self.write(framing.head(status, headers, body, last=True))

    async def linger(self) -> None:
        """Read and ignore the client's bytes for a moment, so that it can read its answer."""
        if self.is_lost:
            return
        with trio.move_on_after(LINGER_SECONDS), suppress(*_LOST):
            await self._stream.send_eof()
            while await self.read():
                pass

    @property
    def error(self) -> BadRequest | None:
        """Why the client's bytes cannot be parsed; `None` if they can."""
        return self._parser.error

    @property
    def is_last(self) -> bool:
        """Whether no further request will be taken."""
        return self._is_ending()


class RequestCycle:
    """A request and its answer, as ASGI has them: `receive` and `send`."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self.framing = Framing(request, closes=not request.keeps_alive)
        """Frames the answer."""
        self._start: dict[str, Any] | None = None
        self._has_begun = False
        self._is_over = False
        self._has_all = False

    async def run(self, app: Callable[..., Any]) -> None:
        """Have *app* answer the request."""
        connection, framing = self._connection, self.framing
        try:
            await app(self._scope(), self.receive, self.send)
        except Exception:
            # One request's bug is not the next one's; the client is told below, if it can be.
            log.exception("the application met a bug")
        if self._is_over:
            framing.closes |= not self._request.is_complete
            return
        framing.closes = True
        if not self._has_begun:
            # A fault behind a complete request says nothing about that request's own answer.
            await connection.refuse(None if self._request.is_complete else connection.error)

    def leave(self) -> None:
        """Let the answer come to its end: the server waits for it."""

    def _scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "method": self._request.method,
            "scheme": "http",
        } | self._connection.scope_of(self._request)

    async def receive(self) -> dict[str, Any]:
        """The next part of the body; after its end, the disconnect once the answer is over."""
        request, connection = self._request, self._connection
        while True:
            if request.has_news or (request.is_complete and not self._has_all):
                self._has_all = request.is_complete
                return {
                    "type": "http.request",
                    "body": request.consume(),
                    "more_body": not self._has_all,
                }
            if self._is_over or connection.has_no_more_of(request):
                return DISCONNECT
            if request.waits and not request.is_complete and not self._has_begun:
                request.waits = False
                await connection.write(CONTINUE)
            await connection.hear(request)

    async def send(self, message: dict[str, Any]) -> None:
        """Send the next part of the answer; parts after its end, or for a lost client, drop."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._is_over or self._connection.is_lost:
            # An application that sends without end must still let other tasks run.
            await trio.lowlevel.checkpoint()
            return
        body, last = message.get("body", b""), not message.get("more_body", False)
        if self._has_begun:
            data = self.framing.body(body, last=last)
        else:
            data = self._begin(body, last=last)
        self._is_over = last
        if data:
            await self._connection.write(data)
        else:
            await trio.lowlevel.checkpoint()

    def _begin(self, body: bytes, *, last: bool) -> bytes:
        """The head and the first part of the body together: one write, one packet."""
        start, framing = self._start, self.framing
        assert start is not None, "an answer begins with its status"
        framing.closes |= self._connection.is_last or not self._request.is_complete
        data = framing.head(start["status"], start.get("headers", ()), body, last=last)
        # Not before: where a head cannot be sent, another one still can.
        self._has_begun = True
        return data


def _address(name: Callable[[], Any]) -> tuple[str, int] | None:
    """Host and port of one end; `None` once the socket has lost them."""
    try:
        found = name()
    except OSError:
        return None
    return str(found[0]), int(found[1])
