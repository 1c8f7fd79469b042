"""WebSockets of our own server, in virtual time: handshakes, frames, ends, clients that cheat."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock
from websocket_client import (
    BINARY,
    CONTINUES,
    NONCE,
    PING,
    PONG,
    TEXT,
    closing,
    frame,
    handshake,
    open_websocket,
    open_websockets,
)
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from punch.gateway import Limits
from punch.gateway.server._http1 import RequestParser
from punch.gateway.server._websocket import Ended, Messages, Text
from punch.gateway.server._websocket_cycle import CLOSE_SECONDS

LIMITS = Limits(ping=20.0, stuck=30.0)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Take every WebSocket, and say what the client says."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": json.dumps(message["text"])})


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """Take every WebSocket, and neither hear nor say anything."""
    await receive()
    await send({"type": "websocket.accept"})
    await trio.sleep_forever()


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Answer plain requests alone, with what kind they are."""
    body = json.dumps([scope["type"], scope["path"]]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": False})


# ---- handshakes ----


async def test_a_handshake_is_answered_and_messages_go_both_ways(autojump_clock: MockClock) -> None:
    """Those that are sent at once with the handshake, too."""
    async with open_websocket(echo, handshake() + frame(TEXT, b"early")) as client:
        assert client.status == 101
        assert client.headers["upgrade"] == "websocket"
        assert client.headers["connection"] == "Upgrade"
        assert "sec-websocket-extensions" not in client.headers
        assert await client.message() == "early"
        await client.send(frame(TEXT, "späť".encode()))
        assert await client.message() == "späť"
        await client.send(closing(1000, b"bye"))
        assert await client.end() == (1000, "bye")
        assert await client.event() is None


@pytest.mark.parametrize(
    "changed", [{"connection": "keep-alive, upgrade"}, {"upgrade": "WebSocket"}]
)
async def test_names_of_the_handshake_are_read_as_any_browser_writes_them(
    changed: dict[str, str], autojump_clock: MockClock
) -> None:
    """Firefox sends a list, old clients a capital letter."""
    async with open_websocket(echo, handshake(**changed)) as client:
        assert client.status == 101


@pytest.mark.parametrize("version", ["8", "0", "14", "13, 8", "", None, "thirteen"])
async def test_other_versions_are_told_which_one_there_is(
    version: str | None, autojump_clock: MockClock
) -> None:
    """426, with the version that is spoken (RFC 6455, section 4.4)."""
    async with open_websocket(echo, handshake(sec_websocket_version=version)) as client:
        assert client.status == 426
        assert client.headers["sec-websocket-version"] == "13"
        assert client.headers["connection"] == "close"


@pytest.mark.parametrize("key", ["", "short", "not base64 at all", NONCE.decode() + "AAAA", None])
async def test_a_nonce_of_any_other_form_is_refused(
    key: str | None, autojump_clock: MockClock
) -> None:
    """Sixteen bytes in base64, once."""
    async with open_websocket(echo, handshake(sec_websocket_key=key)) as client:
        assert client.status == 400


async def test_two_nonces_are_refused(autojump_clock: MockClock) -> None:
    """There is no telling which one the answer would be for."""
    twice = handshake().replace(b"\r\n\r\n", b"\r\nsec-websocket-key: " + NONCE + b"\r\n\r\n")
    async with open_websocket(echo, twice) as client:
        assert client.status == 400


@pytest.mark.parametrize(
    "data",
    [
        handshake("/elsewhere"),
        handshake(upgrade="h2c"),
        handshake(upgrade=None),
        handshake(connection="keep-alive"),
        handshake().replace(b"GET ", b"POST "),
        handshake().replace(b"HTTP/1.1", b"HTTP/1.0"),
        handshake(content_length="2") + b"{}",
    ],
    ids=["path", "h2c", "no-upgrade", "no-connection", "post", "1.0", "body"],
)
async def test_what_is_no_request_for_a_websocket_is_answered_as_a_plain_one(
    data: bytes, autojump_clock: MockClock
) -> None:
    """A server may pass over a wish for another protocol (RFC 9110, section 7.8)."""
    async with open_websocket(plain, data) as client:
        assert client.status == 200
        size = int(client.headers["content-length"])
        while len(client.rest) < size:
            client.rest += await client.stream.receive_some()
        assert json.loads(client.rest)[0] == "http"


async def test_a_path_is_read_without_its_percent_signs(autojump_clock: MockClock) -> None:
    """As for every other request."""
    async with open_websocket(echo, handshake("/ws/l%6Fgs?x=1")) as client:
        assert client.status == 101


async def test_requests_before_a_handshake_are_answered_first(autojump_clock: MockClock) -> None:
    """Frames behind it wait for their turn."""

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (echo if scope["type"] == "websocket" else plain)(scope, receive, send)

    before = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
    async with open_websocket(both, before + handshake() + frame(TEXT, b"x")) as client:
        assert client.status == 200
        data = client.rest
        while b"\x81\x03" not in data:
            data += await client.stream.receive_some()
        assert data.startswith(b'["http", "/a"]HTTP/1.1 101 ')
        assert data.endswith(b'\r\n\r\n\x81\x03"x"')


async def test_a_refusal_is_an_answer_like_any_other(autojump_clock: MockClock) -> None:
    """With its status, and the connection ends behind it."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"retry-after", b"10")]
        kind = "websocket.http.response"
        await send({"type": f"{kind}.start", "status": 503, "headers": headers})
        await send({"type": f"{kind}.body", "body": b'{"busy":', "more_body": True})
        await send({"type": f"{kind}.body", "body": b"true}", "more_body": False})

    async with open_websocket(refuse) as client:
        assert (client.status, client.headers["retry-after"]) == (503, "10")
        while part := await client.stream.receive_some():
            client.rest += part
        assert client.rest == b'8\r\n{"busy":\r\n5\r\ntrue}\r\n0\r\n\r\n'


async def test_a_close_in_the_place_of_an_answer_is_a_403(autojump_clock: MockClock) -> None:
    """ASGI says so."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    async with open_websocket(refuse) as client:
        assert client.status == 403


@pytest.mark.parametrize("accepts", [False, True])
async def test_a_bug_is_told_from_an_end(
    accepts: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A 500 before the WebSocket, the code 1011 in it."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if accepts:
            await send({"type": "websocket.accept"})
        raise ValueError("a bug")

    async with open_websocket(broken) as client:
        if accepts:
            assert (await client.end() or (0,))[0] == 1011
        else:
            assert client.status == 500
    assert "bug" in caplog.text


async def test_an_application_that_returns_ends_the_connection_well(
    autojump_clock: MockClock,
) -> None:
    """The code 1000."""

    async def short(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async with open_websocket(short) as client:
        assert await client.end() == (1000, "")


# ---- frames ----

HOSTILE = {
    "binary": (1003, [frame(BINARY, b"x")]),
    "binary-in-parts": (1003, [frame(BINARY, b"x", last=False)]),
    "unmasked": (1002, [frame(TEXT, b"x", masked=False)]),
    "reserved-bit": (1002, [frame(TEXT, b"x", reserved=4)]),
    "reserved-kind": (1002, [frame(3, b"x")]),
    "reserved-control": (1002, [frame(11, b"x")]),
    "long-ping": (1002, [frame(PING, b"x" * 126)]),
    "ping-in-parts": (1002, [frame(PING, b"x", last=False)]),
    "close-in-parts": (1002, [frame(8, b"\x03\xe8", last=False)]),
    "close-of-one-byte": (1002, [frame(8, b"\x03")]),
    "close-999": (1002, [closing(999)]),
    "close-1004": (1002, [closing(1004)]),
    "close-1005": (1002, [closing(1005)]),
    "close-1006": (1002, [closing(1006)]),
    "close-1016": (1002, [closing(1016)]),
    "close-5000": (1002, [closing(5000)]),
    "close-bad-words": (1007, [closing(1000, b"\xff")]),
    "continues-nothing": (1002, [frame(CONTINUES, b"x")]),
    "text-in-text": (1002, [frame(TEXT, b"x", last=False), frame(TEXT, b"y")]),
    "no-utf-8": (1007, [frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80")]),
    "half-a-character": (1007, [frame(TEXT, b"\xc3")]),
    "half-in-parts": (1007, [frame(TEXT, b"\xc3", last=False), frame(CONTINUES, b"\x28")]),
    "too-long": (1009, [frame(TEXT, b"x" * 4097)]),
    "too-long-in-parts": (
        1009,
        [frame(TEXT, b"x", last=False)] + [frame(CONTINUES, b"y" * 1024, last=False)] * 4,
    ),
    "said-to-be-huge": (1009, [b"\x81\xff\x7f" + b"\xff" * 7 + b"\0\0\0\0" + b"x" * 5000]),
    "length-with-a-sign": (1002, [b"\x81\xff\xff" + b"\xff" * 7 + b"\0\0\0\0"]),
    "length-in-too-many-bytes": (1002, [b"\x81\xfe\x00\x05\0\0\0\0hello"]),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_breaks_a_rule_ends_the_connection_with_its_code(
    name: str, autojump_clock: MockClock
) -> None:
    """As Autobahn's cases have them (RFC 6455, section 7.4.1); the application hears an end."""
    code, frames = HOSTILE[name]
    async with open_websocket(echo, limits=LIMITS) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, *frames)
            end = await client.end()
            assert end is not None
            assert end[0] == code
            assert await client.event() is None
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 3000, 3999, 4000, 4999])
async def test_a_close_is_answered_with_its_own_code(code: int, autojump_clock: MockClock) -> None:
    """Then the connection is closed."""
    async with open_websocket(echo) as client:
        await client.send(closing(code))
        assert await client.end() == (code, "")
        assert await client.event() is None


async def test_a_close_without_a_code_is_answered(autojump_clock: MockClock) -> None:
    """With one without a code."""
    async with open_websocket(echo) as client:
        await client.send(frame(8))
        assert await client.end() == (1005, "")


async def test_parts_of_a_message_are_joined_and_pings_may_come_between(
    autojump_clock: MockClock,
) -> None:
    """Characters may be cut; empty parts are parts."""
    parts = [frame(TEXT, b"\xc3", last=False), frame(CONTINUES, b"", last=False)]
    more = [frame(PING, b"?"), frame(CONTINUES, b"\xa4 and"), frame(TEXT, b"")]
    async with open_websocket(echo) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, *[*parts, *more])
            first, second, third = [await client.event() for _ in range(3)]
        assert isinstance(first, Pong)
        assert bytes(first.payload) == b"?"
        assert isinstance(second, TextMessage)
        assert json.loads(second.data) == "ä and"
        assert isinstance(third, TextMessage)
        assert json.loads(third.data) == ""


async def test_frames_may_come_byte_by_byte(autojump_clock: MockClock) -> None:
    """TCP promises nothing else."""
    async with open_websocket(echo) as client:
        for byte in frame(TEXT, b"slowly"):
            await client.send(bytes([byte]))
        assert await client.message() == "slowly"


async def test_a_message_of_empty_parts_takes_no_memory(autojump_clock: MockClock) -> None:
    """However many there are."""
    messages = Messages(4096)
    list(messages.feed(frame(TEXT, b"", last=False)))
    for _ in range(10_000):
        assert list(messages.feed(frame(CONTINUES, b"", last=False))) == []
    assert list(messages.feed(frame(CONTINUES, b"x"))) == [Text("x")]


@given(st.binary(max_size=300), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_messages_or_one_end(data: bytes, step: int) -> None:
    """Nothing is raised, and nothing follows the end, however the bytes are cut."""
    messages = Messages(64)
    found = [
        each
        for place in range(0, len(data), step)
        for each in messages.feed(data[place : place + step])
    ]
    ends = [each for each in found if isinstance(each, Ended)]
    assert len(ends) <= 1
    assert not ends or found[-1] is ends[0]


@given(st.lists(st.text(max_size=20), max_size=5), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_messages_come_as_they_were_sent_however_they_are_cut(said: list[str], step: int) -> None:
    """Round trips over generated texts."""
    data, messages = b"".join(frame(TEXT, text.encode()) for text in said), Messages(4096)
    cut = [data[place : place + step] for place in range(0, len(data), step)]
    assert [each for part in cut for each in messages.feed(part)] == [Text(t) for t in said]


@given(st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_a_head_may_be_cut_anywhere(step: int) -> None:
    """What stands behind it is kept for the WebSocket."""
    parser = RequestParser(4096, frozenset({"/ws/logs"}))
    data = handshake() + frame(TEXT, b"early")
    for place in range(0, len(data), step):
        parser.feed(data[place : place + step])
    (request,) = parser.requests
    assert request.is_websocket
    assert request.is_complete
    assert bytes(parser.rest) == frame(TEXT, b"early")
    assert parser.error is None


# ---- slow and silent clients, and the end of the server ----


async def test_a_client_that_answers_pings_may_be_silent_for_ever(
    autojump_clock: MockClock,
) -> None:
    """Each ping is answered, so it is there."""
    async with open_websocket(deaf, limits=LIMITS) as client:
        for _ in range(10):
            event = await client.event()
            assert isinstance(event, Ping)
            await client.send(frame(PONG, bytes(event.payload)))
        assert trio.current_time() == pytest.approx(10 * LIMITS.ping, abs=1)


async def test_a_client_that_answers_no_ping_is_lost(autojump_clock: MockClock) -> None:
    """After two of them."""
    began = trio.current_time()
    async with open_websocket(deaf, limits=LIMITS) as client:
        while await client.event() is not None:
            pass
    assert trio.current_time() - began == pytest.approx(2 * LIMITS.ping, abs=1)


async def test_a_client_that_reads_nothing_is_lost(autojump_clock: MockClock) -> None:
    """The application is told that it has gone, and its place is free."""
    ended = trio.Event()

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                assert (await receive())["type"] == "websocket.disconnect"
                ended.set()

            nursery.start_soon(until_gone)
            while not ended.is_set():
                await send({"type": "websocket.send", "text": "x" * 1000})

    async with open_websockets(flood, limits=LIMITS) as connect:
        client = connect()
        await client.begin(handshake())
        with trio.fail_after(LIMITS.stuck + 5):
            await ended.wait()


async def test_a_client_that_leaves_without_a_word_is_missed(autojump_clock: MockClock) -> None:
    """The code 1006 is for the application alone."""
    heard: list[Any] = []
    done = trio.Event()

    async def listen(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        heard.append(message["code"])
        done.set()

    async with open_websockets(listen) as connect:
        client = connect()
        await client.begin(handshake())
        await client.stream.aclose()
        await done.wait()
    assert heard == [1006]


async def test_a_client_that_never_answers_our_close_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    """The connection ends all the same, soon."""

    async def short(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000, "reason": "so"})

    async with open_websocket(short) as client:
        assert await client.end() == (4000, "so")
        began = trio.current_time()
        assert await client.event() is None
        assert trio.current_time() - began <= CLOSE_SECONDS + 0.1


async def test_a_server_that_ends_says_so_to_every_websocket(autojump_clock: MockClock) -> None:
    """The code 1001, at once; the drain waits for nobody who answers."""
    async with open_websockets(deaf) as connect:
        clients = [connect() for _ in range(3)]
        for client in clients:
            await client.begin(handshake())
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def leave(client: Any) -> None:
                end = await client.end()
                assert end is not None
                assert end[0] == 1001
                await client.send(closing(1001))

            for client in clients:
                nursery.start_soon(leave, client)
            await connect.server.drain(10.0)
        # `deaf` hears nothing of it, and is ended with its connection.
        assert trio.current_time() - began <= 10.0
        await connect.server.end()


async def test_a_flood_of_pings_is_answered_one_by_one(autojump_clock: MockClock) -> None:
    """Each when its pong was read: nothing piles up."""
    async with open_websocket(echo) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, *[frame(PING, b"%d" % n) for n in range(200)])
            for number in range(200):
                event = await client.event()
                assert isinstance(event, Pong)
                assert bytes(event.payload) == b"%d" % number


async def test_messages_that_nobody_receives_hold_the_client_back(
    autojump_clock: MockClock,
) -> None:
    """An application that reads nothing has at most two of them in memory."""
    sent = 0
    async with open_websocket(deaf) as client:
        with trio.move_on_after(10):
            while True:
                await client.send(frame(TEXT, b"x" * 4000))
                sent += 1
    assert sent < 40


async def test_what_crosses_our_close_is_dropped(autojump_clock: MockClock) -> None:
    """Then the client's own close ends it."""

    async def short(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async with open_websocket(short) as client:
        await client.send(frame(TEXT, b"late"), frame(PING, b"late"), frame(BINARY, b"late"))
        event = await client.event()
        assert isinstance(event, CloseConnection)
        await client.send(closing(1000))
        assert await client.event() is None
