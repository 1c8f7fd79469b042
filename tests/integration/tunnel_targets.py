"""What tunnels of the tests lead to."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio
from integration.programs import Program

HERE = "127.0.0.1"

Serve = Callable[[trio.SocketStream], Awaitable[None]]


def show(what: str, found: object) -> None:
    """For who reads the figures: `-s`."""
    print(f"\n{what}: {found}")


async def echo(stream: trio.SocketStream) -> None:
    """Give back what came, and the end after it."""
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


@asynccontextmanager
async def open_target(serve: Serve) -> AsyncIterator[int]:
    """A program on a port of loopback."""

    async def each(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                await serve(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HERE)
        nursery.start_soon(trio.serve_listeners, each, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.SocketStream) -> bytes:
    """Until its end."""
    return b"".join([data async for data in stream])


# ---- for programs, without trio ----


@contextmanager
def open_echo() -> Iterator[int]:
    """A program on a port of loopback that gives back what it gets; its port."""
    with socket.create_server((HERE, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                with one:
                    while data := one.recv(1000):
                        one.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def port_of(program: Program) -> int:
    """The port of loopback that a tunnel says it listens at."""
    program.wait_out("leads to")
    return int(program.out.partition(":")[2].partition(" ")[0])


def echoed(port: int) -> bytes:
    """What comes back through a port; nothing if nobody listens, or the connection breaks off."""
    try:
        with socket.create_connection((HERE, port), timeout=10) as stream:
            stream.sendall(b"hello")
            stream.shutdown(socket.SHUT_WR)
            return stream.recv(100)
    except ConnectionError:
        return b""
