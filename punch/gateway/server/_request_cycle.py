"""Serves one request, as ASGI has it: its body for the application, the application's answer.

Decides when an answer has begun, when it is over and what is left where it broke off. Bytes are
read and written by the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from ..._logs import get_logger
from ._http1 import Framing, Request

if TYPE_CHECKING:
    from ._connection import Connection

log = get_logger(__name__)

DISCONNECT = {"type": "http.disconnect"}

WATCH = "punch.watch"
"""Where the scope of a request says who watches over its client: its `RequestCycle`."""

WHOLE_BODY = "punch.body"
"""Where the scope has the body, if all of it has come before the application is called. `receive`
gives it all the same: once, to whichever application asks for it."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Work = Callable[[], Awaitable[None]]


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
        self._is_delivered = False
        self._has_all = False
        self._work: Work | None = None
        self._working: trio.CancelScope | None = None
        self._is_seen = False

    async def run(self, app: Callable[..., Any]) -> None:
        """Have *app* answer the request."""
        connection, framing = self._connection, self.framing
        try:
            await app(self._scope(), self.receive, self.send)
        except Exception:
            # One request's bug is not the next one's; the client is told below, if it can be.
            log.exception("the application met a bug")
        finally:
            self._work = None
            if self._working is not None:
                self._working.cancel()
        if self._is_over:
            framing.closes |= not self._request.is_complete
            return
        framing.closes = True
        if not self._has_begun:
            # A fault behind a complete request says nothing about that request's own answer.
            await connection.refuse(None if self._request.is_complete else connection.error)

    def leave(self) -> None:
        """Let the answer come to its end: the server waits for it."""

    @property
    def is_lost(self) -> bool:
        """Whether the client went away before the system had all of its answer."""
        return self._connection.is_lost and not self._is_delivered

    def end_with_client(self, work: Work) -> None:
        """Cancel the application once the client is gone; have *work* done beside a long answer.

        *work* begins within two seconds, and is cancelled when the application has ended.
        """
        self._work = work
        self._connection.incoming.end_answer()

    def look(self) -> Work | None:
        """The work beside the answer, once: when the answer was under way before already."""
        if self._work is None or not self._is_seen:
            self._is_seen = True
            return None
        work, self._work = self._work, None
        scope = self._working = trio.CancelScope()

        async def beside() -> None:
            with scope:
                await work()

        return beside

    def _scope(self) -> dict[str, Any]:
        scope = self._connection.scope_of(self._request)
        scope |= {"type": "http", "method": self._request.method, "scheme": "http"}
        scope[WATCH] = self
        if self._request.is_complete:
            scope[WHOLE_BODY] = self._request.body
        return scope

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
            if self._is_over or connection.incoming.has_no_more_of(request):
                return DISCONNECT
            if request.waits and not request.is_complete and not self._has_begun:
                request.waits = False
                await connection.write(CONTINUE)
            else:
                await connection.incoming.until_news()

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
        if last:
            # A client that leaves now may have everything: it cancels nothing any more.
            self._connection.incoming.keep_answer()
        if data:
            is_sent = await self._connection.write(data)
        else:
            is_sent = not self._connection.is_lost
            await trio.lowlevel.checkpoint()
        self._is_delivered = last and is_sent

    def _begin(self, body: bytes, *, last: bool) -> bytes:
        """The head and the first part of the body together: one write, one packet."""
        start, framing = self._start, self.framing
        assert start is not None, "an answer begins with its status"
        framing.closes |= self._connection.is_last or not self._request.is_complete
        data = framing.head(start["status"], start.get("headers", ()), body, last=last)
        # Not before: where a head cannot be sent, another one still can.
        self._has_begun = True
        return data
