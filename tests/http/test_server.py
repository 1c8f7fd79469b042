"""The server in virtual time: connections are streams in memory."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from gateway_client import open_client

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.http import GatewaySettings, KeyStore, Limits
from punch.http._connection import MOST_AHEAD
from punch.http._server import Server
from punch.testing import ScriptedBackend
from punch.wire import CommandRequest

CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "tell me"}], "max_tokens": 2}


# What the other side is given at a time, in bytes.
PIECE = 16384

# Virtual seconds after which a connection is taken to be stuck.
PATIENCE = 60


def mock() -> MockBackend:
    return MockBackend(MockScript())


class Socket:
    """As much of one as a connection looks at."""

    family = socket.AF_INET

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
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for place in range(0, len(data), PIECE):
            # What is half sent when the patience ends is not sent.
            await self._stream.send_all(bytes(data[place : place + PIECE]))

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@attrs.define
class Wire:
    """Clients of a server."""

    server: Server
    nursery: trio.Nursery

    def connect(self) -> trio.StapledStream[Any, Any]:
        """A connection, which takes nothing that it does not ask for."""
        theirs, ours = trio.testing.lockstep_stream_pair()
        self.nursery.start_soon(self.server.connected, OurEnd(ours))
        return theirs


@asynccontextmanager
async def open_wire(app: Any, limits: Limits | None = None) -> AsyncIterator[Wire]:
    """A server of *app*."""
    async with trio.open_nursery() as nursery:
        server = Server(app, limits or Limits())
        nursery.start_soon(server.sweep)
        yield Wire(server, nursery)
        nursery.cancel_scope.cancel()


def request(body: Any, *, path: str = CHAT, **headers: str) -> bytes:
    """A request as it is sent."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Host": "localhost", "Content-Length": str(len(data))} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + data


async def until_end(stream: Any) -> bytes:
    """All that comes."""
    found = b""
    with trio.fail_after(PATIENCE):
        try:
            while data := await stream.receive_some(65536):
                found += data
        except trio.BrokenResourceError:
            pass
    return found


class Forever:
    """A backend that never answers, and notes when it was stopped."""

    def __init__(self) -> None:
        self.stopped_at: list[float] = []
        self.backend = ScriptedBackend(self.play)

    async def play(self, request: CommandRequest, emit: Emit) -> Generation:
        try:
            await trio.sleep_forever()
            raise AssertionError
        finally:
            self.stopped_at.append(trio.current_time())


# ---- HTTP/2 ----


