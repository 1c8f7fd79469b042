"""Peers that are punch: a listener that is its own bootstrap, and a dialer.

Both also exchange bare messages on a stream of `punch.node`, without a session: what is left
of a hop when sessions, routing and the backend are taken away.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import psutil
import trio
from _messages import Messages, reply_to, time_hops
from _processes import options, serve

from punch.backends import (
    Backend,
    Emit,
    Generation,
    MockBackend,
    MockScript,
    open_llama_server,
)
from punch.capability import Gpu, ModelOffer
from punch.executor import open_executor
from punch.node import (
    Stream,
    join_namespace,
    KnownPeers,
    new_incarnation,
    Node,
    open_bootstrap,
    open_node,
    parse_address,
)
from punch.router import Router, chat_request, open_router
from punch.wire import (
    CommandRequest,
    Completion,
    Request,
    Response,
    Sampling,
    Started,
    Timings,
    Usage,
    encode,
)

MESSAGES = "/bench/many/1"
NAMESPACE = "benchmarks"
SLOTS = 256
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


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

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Emit ``max_tokens`` tokens."""
        rate, count = request.sampling.seed, request.sampling.max_tokens
        assert rate is not None and count is not None
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
async def _backend(kind: str, settings: dict[str, Any]) -> AsyncIterator[tuple[Backend, Any]]:
    """The backend, and what the parent should know of it."""
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
            # Whoever is this user may read it there, as the parent does.
            key = psutil.Process(server.pid).environ()["LLAMA_API_KEY"]
            yield server, {"url": server.url, "key": key}


async def listen(kind: str, settings: dict[str, Any]) -> None:
    """Answer requests until told to stop."""
    async with AsyncExitStack() as stack:
        backend, about = await stack.enter_async_context(_backend(kind, settings))
        meeting = await stack.enter_async_context(open_node(listen=[LOOPBACK]))
        await stack.enter_async_context(open_bootstrap(meeting))
        node = await stack.enter_async_context(open_node(listen=[LOOPBACK]))
        node.handle(MESSAGES, _answer_messages)
        incarnation = new_incarnation()
        executor = await stack.enter_async_context(
            open_executor(
                node,
                backend,
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
                role="listener",
                incarnation=incarnation,
            )
        )
        await membership.joined.wait()

        async def sessions() -> int:
            return executor.statistics().sessions

        greeting = {"bootstrap": meeting.addresses[0], "address": node.addresses[0], "about": about}
        await serve({"sessions": sessions}, greeting=greeting)


async def _answer_messages(stream: Stream) -> None:
    messages = _messages_on(stream)
    try:
        while True:
            await reply_to(messages)
    except EOFError:
        return


def _messages_on(stream: Stream) -> Messages:
    async def read(size: int) -> bytes:
        return await stream.receive_some()

    return Messages(read, stream.send_all)


def _tiny() -> CommandRequest:
    """The smallest question: one token, in one piece."""
    return chat_request("How far is it?", stream=False, sampling=Sampling(max_tokens=1))


class Dialer:
    """Commands of the side that asks."""

    def __init__(self, node: Node, router: Router, address: str) -> None:
        self._node = node
        self._router = router
        self._address = address
        self._messages: Messages | None = None

    async def sizes(self) -> tuple[int, int]:
        """Bytes that a tiny question and its answer take on the stream."""
        request = _tiny()
        response = await self._router.ask(request)
        assert response.provenance is not None
        started = Started(request_id=request.request_id, provenance=response.provenance)
        sent = len(encode(Request(request=request))) + len("timeout") + 10
        return sent, len(encode(started)) + len(encode(Response(response=response)))

    async def hops(self, *, count: int) -> list[float]:
        """Seconds of each of *count* tiny questions, one after the other."""
        found = []
        for _ in range(count):
            began = time.perf_counter()
            await self._router.ask(_tiny())
            found.append(time.perf_counter() - began)
        return found

    async def bare_hops(self, *, count: int, request: int, reply: int) -> list[float]:
        """The same for bare messages on a stream of our own node."""
        if self._messages is None:
            peer_id = self._router.peers[0].peer_id
            stream = await self._node.open_stream(peer_id, (self._address,), MESSAGES)
            self._messages = _messages_on(stream)
        return await time_hops(self._messages, count=count, request=request, reply=reply)

    async def at_once(self, *, count: int, workers: int) -> float:
        """Seconds for *count* tiny questions by *workers* tasks."""
        left = count

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self._router.ask(_tiny())

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(work)
        return time.perf_counter() - began

    async def streams(self, *, count: int, rate: int, tokens: int) -> dict[str, Any]:
        """What became of *count* answers of *tokens* tokens each, from a `Clock`."""
        delays: list[float] = []
        faults = 0

        async def follow() -> None:
            nonlocal faults
            request = chat_request("go", sampling=Sampling(max_tokens=tokens, seed=rate))
            expected = 0
            async with self._router.answer(request) as answer:
                async for text in answer:
                    now = time.time()
                    for line in text.splitlines():
                        index, made_at = line.split()
                        faults += int(index) != expected
                        expected += 1
                        delays.append(now - float(made_at))
            faults += expected != tokens

        began, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(follow)
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "cpu": time.process_time() - cpu,
            "tokens": len(delays),
            "faults": faults,
            "delays": sorted(delays)[:: max(1, len(delays) // 1000)],
        }

    async def generate(self, *, prompt: str, tokens: int) -> dict[str, Any]:
        """Stream one answer: seconds to its first text and to its end, and its tokens."""
        sampling = Sampling(max_tokens=tokens, temperature=0.0, seed=1)
        began = time.perf_counter()
        first = None
        async with self._router.answer(chat_request(prompt, sampling=sampling)) as answer:
            async for _ in answer:
                first = first or time.perf_counter() - began
            return {
                "first": first,
                "total": time.perf_counter() - began,
                "tokens": answer.response.usage.completion_tokens,
            }


async def dial(bootstrap: str, address: str) -> None:
    """Join the namespace, and do as told."""
    async with (
        open_node() as node,
        open_router(bootstrap=bootstrap, namespace=NAMESPACE, node=node) as router,
    ):
        await router.wait_for_peers()
        dialer = Dialer(node, router, address)
        await serve(
            {
                "sizes": dialer.sizes,
                "hops": dialer.hops,
                "bare_hops": dialer.bare_hops,
                "at_once": dialer.at_once,
                "streams": dialer.streams,
                "generate": dialer.generate,
            }
        )


if __name__ == "__main__":
    role, given = options()
    if role == "listener":
        trio.run(listen, given.pop("backend"), given)
    else:
        trio.run(dial, given["bootstrap"], given["address"])
