"""The server in virtual time: connections are streams in memory."""

from __future__ import annotations

import errno
import gc
import json
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.exceptions import AddressUnavailable
from punch.gateway import GatewaySettings, KeyStore, Limits
from punch.gateway.server import _server as server_room
from punch.gateway.server._connection import LINGER_SECONDS
from punch.gateway.server._http1 import MAX_REQUESTS_AHEAD, Request
from punch.gateway.server._incoming import MAX_AHEAD_BYTES
from punch.gateway.server._pipe import WRITE_BYTES
from punch.gateway.server._request_cycle import CONTINUE
from punch.gateway.server._server import SWEEP_SECONDS, Server, open_server
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
        return bytes(await self._stream.receive_some(max_bytes))

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
        # trio's own class is final: a stream in memory can only look like one.
        stream = cast("trio.SocketStream", OurEnd(ours))
        self.nursery.start_soon(self.server.connected, stream)
        return theirs


@asynccontextmanager
async def open_wire(app: Any, limits: Limits | None = None) -> AsyncIterator[Wire]:
    """A server of *app*."""
    async with trio.open_nursery() as nursery:
        server = Server(app, limits or Limits())
        nursery.start_soon(server.sweep)
        yield Wire(server, nursery)
        nursery.cancel_scope.cancel()


class Listening(trio.abc.Listener[Any]):
    """A listener in memory, with a socket."""

    socket = Socket()

    def __init__(self) -> None:
        self._streams, self._accepted = trio.open_memory_channel[OurEnd](10)

    def connect(self) -> trio.StapledStream[Any, Any]:
        """A connection."""
        theirs, ours = trio.testing.lockstep_stream_pair()
        self._streams.send_nowait(OurEnd(ours))
        return theirs

    async def accept(self) -> Any:
        return await self._accepted.receive()

    async def aclose(self) -> None:
        self._accepted.close()


@asynccontextmanager
async def open_listening(app: Any, *, drain: float) -> AsyncIterator[Listening]:
    """A server of *app* from its beginning to its end."""
    listening = Listening()

    async def listen(port: int, **how: Any) -> list[Listening]:
        return [listening]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "open_tcp_listeners", listen)
        async with open_server(app, host="a", port=1, limits=Limits(), drain=drain):
            yield listening


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


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

LOST = (trio.BrokenResourceError, trio.ClosedResourceError)


async def body_of(receive: Any) -> bytes:
    """The whole body, or what there is of it."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def begin(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked."""
    body = await body_of(receive)
    await send(begin())
    await send(part(scope["path"].encode() + b" " + body))


async def write(stream: Any, *parts: bytes) -> None:
    """Send until nobody takes it."""
    with suppress(*LOST):
        for data in parts:
            await stream.send_all(data)


async def talk(app: Any, *parts: bytes, limits: Limits | None = None) -> bytes:
    """All that a client is told that sends *parts*."""
    async with open_wire(app, limits or Limits(idle=5.0)) as wire:
        stream = wire.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, stream, *parts)
            said = await until_end(stream)
            nursery.cancel_scope.cancel()
    return said


# ---- HTTP/2 ----


async def test_http_2_is_not_spoken(autojump_clock: MockClock) -> None:
    """Its preface gets a status that HTTP/1 has for it, and the end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it must not come so far")

    async with open_wire(app) as wire:
        stream = wire.connect()
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        said = await until_end(stream)
    assert said.startswith(b"HTTP/1.1 505 ")


async def test_an_upgrade_to_http_2_is_not_done(autojump_clock: MockClock) -> None:
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
    headers: dict[str, Any],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
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
    assert not client.app.service.live.under_way


# ---- going away ----


@pytest.mark.parametrize(
    "extra",
    [b"", b"\r\n", b"G", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    ids=["nothing", "an empty line", "a byte", "a request"],
)
async def test_a_client_that_sent_more_is_missed_all_the_same(
    extra: bytes, autojump_clock: MockClock
) -> None:
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


async def test_requests_sent_at_once_are_answered_in_their_order(autojump_clock: MockClock) -> None:
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


async def test_what_is_sent_ahead_is_held_up_to_a_limit(autojump_clock: MockClock) -> None:
    """The rest stays with the client."""
    backend = Forever()
    async with open_client({"a": backend.backend}) as client, open_wire(client.app) as wire:
        stream = wire.connect()
        await stream.send_all(request(QUESTION) + b"x")
        sent = 0
        with trio.move_on_after(5):
            while sent < 10 * MAX_AHEAD_BYTES:
                await stream.send_all(b"x" * 8192)
                sent += 8192
        assert sent <= 2 * MAX_AHEAD_BYTES


# ---- slow clients ----


async def test_a_long_answer_is_written_for_as_long_as_it_is_read(
    autojump_clock: MockClock,
) -> None:
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


async def test_a_client_that_takes_nothing_is_dropped(autojump_clock: MockClock) -> None:
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


async def test_a_part_is_sent_whole_even_if_its_sender_gives_up(autojump_clock: MockClock) -> None:
    """Half a part would take what comes after it with it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(begin())
        with trio.move_on_after(1):
            await send(part(b"a" * 4 * PIECE, more=True))
        await send(part(b"b"))

    async with open_wire(app) as wire:
        stream = wire.connect()
        await stream.send_all(LAST)
        await trio.sleep(5)
        said = await until_end(stream)
    body = b"%x\r\n%b\r\n" % (4 * PIECE, b"a" * 4 * PIECE) + b"1\r\nb\r\n0\r\n\r\n"
    assert said.partition(b"\r\n\r\n")[2] == body


