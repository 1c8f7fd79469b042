"""A client of the gateway's WebSockets over a stream in memory, which can break every rule."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import trio
import trio.testing
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.utilities import generate_accept_token

from punch.gateway import Limits
from punch.gateway.server._server import Server

NONCE = base64.b64encode(b"sixteen bytes...")

TEXT, BINARY, CONTINUES, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


class Socket:
    """As much of one as a connection looks at."""

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 40000)

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 11435)


class OurEnd(trio.abc.HalfCloseableStream):
    """The server's end of a connection: a stream in memory, with a socket."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream
        self.socket = Socket()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def frame(
    kind: int, payload: bytes = b"", *, last: bool = True, reserved: int = 0, masked: bool = True
) -> bytes:
    """One frame, right or wrong, as a client masks it."""
    head = bytes([last << 7 | reserved << 4 | kind])
    size, mask = len(payload), masked << 7
    if size < 126:
        head += bytes([mask | size])
    elif size < 1 << 16:
        head += bytes([mask | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


def closing(code: int, reason: bytes = b"") -> bytes:
    """The client's close."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


def handshake(path: str = "/ws/logs", **changed: str | None) -> bytes:
    """The bytes of a handshake; *changed* gives headers another value, or none."""
    headers: dict[str, str | None] = {
        "host": "localhost",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": NONCE.decode(),
    }
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value is not None]
    return f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


@attrs.define
class WebSocketClient:
    """What a client was answered, and what it is sent."""

    stream: trio.StapledStream[Any, Any]
    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    rest: bytes = b""
    frames: Connection = attrs.field(factory=lambda: Connection(ConnectionType.CLIENT))

    async def begin(self, data: bytes) -> None:
        """Send a handshake, and read the head of the answer."""
        await self.stream.send_all(data)
        head = b""
        while b"\r\n\r\n" not in head:
            part = await self.stream.receive_some()
            assert part, head
            head += part
        head, _, self.rest = head.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        if self.status == 101:
            assert self.headers["sec-websocket-accept"] == generate_accept_token(NONCE).decode()
            self.frames.receive_data(self.rest)

    async def body(self) -> Any:
        """The rest of an answer that is no WebSocket; the server closes behind it."""
        while part := await self.stream.receive_some():
            self.rest += part
        return json.loads(self.rest)

    async def send(self, *frames: bytes) -> None:
        """Send frames; the server may be gone."""
        try:
            for each in frames:
                await self.stream.send_all(each)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def event(self) -> Event | None:
        """The next thing that the server says; nothing once the connection is closed."""
        while True:
            for event in self.frames.events():
                return event
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.frames.receive_data(bytes(data))

    async def message(self) -> Any:
        """The next message; pings are answered meanwhile."""
        while True:
            event = await self.event()
            if isinstance(event, Ping):
                await self.send(frame(PONG, bytes(event.payload)))
                continue
            assert isinstance(event, TextMessage), event
            assert event.message_finished
            return json.loads(event.data)

    async def end(self) -> tuple[int, str] | None:
        """The code and the words of the server's close; nothing if there is none."""
        while (event := await self.event()) is not None:
            if isinstance(event, CloseConnection):
                return int(event.code), event.reason or ""
            assert isinstance(event, TextMessage | Ping | Pong), event
        return None


@asynccontextmanager
async def open_websocket(
    app: Any,
    data: bytes | None = None,
    *,
    limits: Limits | None = None,
    websockets: Container[str] | None = None,
) -> AsyncIterator[WebSocketClient]:
    """A client that has begun with *data*, by default a handshake that is taken."""
    async with open_websockets(app, limits=limits, websockets=websockets) as connect:
        client = connect()
        await client.begin(handshake() if data is None else data)
        yield client


@attrs.define
class Connect:
    """Makes clients of one server."""

    server: Server
    nursery: trio.Nursery

    def __call__(self) -> WebSocketClient:
        """A client that has not begun."""
        theirs, ours = trio.testing.lockstep_stream_pair()
        # trio's own class is final: a stream in memory can only look like one.
        stream = cast("trio.SocketStream", OurEnd(ours))
        self.nursery.start_soon(self.server.connected, stream)
        return WebSocketClient(theirs)


@asynccontextmanager
async def open_websockets(
    app: Any, *, limits: Limits | None = None, websockets: Container[str] | None = None
) -> AsyncIterator[Connect]:
    """Clients of a server of *app*."""
    paths = getattr(app, "websockets", frozenset({"/ws/logs"}))
    async with trio.open_nursery() as nursery:
        spell: Mapping[str, Any] = {"websockets": paths if websockets is None else websockets}
        server = Server(app, limits or Limits(), **spell)
        nursery.start_soon(server.sweep)
        yield Connect(server, nursery)
        nursery.cancel_scope.cancel()
