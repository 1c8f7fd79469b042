"""What our own server sees of a client: that it leaves, that it waits, that it takes its time."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
import trio
from gateway_client import open_client
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.gateway import Limits
from punch.gateway.server._pipe import WRITE_BYTES, ClientPipe
from punch.gateway.server._server import Server

CHAT = "/v1/chat/completions"


def request(**fields: Any) -> bytes:
    body = {"messages": [{"role": "user", "content": "tell me"}], "max_tokens": 2} | fields
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of one connection, which the system carries."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    for each in (ours, theirs):
        each.setblocking(False)
    ends = [trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in (ours, theirs)]
    return ends[0], ends[1]


async def until(stream: trio.SocketStream, end: bytes) -> bytes:
    found = b""
    while end not in found and (data := await stream.receive_some(65536)):
        found += data
    return found


async def test_a_silent_stream_is_commented_on(autojump_clock: MockClock) -> None:
    """Each five seconds, and no more once the answer is there."""
    async with open_client({"a": MockBackend(MockScript(delay=12.0))}) as client:
        async with trio.open_nursery() as nursery:
            server = Server(client.app, Limits())
            nursery.start_soon(server.sweep)
            ours, theirs = connected()
            nursery.start_soon(server.connected, ours)
            await theirs.send_all(request(stream=True))
            said = await until(theirs, b"[DONE]")
            await trio.sleep(20)
            await theirs.send_all(request())
            said_next = await until(theirs, b'"usage"')
            await theirs.aclose()
            nursery.cancel_scope.cancel()
    assert said.count(b"\n: ") == 2
    assert said_next.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_work_for_a_client_that_leaves_ends_with_it(
    stream: bool, autojump_clock: MockClock
) -> None:
    """It is told as what it is, and the connection ends."""
    async with open_client({"a": MockBackend(MockScript(delay=100.0))}) as client:
        async with trio.open_nursery() as nursery:
            server = Server(client.app, Limits())
            nursery.start_soon(server.sweep)
            ours, theirs = connected()
            nursery.start_soon(server.connected, ours)
            await theirs.send_all(request(stream=stream))
            await trio.sleep(8)
            await theirs.aclose()
            left_at = trio.current_time()
            while server.connections:
                await trio.sleep(0.01)
            assert trio.current_time() - left_at < 0.2
            nursery.cancel_scope.cancel()
        assert client.seen.words[0] == "began"
        assert client.seen.words.count("ended") == 1
        assert client.seen.last.error_code == "disconnected"
        assert client.swarm.listeners["a"].capability().load.busy == 0


async def test_what_the_system_does_not_take_at_once_follows_in_order() -> None:
    """Two that write at once mix no bytes, however slowly they are read."""
    ours, theirs = connected()
    ours.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pipe = ClientPipe(ours, stuck=30.0)
    first, second = b"a" * 3 * WRITE_BYTES, b"b" * 2 * WRITE_BYTES
    taken: list[bool] = []

    async def write(data: bytes) -> None:
        taken.append(await pipe.write(data))

    found = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(write, second)
        while len(found) < len(first) + len(second):
            found += await theirs.receive_some(10_000)
    assert found == first + second
    assert taken == [True, True]
    await ours.aclose()
    await theirs.aclose()


async def test_a_part_that_was_begun_is_sent_to_its_end_by_a_cancelled_writer() -> None:
    """Half of it would make all that follows unreadable."""
    ours, theirs = connected()
    pipe = ClientPipe(ours, stuck=30.0)
    data = b"x" * 40 * WRITE_BYTES
    found = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.write, data)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            while len(found) < len(data):
                found += await theirs.receive_some(WRITE_BYTES)
    assert found == data
    await ours.aclose()
    await theirs.aclose()


async def test_a_client_that_takes_nothing_is_told_from_one_that_left(
    autojump_clock: MockClock,
) -> None:
    """The first is waited for as long as it may take, the second not at all."""
    ours, theirs = connected()
    pipe = ClientPipe(ours, stuck=30.0)
    assert not await pipe.write(b"x" * 100 * WRITE_BYTES)
    assert trio.current_time() >= 30.0
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await pipe.write(b"x")
    await ours.aclose()


async def test_a_client_that_sent_much_ahead_is_missed_at_its_next_request(
    autojump_clock: MockClock,
) -> None:
    """What it sent is read on as soon as there is room for it."""
    more = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: %b\r\n\r\n" % (b"a" * 8000)
    async with open_client({"a": MockBackend(MockScript(delay=10.0))}) as client:
        async with trio.open_nursery() as nursery:
            server = Server(client.app, Limits())
            ours, theirs = connected()
            nursery.start_soon(server.connected, ours)
            await theirs.send_all(request())
            await trio.sleep(1)
            await theirs.send_all(request() + 10 * more)
            await until(theirs, b'"usage"')
            await trio.sleep(2)
            assert len(client.app.service.live.under_way) == 1
            await theirs.aclose()
            await trio.sleep(0.2)
            assert server.connections == 0
            nursery.cancel_scope.cancel()
    assert client.seen.last.error_code == "disconnected"


async def answering(app: Any, said: bytes) -> bytes:
    """What a client that sends *said* and no more gets of *app*, over a real connection."""
    async with trio.open_nursery() as nursery:
        ours, theirs = connected()
        nursery.start_soon(Server(app, Limits()).connected, ours)
        await theirs.send_all(said)
        await theirs.send_eof()
        found = await until(theirs, b"never")
        await theirs.aclose()
    return found


async def test_a_client_that_has_said_all_and_waits_is_answered() -> None:
    """It has shut its half of the connection: for each of its requests, however long it takes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for last in (False, True):
            await trio.lowlevel.checkpoint()
            body = scope["path"].encode()
            await send({"type": "http.response.body", "body": body, "more_body": not last})

    one, two = (b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % name for name in (b"a", b"b"))
    assert (await answering(app, one)).count(b"/a") == 2
    both = await answering(app, one + two)
    assert (both.count(b"/a"), both.count(b"/b")) == (2, 2)


async def test_an_application_that_waits_for_the_rest_of_a_body_hears_that_none_comes() -> None:
    """Of half a request there is no more; nobody waits for it."""
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            heard.append(message["body"])

    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
    with trio.fail_after(5):
        await answering(app, head + b"half")
    assert heard == [b"half"]


async def test_a_client_that_has_all_of_an_answer_and_leaves_is_not_taken_for_lost() -> None:
    """Its end comes while the last bytes are given to the system, or right after."""
    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        watch = scope["punch.watch"]
        watch.end_with_client(trio.sleep_forever)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * (3 << 20)})
        await trio.lowlevel.checkpoint()
        found.append(watch.is_lost)

    for _ in range(10):
        async with trio.open_nursery() as nursery:
            ours, theirs = connected()
            nursery.start_soon(Server(app, Limits()).connected, ours)
            await theirs.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            took = 0
            while took < 3 << 20:
                took += len(await theirs.receive_some(1 << 20))
            await theirs.aclose()
    assert found == [False] * 10
