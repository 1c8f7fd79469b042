"""Serves one WebSocket, as ASGI has it, from its handshake to its end.

Decides when a silent client is lost, how the end is said and how long the client's is waited for.
Frames are read and made by `_websocket`; what is sent is the application's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from ..._background import open_background
from ..._logs import get_logger
from ._http1 import BadRequest, Framing, Request
from ._websocket import (
    ABNORMAL,
    GOING_AWAY,
    INTERNAL,
    NORMAL,
    Ended,
    Messages,
    Reply,
    accept_token,
    subprotocols_of,
)

if TYPE_CHECKING:
    from ._connection import Connection

log = get_logger(__name__)

# How long the client may take to answer our close, in seconds, until the connection is cut.
CLOSE_SECONDS = 2.0

# Messages of the client that wait for the application; behind them TCP holds the client back.
MAX_WAITING = 1


class WebSocketCycle:
    """A request for a WebSocket, and the messages that follow it: ASGI's `receive` and `send`."""

    def __init__(self, connection: Connection, request: Request, rest: bytearray) -> None:
        self.framing = Framing(request, closes=True)
        """Frames the answer to the handshake."""
        self._connection = connection
        self._request = request
        self._rest = rest
        self._messages = Messages(connection.limits.message)
        self._token = b""
        self._refusal: dict[str, Any] | None = None
        self._is_answered = False
        self._is_connected = False
        self._opened = trio.Event()
        self._leaving = trio.Event()
        self._ended = trio.Event()
        self._end = Ended(ABNORMAL, "", b"", is_fault=False)
        self._heard_at = self._closes_by = trio.current_time()
        self._news, self._heard = trio.open_memory_channel[str](MAX_WAITING)

    async def run(self, app: Callable[..., Any]) -> None:
        """Have *app* take or refuse the WebSocket, and serve it until it ends."""
        connection = self._connection
        try:
            self._token = accept_token(self._request)
        except BadRequest as error:
            await connection.refuse(error)
            return
        async with open_background() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._ping)
            nursery.start_soon(self._until_told_to_leave)
            code, reason = NORMAL, ""
            try:
                await app(self._scope(), self.receive, self.send)
            except Exception:
                log.exception("the application met a bug")
                code, reason = INTERNAL, "the server has a bug here"
            if self._opened.is_set():
                await self._finish(code, reason)
        if not self._is_answered:
            await connection.refuse(None)
        if self._end.is_fault:
            await connection.linger()

    def leave(self) -> None:
        """End the WebSocket: the server does."""
        self._leaving.set()

    def look(self) -> None:
        """Nothing is done beside a WebSocket."""

    def _scope(self) -> dict[str, Any]:
        return {
            "type": "websocket",
            "scheme": "ws",
            "subprotocols": subprotocols_of(self._request),
            "extensions": {"websocket.http.response": {}},
        } | self._connection.scope_of(self._request)

    # ---- the application's side ----

    async def receive(self) -> dict[str, Any]:
        """That the client is there, then each of its messages, then that it is gone."""
        if not self._is_connected:
            self._is_connected = True
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}
        try:
            return {"type": "websocket.receive", "text": await self._heard.receive()}
        except (trio.EndOfChannel, trio.ClosedResourceError):
            end = self._end
            return {"type": "websocket.disconnect", "code": end.code, "reason": end.reason}

    async def send(self, message: dict[str, Any]) -> None:
        """Take the WebSocket, refuse it, send a message or close; to a lost client, nothing."""
        kind, connection = message["type"], self._connection
        if kind == "websocket.http.response.start":
            self._refusal = message
        elif kind == "websocket.http.response.body":
            await self._refuse(message.get("body", b""), last=not message.get("more_body", False))
        elif kind == "websocket.accept":
            self._is_answered = True
            await connection.write(self._head(message))
            self._opened.set()
        elif kind == "websocket.close" and not self._is_answered:
            self._refusal = {"status": 403}
            await self._refuse(b"", last=True)
        elif connection.is_lost or not self._messages.is_open:
            # An application that sends without end must still let other tasks run.
            await trio.lowlevel.checkpoint()
        elif kind == "websocket.close":
            await self._finish(message.get("code", NORMAL), message.get("reason") or "")
        else:
            await connection.write(self._messages.text(message["text"]))

    def _head(self, message: dict[str, Any]) -> bytes:
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", self._token),
        ]
        if (chosen := message.get("subprotocol")) is not None:
            headers.append((b"sec-websocket-protocol", chosen.encode("ascii")))
        return self.framing.head(101, [*headers, *message.get("headers", ())], b"", last=True)

    async def _refuse(self, body: bytes, *, last: bool) -> None:
        """Answer the handshake with a status and a body in the place of a WebSocket."""
        start, self._refusal = self._refusal, None
        if start is None:
            data = self.framing.body(body, last=last)
        else:
            self._is_answered = True
            data = self.framing.head(start["status"], start.get("headers", ()), body, last=last)
        await self._connection.write(data)

    # ---- the client's side ----

    async def _read(self) -> None:
        """Hand on the client's messages, answer its pings, and find its end."""
        await self._opened.wait()
        data: bytes | bytearray = self._rest
        while True:
            for found in self._messages.feed(data):
                if isinstance(found, Reply):
                    await self._connection.write(found.data)
                elif isinstance(found, Ended):
                    await self._over(found)
                    return
                else:
                    with suppress(trio.BrokenResourceError):
                        await self._news.send(found.text)
            data = await self._connection.incoming.read()
            if not data:
                # One half of it is no WebSocket.
                self._connection.incoming.lose()
                await self._over(Ended(ABNORMAL, "", b"", is_fault=False))
                return
            self._heard_at = trio.current_time()

    async def _over(self, end: Ended) -> None:
        self._end = end
        if end.data:
            await self._connection.write(end.data)
        self._news.close()
        self._ended.set()

    async def _finish(self, code: int, reason: str) -> None:
        """Say that no message follows, and wait a moment for the client to say so too."""
        if data := self._messages.close(code, reason):
            self._closes_by = trio.current_time() + CLOSE_SECONDS
            await self._connection.write(data)
        # A message that nobody receives any more must not keep the client's close from being read.
        self._heard.close()
        with trio.CancelScope(deadline=self._closes_by):
            await self._ended.wait()

    async def _ping(self) -> None:
        """Ask the client now and then whether it is there."""
        await self._opened.wait()
        seconds = self._connection.limits.ping
        while True:
            await trio.sleep(seconds)
            if trio.current_time() - self._heard_at >= 2 * seconds:
                log.info("the client of a WebSocket answers no ping: dropped")
                await self._connection.lose()
                return
            if self._messages.is_open:
                await self._connection.write(self._messages.ping())

    async def _until_told_to_leave(self) -> None:
        await self._opened.wait()
        await self._leaving.wait()
        await self._finish(GOING_AWAY, "the gateway stops")
        if not self._ended.is_set():
            self._end = Ended(GOING_AWAY, "", b"", is_fault=False)
            self._news.close()
