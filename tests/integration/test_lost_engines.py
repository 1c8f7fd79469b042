"""Ways to lose an engine, each with two listeners: honest requests are answered all along.

An engine is lost to a grammar that explodes, a giant schema, SIGSTOP, by being well and mute, and
by computing on after a cancel. What punch would refuse before an engine sees it comes through a
door of this test alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
import trio
from integration.test_stuck_engines import SERVER, program

from punch.backends import open_embedded, open_llama_server
from punch.backends.llama import _vigil
from punch.backends.llama._served import ServedBackend
from punch.dialer import Router, chat_request
from punch.exceptions import PunchError
from punch.testing import Swarm, open_swarm
from punch.wire import CommandRequest, Sampling
from punch.wire.checks._repetition import RepetitionCheck

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts with a #! line, signals")

LIMIT = 580

# What an honest caller may be without an answer, in seconds.
MAX_GAP_SECONDS = 30.0

EXPLODES = {"type": "string", "pattern": "^((((a{0,99}){0,99}){0,99}){0,99}){0,99}$"}
GIANT = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(3000)}}

Open = Callable[[], AbstractAsyncContextManager[ServedBackend]]


@attrs.define
class Pair:
    """Two listeners with an engine each, and a dialer."""

    swarm: Swarm
    router: Router
    backends: list[ServedBackend]

    def pids(self) -> list[int]:
        """The engines' processes."""
        return [pid for one in self.backends if (pid := one.pid) is not None]

    async def well(self) -> None:
        """Wait until both engines are ready, and the dialer knows."""
        while any(one.statistics().state != "ready" for one in self.backends):
            await trio.sleep(0.1)
        await trio.sleep(1.0)


@asynccontextmanager
async def pair(opened: Open) -> AsyncIterator[Pair]:
    """Two listeners whose engines *opened* makes."""
    async with opened() as one, opened() as other, open_swarm() as swarm:
        await swarm.listener("a", one)
        await swarm.listener("b", other)
        async with swarm.router() as router:
            yield Pair(swarm, router, [one, other])


def honest(number: int) -> CommandRequest:
    """A small request that any engine answers at once."""
    sampling = Sampling(max_tokens=2, temperature=0.0)
    return chat_request(f"hello {number}", sampling=sampling, timeout=MAX_GAP_SECONDS)


def poison(schema: dict[str, Any], timeout: float) -> CommandRequest:
    """A request that takes every engine it comes to."""
    request = chat_request("Say aaaa.", sampling=Sampling(max_tokens=500), timeout=timeout)
    return attrs.evolve(request, response_schema=json.dumps(schema))


async def send(pair: Pair, request: CommandRequest) -> None:
    """Send a request whose end does not matter here."""
    try:
        await pair.router.ask(request)
    except PunchError as error:
        print("the request that takes engines ended with", error.code)


async def grammar(pair: Pair) -> None:
    """A grammar that explodes, until its caller gives up, and then one who waits."""
    await send(pair, poison(EXPLODES, 10.0))
    await send(pair, poison(EXPLODES, 90.0))


async def giant(pair: Pair) -> None:
    """A schema that takes hours to be made into a grammar; its caller gives up.

    Meanwhile the engine answers others, and it is found once nobody asks it anything.
    """
    await send(pair, poison(GIANT, 8.0))


async def stop(pair: Pair) -> None:
    """One engine is stopped, by whoever, while it has nothing to do."""
    os.kill(pair.pids()[0], signal.SIGSTOP)
    await trio.sleep(20.0)


async def word(text: str, timeout: float, pair: Pair) -> None:
    """A request with which the small program of ours is lost."""
    await send(pair, chat_request(text, timeout=timeout))


async def found(pair: Pair) -> None:
    """Wait until an engine that was lost is found so."""
    with trio.move_on_after(MAX_GAP_SECONDS):
        while not any(one.restarts for one in pair.backends):
            await trio.sleep(0.1)