async def test_room_for_bodies_is_shared(autojump_clock: MockClock) -> None:
    """Beyond it, 503 with Retry-After; short ones are always taken, and room comes back."""
    backend = Forever()
    settings = GatewaySettings(limits=Limits(body=200_000, bodies=200_000))
    long = {"messages": [{"role": "user", "content": "x" * 150_000}]}
    async with open_client({"a": backend.backend}, settings=settings) as client:
        async with client.open("POST", CHAT, long) as first:
            await trio.sleep(1)
            assert client.app.service.memory.held > 150_000
            second = await client.post(CHAT, long)
            async with client.open("POST", CHAT, QUESTION) as short:
                await trio.sleep(1)
                assert len(client.app.service.live.under_way) == 2
                short.leave()
            first.leave()
        assert client.app.service.memory.held == 0
    assert second.status == 503
    assert second.error["code"] == "no_room"
    assert int(second.headers["retry-after"]) >= 1


@pytest.mark.parametrize("lines", [b"\r\n", b"\n\n", b"\r\n\r\n"])
async def test_empty_lines_before_a_request_are_no_request(
    lines: bytes, autojump_clock: MockClock
) -> None:
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


async def test_a_body_that_began_fast_may_not_be_silent_for_long(autojump_clock: MockClock) -> None:
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
        assert client.app.service.memory.held == 0
    assert said.startswith(b"HTTP/1.1 408 ")


# ---- requests and answers ----


@pytest.mark.parametrize("size", [1, 1000])
async def test_a_body_comes_with_an_upgrade_that_is_not_done(
    size: int, autojump_clock: MockClock
) -> None:
    """As Java's client sends it, however it is cut; the request behind it is one as well."""
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "A"}
    data = request(b"hello", path="/one", **upgrade) + LAST
    said = await talk(echo, *(data[i : i + size] for i in range(0, len(data), size)))
    assert said.count(OK) == 2
    assert b"/one hello" in said
    assert said.endswith(b"/last ")


async def test_a_path_is_unquoted_whatever_is_in_it(autojump_clock: MockClock) -> None:
    """What is no UTF-8 is no reason to fail; the raw path says it as it was."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], scope["raw_path"], scope["query_string"]))
        await send(begin())
        await send(part(b""))

    targets = [b"/a%20b%2Fc?d=%20", b"/%ff%", b"http://b/c?d", b"*"]
    await talk(app, *(GET.replace(b"/", target, 1) for target in targets), LAST)
    assert seen == [
        ("/a b/c", b"/a%20b%2Fc", b"d=%20"),
        ("/\ufffd%", b"/%ff%", b""),
        ("/c", b"/c", b"d"),
        ("*", b"*", b""),
        ("/last", b"/last", b""),
    ]


@pytest.mark.parametrize(("connection", "answers"), [("", 1), ("Connection: keep-alive\r\n", 2)])
async def test_http_1_0_goes_on_only_if_it_asks_to(
    connection: str, answers: int, autojump_clock: MockClock
) -> None:
    """And is told so."""
    old = f"GET / HTTP/1.0\r\n{connection}\r\n".encode()
    said = await talk(echo, old, LAST)
    assert said.count(OK) == answers
    assert (b"connection: keep-alive\r\n" in said) is (answers == 2)
    assert said.count(b"connection: close\r\n") == 1


async def test_what_has_no_body_is_followed_by_the_next_answer(autojump_clock: MockClock) -> None:
    """The answer to HEAD, and 204, also where the application sends one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(begin(204 if scope["path"] == "/last" else 200, (b"content-length", b"4")))
        await send(part(b"bo", more=True))
        await send(part(b"dy"))

    said = await talk(app, GET.replace(b"GET", b"HEAD"), GET, LAST)
    first, second, third, rest = said.split(b"\r\n\r\n")
    assert first == OK + b"content-length: 4"
    assert second == first
    assert third.startswith(b"bodyHTTP/1.1 204 No Content\r\n")
    assert rest == b""