async def test_http_2_is_not_spoken(autojump_clock):
    """Its preface gets a status that HTTP/1 has for it, and the end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it must not come so far")

    async with open_wire(app) as wire:
        stream = wire.connect()
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        said = await until_end(stream)
    assert said.startswith(b"HTTP/1.1 505 ")


async def test_an_upgrade_to_http_2_is_not_done(autojump_clock):
    """The request is answered as if it had not been asked for."""
    async with open_client({"a": mock()}) as client, open_wire(client.app) as wire:
        stream = wire.connect()
        await stream.send_all(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        said = await stream.receive_some(65536)
    assert said.startswith(b"HTTP/1.1 200 ")


# ---- bodies that nobody wants ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X_Request_ID": "a\xe9b"}, 400),
        ({"Content_Type": "text/plain"}, 415),
        ({"Authorization": "Bearer no"}, 401),
    ],
)
async def test_a_refusal_before_the_body_lets_the_connection_go(
    headers, status, tmp_path, monkeypatch, autojump_clock
):
    """However many pieces the body comes in: unread, they would hold it for ever."""

    async def look(self: KeyStore) -> None:
        # In virtual time, which would pass while a thread looks.
        await trio.sleep(0.1)

    monkeypatch.setattr(KeyStore, "_check", look)
    with KeyStore(tmp_path / "keys") as keys:
        _, secret = keys.create("me")
        given = {"Authorization": f"Bearer {secret}", "Transfer_Encoding": "chunked"} | headers
        head = request(b"", **given).replace(b"Content-Length: 0\r\n", b"")
        async with (
            open_client({"a": mock()}, keys=keys) as client,
            open_wire(client.app) as wire,
        ):
            stream = wire.connect()
            async with trio.open_nursery() as nursery:

                async def write() -> None:
                    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                        await stream.send_all(head + b"1\r\nx\r\n" * 4000)
                        while True:
                            await stream.send_all(b"1\r\nx\r\n" * 4000)

                nursery.start_soon(write)
                said = await until_end(stream)
                await stream.aclose()
            await trio.sleep(5)
            assert wire.server.connections == 0
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in said.lower()
    assert not client.app.service.observers.under_way


# ---- going away ----


@pytest.mark.parametrize(
    "extra",
    [b"", b"\r\n", b"G", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    ids=["nothing", "an empty line", "a byte", "a request"],
)
async def test_a_client_that_sent_more_is_missed_all_the_same(extra, autojump_clock):
    """What it sent ahead waits, and the end behind it is seen."""
    backend = Forever()
    async with open_client({"a": backend.backend}) as client, open_wire(client.app) as wire:
        stream = wire.connect()
        await stream.send_all(request(QUESTION) + extra)
        await trio.sleep(3)
        left_at = trio.current_time()
        await stream.aclose()
        await trio.sleep(1)
        assert wire.server.connections == 0
    assert backend.stopped_at == [pytest.approx(left_at, abs=0.2)]


async def test_requests_sent_at_once_are_answered_in_their_order(autojump_clock):
    """Also after empty lines, and when they come in pieces while the first one is made."""
    async with open_client({"a": mock()}) as client, open_wire(client.app) as wire:
        stream = wire.connect()
        second = request(QUESTION, X_Request_ID="two")
        await stream.send_all(request(QUESTION, X_Request_ID="one") + b"\r\n" + second[:20])
        await trio.sleep(0.001)
        await stream.send_all(second[20:])
        said = b""
        with trio.move_on_after(20):
            while said.count(b"chatcmpl-") < 2 and (data := await stream.receive_some(65536)):
                said += data
        assert said.count(b"HTTP/1.1 200") == 2
        assert said.index(b"chatcmpl-one") < said.index(b"chatcmpl-two")


async def test_what_is_sent_ahead_is_held_up_to_a_limit(autojump_clock):
    """The rest stays with the client."""
    backend = Forever()
    async with open_client({"a": backend.backend}) as client, open_wire(client.app) as wire:
        stream = wire.connect()
        await stream.send_all(request(QUESTION) + b"x")
        sent = 0
        with trio.move_on_after(5):
            while sent < 10 * MOST_AHEAD:
                await stream.send_all(b"x" * 8192)
                sent += 8192
        assert sent <= 2 * MOST_AHEAD


# ---- slow clients ----


async def test_a_long_answer_is_written_for_as_long_as_it_is_read(autojump_clock):
    """The limit is for a client that takes nothing, not for the whole."""
    size = 1 << 20

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size, "more_body": False})

    async with open_wire(app, Limits(stuck=30.0)) as wire:
        stream = wire.connect()
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = 0
        while got < size and (data := await stream.receive_some(16384)):
            got += len(data)
            await trio.sleep(5)
        assert got >= size
        assert trio.current_time() > 300


async def test_a_client_that_takes_nothing_is_dropped(autojump_clock):
    """After the limit."""
    backend = mock()
    async with open_client({"a": backend}) as client:
        async with open_wire(client.app, Limits(stuck=30.0)) as wire:
            stream = wire.connect()
            await stream.send_all(request(QUESTION))
            await trio.sleep(25)
            assert wire.server.connections == 1
            await trio.sleep(10)
            assert wire.server.connections == 0


async def test_room_for_bodies_is_shared(autojump_clock):
    """Beyond it, 503 with Retry-After; short ones are always taken, and room comes back."""
    backend = Forever()
    settings = GatewaySettings(limits=Limits(body=200_000, bodies=200_000))
    long = {"messages": [{"role": "user", "content": "x" * 150_000}]}
    async with open_client({"a": backend.backend}, settings=settings) as client:
        async with client.open("POST", CHAT, long) as first:
            await trio.sleep(1)
            assert client.app.service.bodies.held > 150_000
            second = await client.post(CHAT, long)
            async with client.open("POST", CHAT, QUESTION) as short:
                await trio.sleep(1)
                assert len(client.app.service.observers.under_way) == 2
                short.leave()
            first.leave()
        assert client.app.service.bodies.held == 0
    assert second.status == 503
    assert second.error["code"] == "no_room"
    assert int(second.headers["retry-after"]) >= 1


@pytest.mark.parametrize("lines", [b"\r\n", b"\n\n", b"\r\n\r\n"])
async def test_empty_lines_before_a_request_are_no_request(lines, autojump_clock):
    """First on a connection, and after an answer (RFC 9112, section 2.2)."""
    async with open_client({"a": mock()}) as client, open_wire(client.app) as wire:
        stream = wire.connect()
        for _ in range(2):
            await stream.send_all(lines)
            await stream.send_all(lines + request(QUESTION))
            said = b""
            with trio.move_on_after(20):
                while b"chatcmpl-" not in said and (data := await stream.receive_some(65536)):
                    said += data
            assert said.startswith(b"HTTP/1.1 200 ")
            await trio.sleep(0.1)


async def test_a_body_that_began_fast_may_not_be_silent_for_long(autojump_clock):
    """It has earned seconds by its rate, and holds its room all that time."""
    async with open_client({"a": mock()}) as client, open_wire(client.app) as wire:
        stream = wire.connect()
        head = request(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % (4 << 20))
        await stream.send_all(head + b" " * (2 << 20))
        began = trio.current_time()
        said = await until_end(stream)
        assert trio.current_time() - began <= Limits().slowest + 5
        await stream.aclose()
        await trio.sleep(5)
        assert client.app.service.bodies.held == 0
    assert said.startswith(b"HTTP/1.1 408 ")
