"""A punch listener that is its own bootstrap, as ``python -m punch.listener`` alone is.

It also answers bare messages on a stream of `punch.network`, without a session: what is left of a
hop when sessions, routing and the backend are taken away.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import psutil
import trio
from _messages import MANY, Messages, reply_to
from _processes import options, serve

from punch.backends import (
    Backend,
    Emit,
    Generation,
    Loading,
    MockBackend,
    MockScript,
    open_llama_server,
)
from punch.bootstrap import open_bootstrap
from punch.capability import Gpu, ModelOffer
from punch.discovery import KnownPeers, join_namespace, new_incarnation
from punch.libp2p import open_node
from punch.listener import open_executor
from punch.network import Stream, parse_address
from punch.wire import CommandRequest, Completion, Timings, Usage

NAMESPACE = "benchmarks"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"

# More than any measurement asks at once: queues are not what is measured.
SLOTS = 256


class Clock:
    """A backend whose tokens say their number and when they were made.

    ``seed`` of the request is its tokens per second. It begins at a random moment, so that
    many answers do not have their tokens at the same time.
    """

    name = "clock"
    simulated = True
    slots = SLOTS
    threads: int | None = None
    offers = (ModelOffer(name="clock"),)
    gpus: tuple[Gpu, ...] = ()

    def __init__(self) -> None:
        self._rng = Random()

    async def ready(self, loading: Loading) -> None:
        """It always is."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Emit ``max_tokens`` tokens."""
        rate, count = request.sampling.seed, request.sampling.max_tokens
        assert rate is not None
        assert count is not None
        first = trio.current_time() + self._rng.random() / rate
        for index in range(count):
            await trio.sleep_until(first + index / rate)
            # Time of day: the only clock that two processes are sure to share.
            await emit(f"{index} {time.time():.6f}\n", 1)
        return Generation(
            completion=Completion(finish_reason="length"),
            usage=Usage(completion_tokens=count),
            timings=Timings(),
        )


@asynccontextmanager
async def _open_backend(kind: str, settings: dict[str, Any]) -> AsyncIterator[tuple[Backend, Any]]:
    """The backend, and how to ask its server directly, if it has one."""
    if kind == "mock":
        yield MockBackend(MockScript(slots=SLOTS)), None
    elif kind == "clock":
        yield Clock(), None
    else:
        async with open_llama_server(
            program=settings["program"],
            model_path=settings["model"],
            threads=settings["threads"],
            no_mmap=False,
            slots=1,
            context_tokens=1024,
        ) as server:
            assert server.pid is not None
            # Every process of this user may read it there.
            key = psutil.Process(server.pid).environ()["LLAMA_API_KEY"]
            yield server, {"url": server.url, "key": key}


async def listen(*, backend: str, **settings: Any) -> None:
    """Answer requests until told to stop."""
    async with AsyncExitStack() as stack:
        runs, about = await stack.enter_async_context(_open_backend(backend, settings))
        meeting = await stack.enter_async_context(open_node(listen=[LOOPBACK]))
        await stack.enter_async_context(open_bootstrap(meeting))
        node = await stack.enter_async_context(open_node(listen=[LOOPBACK]))
        node.handle(MANY, _answer_messages)
        incarnation = new_incarnation()
        executor = await stack.enter_async_context(
            open_executor(
                node,
                runs,
                namespace=NAMESPACE,
                incarnation=incarnation,
                queue_limit=SLOTS,
                calibrate=False,
            )
        )
        membership = await stack.enter_async_context(
            join_namespace(
                node,
                parse_address(meeting.addresses[0]),
                known=KnownPeers(None),
                namespace=NAMESPACE,
                roles={"listener"},
                incarnation=incarnation,
            )
        )
        await membership.joined.wait()

        async def sessions() -> int:
            return executor.statistics().sessions

        greeting = {
            "bootstrap": meeting.addresses[0],
            "namespace": NAMESPACE,
            "address": node.addresses[0],
            "server": about,
        }
        await serve({"sessions": sessions}, greeting=greeting)


async def _answer_messages(stream: Stream) -> None:
    async def read(size: int) -> bytes:
        return await stream.receive_some()

    messages = Messages(read, stream.send_all)
    try:
        while True:
            await reply_to(messages)
    except EOFError:
        return


async def main() -> None:
    """Listen as the parent says."""
    await listen(**options())


if __name__ == "__main__":
    trio.run(main)
