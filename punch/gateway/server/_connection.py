"""One client's connection: its requests one after the other, each answered by the application."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import trio

from ..._background import acquire_now
from ..._logs import get_logger
from ._http1 import BadRequest, Framing, Request, RequestParser
from ._limits import Limits

log = get_logger(__name__)

# What one read takes at most.
READ_BYTES = 64 << 10

# What a client may send ahead while its request is under way; then nobody reads until that ends.
MAX_AHEAD_BYTES = 64 << 10

# What one write takes at most: a client that takes it in time gets the time for the next.
WRITE_BYTES = 64 << 10

# Whoever still sends when the connection ends never reads the answer, so what it sends is thrown
# away for so long.
LINGER_SECONDS = 2.0

DISCONNECT = {"type": "http.disconnect"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_LOST = (trio.BrokenResourceError, trio.ClosedResourceError)


Spell = Callable[[BadRequest | None], tuple[bytes, bytes]]
"""Media type and body of an error: of a request that cannot be read, or else of a bug."""


def plain(error: BadRequest | None) -> tuple[bytes, bytes]:
    """The error in words."""
    words = "the server has a bug here" if error is None else str(error)
    return b"text/plain; charset=utf-8", words.encode(errors="replace")


class Connection:
    """Reads requests off one socket and has the application answer each.

    Nobody but `run` and the application it calls reads or writes. While a request is under way,
    what is read is for its body, or tells that the client went away: what comes behind it waits.

    Args:
      stream: The client's socket.
      app: An ASGI application.
      limits: What clients may do.
      is_ending: Whether the server is: then no further request is taken.
      spell: How an error is said of which the application never hears.

    """

    def __init__(
        self,
        stream: trio.SocketStream,
        app: Callable[..., Any],
        limits: Limits,
        is_ending: Callable[[], bool],
        spell: Spell,
    ) -> None:
        self.due = trio.current_time() + limits.idle
        """When its client has taken too long to ask, in trio's seconds: then the server ends it."""
        self.is_idle = True
        """No request is under way."""
        self.is_lost = False
        """The client went away, or was sent away."""
        self.client = _address(stream.socket.getpeername)
        self.server = _address(stream.socket.getsockname)
        self._stream = stream
        self._app = app
        self._limits = limits
        self._is_ending = is_ending
        self._spell = spell
        self._parser = RequestParser(limits.head)
        self._ahead = bytearray()
        self._gone = trio.Event()
        self._reading = trio.Lock()
        self._writing = trio.Lock()

    async def run(self) -> None:
        """Answer until one of both sides has enough."""
        try:
            while (request := await self._next_request()) is not None:
                self.is_idle, self.due = False, math.inf
                cycle = RequestCycle(self, request)
                await cycle.run(self._app)
                if cycle.framing.closes or self.is_lost:
                    if not request.is_complete or self._ahead or self._parser.has_more:
                        await self._linger()
                    return
                self.is_idle, self.due = True, trio.current_time() + self._limits.idle
            if self.error is not None:
                await self.refuse(self.error)
                await self._linger()
        finally:
            self._parser.close()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    async def _next_request(self) -> Request | None:
        """The next one, once its head is there; `None` if there is none."""
        parser = self._parser
        if self._ahead:
            ahead, self._ahead = self._ahead, bytearray()
            parser.feed(ahead)
        in_head = False
        while not parser.requests:
            if parser.error is not None or self._is_ending():
                return None
            if parser.in_head and not in_head:
                # Who has begun must get on with it.
                in_head = True
                self.due = min(self.due, trio.current_time() + self._limits.slowest)
            data = await self._read()
            if not data:
                return None
            parser.feed(data)
        return parser.requests.popleft()

    async def _read(self) -> bytes | bytearray:
        """What comes next; nothing at the end."""
        if self.is_lost:
            return b""
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except _LOST:
            data = b""
        # What came while it was sent away would be done for nobody, and again when it comes back.
        self.is_lost |= not data
        return b"" if self.is_lost else data

    async def hear(self, request: Request) -> None:
        """Read on for *request*: its body, or, behind that, that the client goes away."""
        await acquire_now(self._reading)
        try:
            if request.has_news or self.has_no_more_of(request):
                return
            if not request.is_complete:
                self._parser.feed(await self._read())
                return
            if len(self._ahead) < MAX_AHEAD_BYTES:
                self._ahead += await self._read()
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
        latest = trio.current_time() + self._limits.stuck
        try:
            # Shielded: half a part would take what comes after it with it.
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
            patience.deadline = trio.current_time() + self._limits.stuck
            await self._stream.send_all(data[place : place + WRITE_BYTES])

    async def lose(self) -> None:
        """Have no more to do with the client; whoever reads or writes finds it gone."""
        self.is_lost = True
        self._gone.set()
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)

    async def refuse(self, error: BadRequest | None) -> None:
        """Say that what came cannot be read, or else that there is a bug, if somebody hears it."""
        if self.is_lost:
            return
        status = 500 if error is None else error.status
        kind, body = self._spell(error)
        headers = [(b"content-type", kind)]
        framing = Framing(None, closes=True)
        await self.write(framing.head(status, headers, body, last=True))

    async def _linger(self) -> None:
        """Let a client that still sends read what it was told."""
        if self.is_lost:
            return
        with trio.move_on_after(LINGER_SECONDS), suppress(*_LOST):
            await self._stream.send_eof()
            while await self._read():
                pass

    @property
    def error(self) -> BadRequest | None:
        """What cannot be read of what the client has sent."""
        return self._parser.error

    @property
    def is_last(self) -> bool:
        """Whether no further request will be taken."""
        return self._is_ending()


class RequestCycle:
    """One request and its answer: ASGI's `receive` and `send`."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self.framing = Framing(request, closes=not request.keeps_alive)
        """How its answer is framed."""
        self._start: dict[str, Any] | None = None
        self._has_begun = False
        self._is_over = False
        self._has_all = False

    async def run(self, app: Callable[..., Any]) -> None:
        """Have it answered."""
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
            # What is wrong behind a whole request is not what became of that.
            await connection.refuse(None if self._request.is_complete else connection.error)

    def _scope(self) -> dict[str, Any]:
        request, connection = self._request, self._connection
        raw_path = request.path
        path = raw_path.decode("ascii", "replace")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "method": request.method,
            "scheme": "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": request.query,
            "root_path": "",
            "headers": request.headers,
            "client": connection.client,
            "server": connection.server,
        }

    async def receive(self) -> dict[str, Any]:
        """More of the body; behind its end, that the client went away or has its answer."""
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
        """The next part of the answer. What is sent after its end, or to nobody, is dropped."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._is_over or self._connection.is_lost:
            # Whoever sends without end must let others have their turn all the same.
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
        """The head leaves with what follows it: one write, one packet."""
        start, framing = self._start, self.framing
        assert start is not None, "an answer begins with its status"
        framing.closes |= self._connection.is_last or not self._request.is_complete
        data = framing.head(start["status"], start.get("headers", ()), body, last=last)
        # Not before: where a head cannot be sent, another one still can.
        self._has_begun = True
        return data


def _address(name: Callable[[], Any]) -> tuple[str, int] | None:
    """Host and port of one end, if it has them still."""
    try:
        found = name()
    except OSError:
        return None
    return str(found[0]), int(found[1])
