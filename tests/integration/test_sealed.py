"""The layer that carries a connection's bytes: whose writes end when, and what is never lost."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from punch.libp2p._sealed import SealedPipe

FULL = b"x" * (1 << 20)


class Plain:
    """Noise that hides nothing."""

    def encrypt(self, data: bytes) -> bytes:
        """What goes out."""
        return data

    def decrypt(self, data: bytes) -> bytes:
        """What came in."""
        return data


def pipe_over(sock: socket.socket, nursery: trio.Nursery, rest: bytes = b"") -> SealedPipe:
    """A pipe over *sock*, whose handshake had read *rest* already."""
    sock.setblocking(False)
    stream = SimpleNamespace(
        stream=SimpleNamespace(socket=trio.socket.from_stdlib_socket(sock)), _rest=rest
    )
    closer = SimpleNamespace(read_write_closer=SimpleNamespace(stream=stream))
    conn = SimpleNamespace(read_writer=closer, noise_state=Plain())
    return SealedPipe(SimpleNamespace(conn=conn, _drain=lambda _: b""), nursery)


def record(data: bytes) -> bytes:
    """One record of *data*."""
    return len(data).to_bytes(2, "big") + data


@pytest.fixture
def sockets() -> Any:
    """Both ends of a connection."""
    near, far = socket.socketpair()
    with near, far:
        far.setblocking(False)
        yield near, far


async def test_a_write_ends_when_its_own_bytes_are_gone(sockets: Any) -> None:
    """Whatever others put meanwhile: one who writes without a pause holds up nobody."""
    near, far = sockets
    reader = trio.socket.from_stdlib_socket(far)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            pipe = pipe_over(near, nursery)
            pipe.put(FULL)

            async def others() -> None:
                while True:
                    pipe.put(b"x" * 60_000)
                    await pipe.sent()

            async def read() -> None:
                while await reader.recv(4096):
                    await trio.lowlevel.checkpoint()

            for _ in range(3):
                nursery.start_soon(others)
            nursery.start_soon(read)
            pipe.put(b"a word")
            await pipe.sent()
            assert pipe.unsent, "the others have something to send all the time"
            nursery.cancel_scope.cancel()
            trio.lowlevel.notify_closing(near)
            near.close()


async def test_what_came_with_the_handshake_is_there_at_once(sockets: Any) -> None:
    """Nothing more has to come before it is read, and its end may come right after."""
    near, far = sockets
    far.shutdown(socket.SHUT_WR)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            pipe = pipe_over(near, nursery, record(b"early") + record(b"words")[:4])
            assert await pipe.receive() == b"early"
            assert await pipe.receive() == b""


async def test_last_words_are_sent_though_all_is_cancelled(sockets: Any) -> None:
    """Where the system did not take everything when a program was told to end."""
    near, far = sockets
    reader = trio.socket.from_stdlib_socket(far)
    received = 0

    async def read() -> None:
        nonlocal received
        while data := await reader.recv(1 << 16):
            received += len(data)

    with trio.fail_after(20):
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as nursery:
                pipe = pipe_over(near, nursery)
                pipe.put(FULL)
                assert pipe.unsent
                nursery.cancel_scope.cancel()
                outer.start_soon(read)
            # The connection's own tasks are over: whoever speaks sends it now.
            pipe.put(FULL)
            with trio.CancelScope(shield=True):
                await pipe.sent()
            near.close()
    assert received > 2 * len(FULL)
