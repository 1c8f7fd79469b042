"""What tunnels of the tests lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

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
