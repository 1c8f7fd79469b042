"""A punch dialer, and what a measurement may have it ask."""

from __future__ import annotations

import time
from typing import Any

import trio
from _messages import MANY, Messages, time_hops
from _processes import options, serve

from punch.dialer import Router, chat_request, open_router
from punch.libp2p import open_node
from punch.network import Node, Stream
from punch.wire import CommandRequest, Request, Response, Sampling, Started, encode


def _messages_on(stream: Stream) -> Messages:
    async def read(size: int) -> bytes:
        return await stream.receive_some()

    return Messages(read, stream.send_all)


def _tiny(*, timeout: float | None = None) -> CommandRequest:
    """The smallest question: one token, in one piece."""
    sampling = Sampling(max_tokens=1)
    return chat_request("How far is it?", stream=False, sampling=sampling, timeout=timeout)


class Dialer:
    """Commands of the side that asks."""

    def __init__(self, node: Node, router: Router, address: str) -> None:
        self._node = node
        self._router = router
        self._address = address
        self._messages: Messages | None = None

    async def sizes(self) -> tuple[int, int]:
        """Bytes that a tiny question and its answer take on the stream."""
        request = _tiny(timeout=1.0)  # The router always sends one.
        response = await self._router.ask(request)
        assert response.provenance is not None
        started = Started(request_id=request.request_id, provenance=response.provenance)
        back = len(encode(started)) + len(encode(Response(response=response)))
        return len(encode(Request(request=request))), back

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
            stream = await self._node.open_stream(peer_id, (self._address,), MANY)
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
            total = time.perf_counter() - began
        response = answer.response
        return {
            "first": first,
            "total": total,
            "tokens": response.usage.completion_tokens,
            "on_listener": response.timings.first_token,
        }


async def dial(*, bootstrap: str, namespace: str, address: str) -> None:
    """Join the namespace, and do as told."""
    async with (
        open_node() as node,
        open_router(bootstrap=bootstrap, namespace=namespace, node=node) as router,
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


async def main() -> None:
    """Dial as the parent says."""
    await dial(**options())


if __name__ == "__main__":
    trio.run(main)