async def test_too_many_requests_at_once_are_refused(autojump_clock: MockClock) -> None:
    """Behind the answers to those that were not too many."""
    said = await talk(echo, GET * (MAX_REQUESTS_AHEAD + 5))
    assert said.count(OK) == MAX_REQUESTS_AHEAD
    assert said.count(b"HTTP/1.1 ") == MAX_REQUESTS_AHEAD + 1
    assert said.index(b"HTTP/1.1 429 ") > said.rindex(OK)


async def test_a_client_is_told_to_go_on_when_its_body_is_wanted(autojump_clock: MockClock) -> None:
    """Once, and not where the answer is there before."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send(begin(401))
        await send(part(b"no", more=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        await send(part(b""))

    head = request(b"", Expect="100-continue").replace(b"Length: 0", b"Length: 4")
    async with open_wire(echo) as wire:
        stream = wire.connect()
        await stream.send_all(head)
        assert await stream.receive_some(65536) == CONTINUE
        await stream.send_all(b"bo")
        await stream.send_all(b"dy")
        assert (await stream.receive_some(65536)).endswith(b" body")
    said = await talk(refuse, head)
    assert said.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in said
    assert CONTINUE not in said


async def test_bad_chunks_are_refused_where_the_answer_waits_for_them(
    autojump_clock: MockClock,
) -> None:
    """An application that has nothing to say of it need not."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await body_of(receive) == b"ok"

    head = request(b"", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
    said = await talk(app, head + b"2\r\nok\r\n", b"no chunk\r\n", GET)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"chunk size" in said
    assert said.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [begin()],
        [part(b"no status")],
        [begin(200, (b"location", b"/\r\nset-cookie: a")), part(b"")],
        [begin(200, (b"content-length", b"2")), part(b"too long")],
        [begin(200, (b"content-length", b"many")), part(b"")],
    ],
)
async def test_a_bug_before_the_answer_is_a_500(
    messages: list[Any], autojump_clock: MockClock
) -> None:
    """Whatever was wrong, also with the answer itself, or with what came behind the request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        raise RuntimeError

    said = await talk(app, GET + b"no request\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 500 ")
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"cookie" not in said


@pytest.mark.parametrize("ending", [part(b"three"), part(b""), None])
async def test_a_bug_in_the_answer_breaks_it_off(ending: Any, autojump_clock: MockClock) -> None:
    """Nothing follows: the client sees that it is not whole."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(begin(200, (b"content-length", b"4")))
        await send(part(b"on", more=True))
        if ending is not None:
            await send(ending)

    said = await talk(app, GET + GET)
    assert said == OK + b"content-length: 4\r\n\r\non"