async def lose(pair: Pair, way: Callable[[Pair], Awaitable[None]], times: int) -> float:
    """Ask honestly while engines are lost, and *times* afterwards; the longest time without."""
    gaps = [0.0]
    lost = trio.Event()

    async def ask(number: int) -> None:
        began = trio.current_time()
        while True:
            try:
                await pair.router.ask(honest(number))
                break
            except PunchError as error:
                # As a client's library does: what nobody could answer now is asked again.
                print("an honest request ended with", error.code)
                await trio.sleep(0.5)
        gaps.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:

        async def go() -> None:
            await way(pair)
            lost.set()

        nursery.start_soon(go)
        number = 0
        while not lost.is_set():
            number += 1
            nursery.start_soon(ask, number)
            await trio.sleep(1.0)
    await found(pair)
    await pair.well()
    for number in range(times):
        response = await pair.router.ask(honest(1000 + number))
        assert response.status == "success", number
    return max(gaps)


async def run(
    opened: Open, way: Callable[[Pair], Awaitable[None]], *, times: int, restarts: int
) -> None:
    """Lose engines in one way, and see that nothing but that request notices."""
    with trio.fail_after(LIMIT):
        async with pair(opened) as both:
            gap = await lose(both, way, times)
            counts = [one.restarts for one in both.backends]
            print(f"longest wait {gap:.1f} s, restarts {counts}")
            assert gap <= MAX_GAP_SECONDS
            assert sum(counts) >= restarts
            living = psutil.Process().children(recursive=True)
            assert living
        _, left = psutil.wait_procs(living, timeout=5)
        assert left == []


def fake(folder: Path, *extra: str) -> Open:
    """The small program of ours, which is lost to a word."""
    path = program(folder, "llama-server", SERVER)
    return partial(
        open_llama_server, program=path, model_path=folder / "m.gguf", threads=None,
        no_mmap=False, slots=2, context_tokens=1000, extra_args=extra,
    )  # fmt: skip


async def test_a_request_that_mutes_engines_takes_two_and_no_honest_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short form of what follows, with little patience."""
    monkeypatch.setattr(_vigil, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(_vigil, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(_vigil, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(_vigil, "UNKNOWN_BATCH_SECONDS", 0.0)
    await run(fake(tmp_path), partial(word, "mute", 60.0), times=20, restarts=2)


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "seconds", "extra"),
    [("mute", 40.0, ()), ("mute", 40.0, ("--no-slots",)), ("ignore", 3.0, ()),
     ("compute", 3.0, ("--no-slots",))],
)  # fmt: skip
async def test_programs_that_are_mute_or_endless(
    text: str, seconds: float, extra: tuple[str, ...], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Healthy and silent; or at work for nobody, and telling so or not."""
    # It measures no prompt, so that it would get the time of the slowest machine.
    monkeypatch.setattr(_vigil, "UNKNOWN_BATCH_SECONDS", 0.0)
    await run(fake(tmp_path, *extra), partial(word, text, seconds), times=200, restarts=1)


@pytest.mark.long
@pytest.mark.parametrize(("way", "restarts"), [(grammar, 2), (giant, 1), (stop, 1)])
@pytest.mark.parametrize("kind", ["llama_cpp", "embedded"])
async def test_real_engines(
    kind: str,
    way: Callable[[Pair], Awaitable[None]],
    restarts: int,
    model_path: Path,
    llama_cpp_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The schemas come past the bound, as those would that nobody has thought of."""
    monkeypatch.setattr(RepetitionCheck, "fault", lambda self, schema: None)
    settings: dict[str, Any] = {
        "model_path": model_path, "threads": 1, "no_mmap": False, "slots": 2,
        "context_tokens": 1024,
    }  # fmt: skip
    opened: Open = partial(open_embedded, **settings)
    if kind == "llama_cpp":
        opened = partial(open_llama_server, program=llama_cpp_folder / "llama-server", **settings)
    await run(opened, way, times=200, restarts=restarts)
