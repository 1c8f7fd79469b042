"""Serves one client's connection: reads its requests one after another, writes their answers.

Decides how long a client may be silent, who answers a request and when the connection ends. What
the client sends is read by `_incoming`, framed by `_http1`; what an answer says is the
application's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Any, Protocol

import trio

from ..._background import open_background
from ..._logs import get_logger
from ._http1 import BadRequest, Framing, Request
from ._incoming import Incoming
from ._limits import Limits
from ._pipe import LOST, ClientPipe
from ._request_cycle import RequestCycle, Work
from ._websocket_cycle import WebSocketCycle

log = get_logger(__name__)

# How long a client that is still sending is read and ignored before the connection closes. Closing
# at once makes the kernel send a reset, which takes the answer with it (RFC 9112, section 9.6).
LINGER_SECONDS = 2.0

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

    def look(self) -> Work | None:
        """What is to be done beside the request from now on; called about once a second."""


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
        self.client = _address(stream.socket.getpeername)
        self.server = _address(stream.socket.getsockname)
        self._pipe = ClientPipe(stream, limits.stuck)
        self.incoming = Incoming(
            self._pipe,
            limits,
            websockets,
            ahead=ahead,
            keeps_raw=hand_over is not None,
        )
        """What the client sends."""
        self._app = app
        self.limits = limits
        """What the client may do."""
        self._is_ending = is_ending
        self._spell = spell
        self._cycle: Cycle | None = None
        self._hand_over = hand_over
        # What was handed over is answered where it came to, or it could go round.
        self._is_placed = bool(ahead)
        self._nursery: trio.Nursery | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self.incoming.request is None

    @property
    def is_lost(self) -> bool:
        """Whether the connection cannot be used any more."""
        return self.incoming.is_lost

    async def run(self) -> None:
        """Answer requests until the client or the server ends the connection."""
        try:
            async with open_background() as nursery:
                self._nursery = nursery
                self.incoming.start(nursery)
                with self.incoming.answering:
                    await self._answer(nursery)
        finally:
            self.incoming.parser.close()
            await self._pipe.close()

    async def _answer(self, nursery: trio.Nursery) -> None:
        incoming = self.incoming
        while (request := await incoming.next_request(self._is_ending)) is not None:
            if self._hand_over is not None and await self._is_handed_over(request, nursery):
                return
            cycle = self._cycle = await self._cycle_of(request)
            try:
                await cycle.run(self._app)
            finally:
                self._cycle = None
            if cycle.framing.closes or self.is_lost:
                if not request.is_complete or incoming.ahead or incoming.parser.has_more:
                    await self.linger()
                return
        if self.error is not None:
            await self.refuse(self.error)
            await self.linger()

    async def _is_handed_over(self, request: Request, nursery: trio.Nursery) -> bool:
        """Whether another process is to answer *request*: it has the connection then."""
        assert self._hand_over is not None
        incoming = self.incoming
        raw, was_placed, self._is_placed = await incoming.raw(), self._is_placed, False
        is_over = not was_placed and await self._hand_over(request, self._pipe.stream, raw)
        if not is_over:
            incoming.go_on(nursery)
        return is_over

    async def _cycle_of(self, request: Request) -> Cycle:
        if not request.is_websocket:
            return RequestCycle(self, request)
        incoming = self.incoming
        await incoming.stop()
        rest = incoming.parser.rest + incoming.ahead
        incoming.parser.rest, incoming.ahead = bytearray(), bytearray()
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

    def look(self) -> None:
        """Start what is to be done beside a request that lasts: called about once a second."""
        if self._cycle is not None and (work := self._cycle.look()) is not None:
            assert self._nursery is not None, "a connection with a request is served"
            self._nursery.start_soon(work)

    async def write(self, data: bytes) -> bool:
        """Send *data*; false if the client went away, or takes nothing for too long: it is lost."""
        try:
            if await self._pipe.write(data):
                return True
            log.info("a client takes too long for what it is sent: dropped")
        except LOST:
            pass
        await self.lose()
        return False

    async def lose(self) -> None:
        """Close the connection at once; pending reads and writes find the client gone."""
        self.incoming.lose()
        await self._pipe.close()

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
        await self.incoming.stop()
        with trio.move_on_after(LINGER_SECONDS), suppress(*LOST):
            await self._pipe.stream.send_eof()
            while await self.incoming.read():
                pass

    @property
    def error(self) -> BadRequest | None:
        """Why the client's bytes cannot be parsed; `None` if they can."""
        return self.incoming.parser.error

    @property
    def is_last(self) -> bool:
        """Whether no further request will be taken."""
        return self._is_ending()


def _address(name: Callable[[], Any]) -> tuple[str, int] | None:
    """Host and port of one end; `None` once the socket has lost them."""
    try:
        found = name()
    except OSError:
        return None
    return str(found[0]), int(found[1])
