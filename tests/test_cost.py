"""What a hop and a token cost, counted and not timed: who adds a tenth hears of it here.

A count does not depend on the machine or on what else it does. It is taken on the network in
memory, both sides together, without libp2p, whose share is not ours; `benchmarks/hop.py` times
all of it.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

import attrs
import pytest
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.dialer import Router, chat_request
from punch.testing import Swarm
from punch.wire import Sampling

# What is counted may grow or shrink by this much before somebody has to say so below: more is a
# cost to win back, less is a gain to keep.
SLACK = 0.1

WARM_UP = 30
HOPS = 25


@attrs.frozen
class Cost:
    """What was counted."""

    calls: int
    """Functions called, those written in C included."""

    objects: int
    """Objects that the collector watches over, allocated between one call or return and the
    next; those that were gone again by then, or came from a list of free ones, are not seen."""


# With Python 3.11; later ones call a little less.
HOP = Cost(calls=1574, objects=566)
TOKEN = Cost(calls=622, objects=134)


class Counter:
    """Counts what happens while it runs; made by `counting`."""

    def __init__(self) -> None:
        self._calls = self._objects = self._before = 0

    def event(self, frame: FrameType, event: str, argument: object) -> None:
        """Take note of a call or a return."""
        del frame, argument
        now = gc.get_count()[0]
        if now > self._before:
            # The frame of a function is an object only because it is looked at here.
            self._objects += now - self._before - (event == "call")
        self._before = now
        if event in ("call", "c_call"):
            self._calls += 1

    def begin(self) -> None:
        """Count from here."""
        self._before = gc.get_count()[0]

    @property
    def cost(self) -> Cost:
        """What was counted."""
        return Cost(calls=self._calls, objects=self._objects)


@contextmanager
def counting() -> Iterator[Counter]:
    """Count what all tasks of this thread do."""
    counter = Counter()
    before, collects = sys.getprofile(), gc.isenabled()
    # A collection would begin the count of objects anew.
    gc.collect()
    gc.disable()
    counter.begin()
    sys.setprofile(counter.event)
    try:
        yield counter
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()


async def usual(what: Callable[[], Awaitable[object]]) -> Cost:
    """The cost of *what*: the median of many, since now and then a heartbeat falls into one."""
    for _ in range(WARM_UP):
        await what()
    costs = []
    for _ in range(HOPS):
        with counting() as counter:
            await what()
        costs.append(counter.cost)
    return Cost(
        calls=round(statistics.median(cost.calls for cost in costs)),
        objects=round(statistics.median(cost.objects for cost in costs)),
    )


def check(found: Cost, recorded: Cost) -> None:
    """Fail if it is dearer by a tenth, or so much cheaper that the record is to be lowered."""
    for name, number in attrs.asdict(found).items():
        before = getattr(recorded, name)
        assert number <= before * (1 + SLACK), f"{number} {name}, where {before} were enough"
        assert number >= before * (1 - SLACK), (
            f"only {number} {name}: write that in place of {before}"
        )


async def meet(swarm: Swarm, router: Router, tokens_a_second: float | None = None) -> None:
    """Start a listener, and wait until it is known."""
    await swarm.listener("a", MockBackend(MockScript(slots=4, decode_rate=tokens_a_second)))
    await router.wait_for_peers(lambda peers: len(peers) == 1)


async def hop(router: Router) -> None:
    """A question to the one peer there is, and its answer of one token in one piece."""
    sampling = Sampling(max_tokens=1)
    await router.ask(chat_request("How far is it?", stream=False, sampling=sampling))


async def test_a_hop_costs_no_more_than_it_did(swarm: Swarm, autojump_clock: MockClock) -> None:
    """There and back."""
    async with swarm.router() as router:
        await meet(swarm, router)
        check(await usual(partial(hop, router)), HOP)


async def test_a_token_that_comes_alone_costs_no_more_than_it_did(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Every further token of a streamed answer that comes token by token."""

    async def answer(tokens: int) -> None:
        request = chat_request("Count.", sampling=Sampling(max_tokens=tokens))
        async with router.answer(request) as answer:
            parts = [part async for part in answer]
        assert len(parts) == tokens

    async with swarm.router() as router:
        await meet(swarm, router, tokens_a_second=20.0)
        few, many = [await usual(partial(answer, tokens)) for tokens in (8, 24)]
        found = Cost(
            calls=round((many.calls - few.calls) / 16),
            objects=round((many.objects - few.objects) / 16),
        )
        check(found, TOKEN)


async def test_a_count_sees_what_is_added(swarm: Swarm, autojump_clock: MockClock) -> None:
    """An eighth more calls, and it fails."""
    async with swarm.router() as router:
        await meet(swarm, router)

        async def dearer() -> None:
            await hop(router)
            for _ in range(found.calls // 8):
                abs(1)

        found = await usual(partial(hop, router))
        with pytest.raises(AssertionError, match="calls, where"):
            check(await usual(dearer), found)
