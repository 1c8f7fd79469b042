"""A split one of whose RPC servers lies: the plan is made without it, and it is named.

The liar is a relay in front of a real server of llama.cpp, and the head is a real one: what it
makes of each lie is llama.cpp's.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from integration.test_split import LIMIT, PROMPTS, SPEEDS, dialed, laboratory, question

from punch.cluster.coordinator import PlainLender
from punch.events import PlanChanged, WorkerLost

pytestmark = pytest.mark.long

ALLOC_BUFFER = 0

# What is answered to the first request for memory; `None` ends the connection.
LIES = {
    "it has no room for what it said that it lends": struct.pack("<QQQ", 16, 0, 0),
    "it answers what is no reply": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "closed the connection": None,
}

BOUND_SECONDS = 90.0


class Liar:
    """Relays to a server, and lies once it is asked for memory."""

    def __init__(self, port: int, lie: bytes | None) -> None:
        self._port = port
        self._lie = lie
        self.times = 0

    async def serve(self, head: trio.SocketStream) -> None:
        """Relay one connection."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", self._port) as server, head:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_copy, server, head, nursery.cancel_scope.cancel)
                    await self._relay(head, server)
                    nursery.cancel_scope.cancel()

    async def _relay(self, head: trio.SocketStream, server: trio.SocketStream) -> None:
        received = b""
        while data := await head.receive_some(1 << 16):
            received += data
            while len(received) >= 9:
                command, size = struct.unpack("<BQ", received[:9])
                while len(received) < 9 + size:
                    if not (more := await head.receive_some(1 << 16)):
                        return
                    received += more
                if command == ALLOC_BUFFER:
                    self.times += 1
                    if self._lie is None:
                        return
                    await head.send_all(self._lie)
                else:
                    await server.send_all(received[: 9 + size])
                received = received[9 + size :]


async def _copy(source: trio.SocketStream, to: trio.SocketStream, over: Callable[[], None]) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some(1 << 16):
            await to.send_all(data)
    over()


@asynccontextmanager
async def lying(port: int, lie: bytes | None) -> AsyncIterator[tuple[Liar, str]]:
    """A liar in front of the server at *port*, and its address."""
    liar = Liar(port, lie)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, liar.serve, [listener])
        yield liar, f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("why", LIES)
async def test_a_server_that_ends_its_head_is_planned_without(
    why: str, llama_cpp_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    """It runs, it is there, and whoever asks it who it is is answered."""
    with trio.fail_after(LIMIT):
        async with (
            laboratory(2, llama_cpp_folder, model_path, tmp_path) as lab,
            lying(lab.servers[1].port, LIES[why]) as (liar, address),
        ):
            lab._lenders[1] = PlainLender(address, speeds=SPEEDS)
            began = trio.current_time()
            async with lab.backend() as backend, dialed(backend) as router:
                assert (await router.ask(question(PROMPTS[0], tokens=4))).text
                assert trio.current_time() - began < BOUND_SECONDS
                assert liar.times >= 1
                (lost,) = lab.of(WorkerLost)
                assert isinstance(lost, WorkerLost)
                assert (lost.worker, why in lost.why) == (address, True)
                plans = [one for one in lab.of(PlanChanged) if isinstance(one, PlanChanged)]
                assert [len(one.layers) for one in plans] == [2, 1]
