"""llama.cpp's RPC server: asked, started, bounded and ended; real programs and sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from punch.exceptions import BackendError
from punch.llama_cpp import RpcDevice, RpcFacts, RpcVersion, rpc_hello

LIMIT = 120

HELLO = struct.pack("<BQ", 14, 24) + bytes(24)
HELLO_7 = struct.pack("<Q", 28) + bytes((7, 0, 0)).ljust(28, b"\0")
TWO_DEVICES = (
    struct.pack("<QI", 4, 2)
    + struct.pack("<QQQ", 16, 5 << 30, 8 << 30)
    + struct.pack("<QQQ", 16, 9 << 30, 7 << 30)
)

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@pytest.fixture(autouse=True)
async def a_limit() -> AsyncIterator[None]:
    """No test of this file waits for ever."""
    with trio.fail_after(LIMIT):
        yield


@asynccontextmanager
async def fake_server(serve: Serve) -> AsyncIterator[int]:
    """A port on loopback on which *serve* gets the connections, one after the other."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def accept() -> None:
        while True:
            stream = await listener.accept()
            async with stream:
                await serve(stream)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def answering(data: bytes) -> Serve:
    """Answers *data* to the first bytes, and waits for the end."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)
        with trio.move_on_after(5):
            async for _ in stream:
                pass

    return serve


# ---- hello, in front of what answers something else ----


async def test_hello_tells_version_and_devices() -> None:
    """Free memory is never told as more than there is."""
    async with fake_server(answering(HELLO_7 + TWO_DEVICES)) as port:
        assert await rpc_hello("127.0.0.1", port) == RpcFacts(
            version=RpcVersion(7, 0, 0),
            devices=(
                RpcDevice(total_bytes=8 << 30, free_bytes=5 << 30),
                RpcDevice(total_bytes=7 << 30, free_bytes=7 << 30),
            ),
        )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers something else: it answers"),
        (struct.pack("<Q", 2**63), f"it answers {2**63} bytes, and not 4096 at most"),
        (struct.pack("<Q", 2) + b"\7\0", "its hello has 2 bytes, and not 3 or more"),
        (HELLO_7 + struct.pack("<QI", 4, 1000), "it has 1000 devices, and not 64 at most"),
        (HELLO_7 + struct.pack("<Q", 3) + b"abc", "an answer has 3 bytes, and not 4"),
    ],
)
async def test_hello_says_what_is_wrong_with_garbage(data: bytes, words: str) -> None:
    """At once, not when its patience is over."""
    async with fake_server(answering(data)) as port:
        with trio.fail_after(5), pytest.raises(BackendError) as caught:
            await rpc_hello("127.0.0.1", port, patience=60)
    assert words in str(caught.value)
    assert "no RPC server of llama.cpp" in str(caught.value)


async def test_hello_says_that_the_connection_was_closed() -> None:
    """As a server does that speaks another version."""

    async def close(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with fake_server(close) as port:
        with pytest.raises(BackendError, match="closed the connection"):
            await rpc_hello("127.0.0.1", port)


async def test_hello_says_that_nobody_listens() -> None:
    """The port was somebody's a moment ago."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(BackendError, match=f"127.0.0.1:{port} cannot be reached"):
        await rpc_hello("127.0.0.1", port)


async def test_a_hello_that_was_begun_is_never_abandoned() -> None:
    """The caller gets its error in time; the server finds its client there, however late it is."""
    told = trio.Event()
    got: list[bytes] = []
    ended = trio.Event()

    async def late(stream: trio.SocketStream) -> None:
        await told.wait()
        got.append(await stream.receive_some())
        for number in range(3):  # Each is a write of its own, as llama.cpp does it.
            await stream.send_all(HELLO_7[number * 12 : number * 12 + 12])
            await trio.sleep(0.05)
        got.append(await stream.receive_some())
        ended.set()

    async with fake_server(late) as port:
        with trio.fail_after(5), pytest.raises(BackendError, match="answers nothing"):
            await rpc_hello("127.0.0.1", port, patience=0.2)
        with trio.move_on_after(0.1) as cancelled:
            await rpc_hello("127.0.0.1", port, patience=60)
        assert cancelled.cancelled_caught
        told.set()
        await ended.wait()
    assert got[:2] == [HELLO, b""]


async def test_hellos_that_nobody_answers_are_bounded() -> None:
    """A server that hangs for ever would otherwise hold a descriptor for every question."""
    end = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        await end.wait()

    async with fake_server(silent) as port:
        said = []
        for _ in range(20):
            with pytest.raises(BackendError) as caught:
                await rpc_hello("127.0.0.1", port, patience=0.02)
            said.append("others have not answered yet" in str(caught.value))
        end.set()
    assert 14 <= said.index(True) <= 16
    for _ in range(100):
        await trio.sleep(0.01)
        with pytest.raises(BackendError) as caught:
            await rpc_hello("127.0.0.1", port, patience=0.02)
        if "cannot be reached" in str(caught.value):
            return
    raise AssertionError(str(caught.value))