@pytest.mark.parametrize("leaves", [False, True])
async def test_two_may_wait_for_what_a_client_sends(
    leaves: bool, autojump_clock: MockClock
) -> None:
    """Each part goes to one of them; both are told that it left, or what it sends is no body."""
    heard: list[bytes] = []
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            while (message := await receive())["type"] == "http.request":
                heard.append(message["body"])
            told.append(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(listen)

    async with open_wire(app) as wire:
        stream = wire.connect()
        head = request(b"", Transfer_Encoding="chunked")
        await stream.send_all(head.replace(b"Content-Length: 0\r\n", b""))
        for data in (b"2\r\nab\r\n", b"2\r\ncd\r\n", b"0\r\n\r\n" if leaves else b"0\r\n"):
            await stream.send_all(data)
            await trio.sleep(1)
        assert b"".join(heard) == b"abcd"
        assert not told
        await (stream.aclose() if leaves else stream.send_all(b"no trailer\r\n"))
        await trio.sleep(1)
        assert told == [{"type": "http.disconnect"}] * 2


async def test_behind_the_answer_there_is_only_its_end(autojump_clock: MockClock) -> None:
    """Whoever asks for more is told at once, and whoever sends more is not heard."""
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        await send(part(b"more"))
        told.append(await receive())

    first = OK + b"content-length: 2\r\n\r\n/ "
    last = OK + b"content-length: 6\r\nconnection: close\r\n\r\n/last "
    assert await talk(app, GET, LAST) == first + last
    assert told == [{"type": "http.disconnect"}] * 2


# ---- clients that leave ----


@pytest.mark.parametrize("half", [False, True])
async def test_a_client_that_leaves_in_the_middle_of_a_body_is_missed(
    half: bool, autojump_clock: MockClock
) -> None:
    """Also if it would still hear what it is told: it was not all it had to say."""
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(await receive())
        told.append(await receive())

    async with open_wire(app) as wire:
        stream = wire.connect()
        await stream.send_all(request(b"hello")[:-2])
        await (stream.send_eof() if half else stream.aclose())
        await trio.sleep(1)
        assert wire.server.connections == 0
    assert [message["type"] for message in told] == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_what_is_sent_to_nobody_lets_others_have_their_turn(
    method: bytes, autojump_clock: MockClock
) -> None:
    """A client that leaves in the middle of a part is missed, and what follows is dropped."""
    is_sent = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(begin())
        for _ in range(100):
            await send(part(b"x" * 3 * WRITE_BYTES, more=True))
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        assert await receive() == {"type": "http.disconnect"}
        is_sent.set()

    async with open_wire(app) as wire:
        stream = wire.connect()
        await stream.send_all(GET.replace(b"GET", method))
        await stream.receive_some(100)
        await stream.aclose()
        turns = 0
        while wire.server.connections:
            turns += 1
            await trio.lowlevel.checkpoint()
        assert is_sent.is_set()
        assert turns > 50


async def test_a_client_that_sent_too_much_is_missed_when_it_takes_nothing(
    autojump_clock: MockClock,
) -> None:
    """Nobody reads any more then, but an answer without end must have one."""
    ended_at = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                ended_at.append(trio.current_time())
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await send(begin())
            while True:
                await trio.sleep(10)
                await send(part(b"still here", more=True))

    async with open_wire(app, Limits(stuck=30.0)) as wire:
        stream = wire.connect()
        await stream.send_all(GET + b"x")
        with trio.move_on_after(5):
            await stream.send_all(b"x" * 10 * MAX_AHEAD_BYTES)
        await trio.sleep(60)
        assert wire.server.connections == 0
    assert ended_at == [pytest.approx(40, abs=1)]


@pytest.mark.parametrize("more", [b"", GET, b"G", b"no request\r\n\r\n"])
async def test_a_client_that_still_sends_can_read_the_last_answer(
    more: Any, autojump_clock: MockClock
) -> None:
    """What it sends is thrown away for a while: to close on it would take the answer back."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(begin(200, (b"connection", b"close")))
        await send(part(b""))

    async with open_wire(app) as wire:
        stream = wire.connect()
        await stream.send_all(GET + more)
        assert (await stream.receive_some(65536)).startswith(OK)
        await trio.sleep(LINGER_SECONDS / 2)
        assert wire.server.connections == bool(more)
        await trio.sleep(LINGER_SECONDS)
        assert wire.server.connections == 0


# ---- clients that wait ----


async def test_a_client_that_asks_nothing_is_let_go(autojump_clock: MockClock) -> None:
    """First, and after each answer; an answer takes as long as it takes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(100)
        await echo(scope, receive, send)

    async with open_wire(app, Limits(idle=5.0)) as wire:
        silent, stream = wire.connect(), wire.connect()
        await trio.sleep(4)
        await stream.send_all(GET)
        await trio.sleep(1 + SWEEP_SECONDS)
        assert await silent.receive_some(1) == b""
        assert (await stream.receive_some(65536)).startswith(OK)
        answered_at = trio.current_time()
        assert await stream.receive_some(1) == b""
    assert answered_at == pytest.approx(104)
    assert trio.current_time() - answered_at == pytest.approx(5, abs=SWEEP_SECONDS)


@pytest.mark.parametrize("first", [b"", GET])
async def test_a_head_may_not_take_long(first: Any, autojump_clock: MockClock) -> None:
    """However steadily it comes, and whatever came before it."""
    async with open_wire(echo, Limits(slowest=10.0, idle=75.0)) as wire:
        stream = wire.connect()
        if first:
            await stream.send_all(first)
            await stream.receive_some(65536)
        await trio.sleep(50)
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"GET / HTTP/1.1\r\nA: ")
            while True:
                await trio.sleep(0.5)
                await stream.send_all(b"b")
        assert trio.current_time() - began == pytest.approx(10, abs=SWEEP_SECONDS + 0.5)


async def test_there_are_so_many_connections_and_no_more(autojump_clock: MockClock) -> None:
    """The next one is told nothing; there is room again when one has ended."""
    async with open_wire(echo, Limits(connections=2)) as wire:
        first, _second = wire.connect(), wire.connect()
        await trio.sleep(1)
        assert await wire.connect().receive_some(1) == b""
        assert trio.current_time() == 1
        await first.aclose()
        await trio.sleep(1)
        third = wire.connect()
        await third.send_all(GET)
        assert (await third.receive_some(65536)).startswith(OK)


async def test_a_connection_that_has_ended_is_let_go(autojump_clock: MockClock) -> None:
    """At once: with a connection for each request, the collector of cycles would be too late."""
    async with open_wire(echo) as wire:
        stream = wire.connect()
        await stream.send_all(GET)
        await stream.receive_some(65536)
        (connection,) = wire.server._connections
        there = weakref.ref(connection)
        parser = weakref.ref(connection.incoming.parser)
        del connection
        gc.disable()
        try:
            await stream.aclose()
            await trio.sleep(1)
            assert there() is None
            assert parser() is None
        finally:
            gc.enable()


# ---- the end ----


async def test_a_server_that_ends_waits_for_answers_alone(autojump_clock: MockClock) -> None:
    """Who has not begun to ask, or not ended it, is let go; answers say that they are the last."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(5)
        await echo(scope, receive, send)

    async with open_wire(app) as wire:
        silent, half, first = (wire.connect() for _ in range(3))
        await half.send_all(GET[:20])
        await first.send_all(GET + GET)
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.server.drain, 10)
            for stream in (silent, half):
                assert await stream.receive_some(1) == b""
            assert trio.current_time() == pytest.approx(1)
            said = await until_end(first)
        assert trio.current_time() <= 5 + LINGER_SECONDS
    assert said.startswith(OK + b"content-length: 2\r\nconnection: close\r\n")
    assert said.count(OK) == 1


@pytest.mark.parametrize("drains", [False, True])
async def test_a_request_that_comes_while_others_are_let_go_is_answered(
    drains: bool, autojump_clock: MockClock
) -> None:
    """A thousand idle connections take a while to end."""
    begun = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal begun
        begun += 1
        await trio.sleep(1)
        await echo(scope, receive, send)

    said = []
    async with open_wire(app, Limits(idle=75.0 if drains else 5.0)) as wire:

        async def ask(stream: Any) -> None:
            await write(stream, GET)
            said.append(await until_end(stream))

        streams = [wire.connect() for _ in range(50)]
        await trio.sleep(5)
        async with trio.open_nursery() as nursery:
            if drains:
                nursery.start_soon(wire.server.drain, 10)
            for stream in streams:
                nursery.start_soon(ask, stream)
    assert begun > 0
    assert sum(each.startswith(OK) for each in said) == begun


async def test_a_server_that_ends_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    """Not for an answer that is not made, nor for a client that takes nothing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/last":
            await trio.sleep_forever()
        await send(begin())
        await send(part(b"x" * 100 * WRITE_BYTES))

    async with open_listening(app, drain=10.0) as listening:
        for data in (GET, LAST):
            await listening.connect().send_all(data)
        await trio.sleep(1)
    assert trio.current_time() == pytest.approx(11)


async def test_a_server_that_is_cancelled_ends_at_once(autojump_clock: MockClock) -> None:
    """However long the answer is that a client takes slowly."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(begin())
        await send(part(b"x" * 100 * WRITE_BYTES))

    with trio.move_on_after(20) as scope:
        async with open_listening(app, drain=10.0) as listening:
            stream = listening.connect()
            await stream.send_all(GET)
            while True:
                await stream.receive_some(1)
                await trio.sleep(1)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(20)


async def test_a_shortage_of_descriptors_is_said_once_and_idle_connections_make_room(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """No hot loop and no traceback: ten seconds of it are one line, and then it accepts again."""
    calls: list[float] = []

    class Listener:
        async def accept(self) -> trio.SocketStream:
            calls.append(trio.current_time())
            if trio.current_time() < 10.0:
                raise OSError(errno.EMFILE, "Too many open files")
            await trio.sleep_forever()
            raise AssertionError("never")

    server = Server(lambda *_: None, Limits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(server.serve, [Listener()], connections=nursery))  # type: ignore[list-item]  # a fake
        await trio.sleep(11.0)
        nursery.cancel_scope.cancel()
    said = [record for record in caplog.records if "open files" in str(record.msg)]
    assert len(said) == 1
    assert len(calls) <= 102


async def test_few_descriptors_mean_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them are for everything else."""
    monkeypatch.setattr(server_room, "raise_descriptor_limit", lambda: 128)
    async with open_server(lambda *_: None, host="127.0.0.1", port=0, limits=Limits()) as server:
        assert server.limit == 64


async def test_a_second_port_has_the_same_connections() -> None:
    """One server, one limit."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with open_server(
        app, host="127.0.0.1", port=0, limits=Limits(), more_ports={0: "--other"}
    ) as server:
        first, second = server.addresses
        assert first[1] != second[1]
        for _, port in (first, second):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            await stream.aclose()


async def test_a_second_port_that_is_taken_is_named_with_its_setting() -> None:
    """And the first one is given back."""
    (taken,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    number = taken.socket.getsockname()[1]
    (free,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = free.socket.getsockname()[1]
    await free.aclose()
    words = f"cannot listen on 127.0.0.1 port {number}: .*Leave --other out"
    with pytest.raises(AddressUnavailable, match=words):
        async with open_server(
            app=lambda *_: None,
            host="127.0.0.1",
            port=port,
            limits=Limits(),
            more_ports={number: "--other"},
        ):
            pass
    (again,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    await again.aclose()
    await taken.aclose()


# ---- several processes ----


async def says_path(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers with the path."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def test_a_request_of_another_process_takes_its_connection_there() -> None:
    """With all that was read of it, so that nothing is lost on the way."""
    given: list[bytes | None] = []

    async def hand_over(request: Request, stream: trio.SocketStream, raw: bytes | None) -> bool:
        given.append(raw)
        return request.place == "/elsewhere"

    async with trio.open_nursery() as nursery:
        server = Server(says_path, Limits(), hand_over=hand_over)
        wire = Wire(server, nursery)
        client = wire.connect()
        here, there = b"GET /here HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /elsewhere HTTP/1.1\r\nHost: "
        await client.send_all(here)
        assert b"/here" in await client.receive_some(4096)
        for piece in (there, b"a\r\nContent-Length: 4\r\n", b"\r\nbo"):
            await client.send_all(piece)
        assert await client.receive_some(4096) == b""

    assert given == [here, there + b"a\r\nContent-Length: 4\r\n\r\nbo"]


async def test_a_request_that_was_handed_over_is_answered_where_it_came_to() -> None:
    """Else it could go round; the next one on that connection may go elsewhere again."""
    seen: list[str] = []

    async def hand_over(request: Request, stream: trio.SocketStream, raw: bytes | None) -> bool:
        seen.append(request.place)
        return True

    async with trio.open_nursery() as nursery:
        server = Server(says_path, Limits(), hand_over=hand_over)
        theirs, ours = trio.testing.lockstep_stream_pair()
        stream = cast("trio.SocketStream", OurEnd(ours))
        ahead = b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo"
        nursery.start_soon(server.connected, stream, ahead)
        await theirs.send_all(b"dy")
        assert b"/one" in await theirs.receive_some(4096)
        await theirs.send_all(b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await theirs.receive_some(4096) == b""

    assert seen == ["/two"]


async def test_a_request_behind_another_one_that_belongs_elsewhere_ends_the_connection() -> None:
    """Its bytes cannot be told from those before it; a client sends it again (RFC 9112, 9.3.2)."""
    given: list[bytes | None] = []

    async def hand_over(request: Request, stream: trio.SocketStream, raw: bytes | None) -> bool:
        given.append(raw)
        return request.place == "/elsewhere"

    async with trio.open_nursery() as nursery:
        wire = Wire(Server(says_path, Limits(), hand_over=hand_over), nursery)
        client = wire.connect()
        both = [b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in (b"here", b"elsewhere")]
        await client.send_all(b"".join(both))
        answer = b""
        while data := await client.receive_some(4096):
            answer += data

    assert answer.count(b"HTTP/1.1 200") == 1
    assert given == [b"".join(both), None]
