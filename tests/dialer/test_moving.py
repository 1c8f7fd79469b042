"""Requests that leave a queue for a peer that would be done earlier, in virtual time."""

from __future__ import annotations

import attrs
import trio
from answers import text_of
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript, mock_words
from punch.dialer import Router, chat_request
from punch.routing import POLICIES
from punch.testing import Swarm
from punch.wire import CommandRequest, Sampling

# No lot and no exploring: the best is asked.
SETTLED = attrs.evolve(POLICIES["completion-time"], near=0.0, explore=0.0)


def slow(rate: float = 10.0) -> MockBackend:
    return MockBackend(MockScript(decode_rate=rate, slots=1))


async def learn(swarm: Swarm, router: Router) -> None:
    """Let the dialer and the listeners know how long an answer takes."""
    async with trio.open_nursery() as nursery:
        for number in range(2 * len(swarm.listeners)):
            nursery.start_soon(router.ask, question(f"before {number}"))


def question(text: str) -> CommandRequest:
    return chat_request(text, sampling=Sampling(max_tokens=20))


async def test_a_request_that_queues_moves_to_a_peer_that_is_free(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Two dialers chose the same peer at the same moment; one of them finds the other peer."""
    asked = question("where to?")
    for name, rate in (("a", 12.0), ("b", 10.0)):
        await swarm.listener(name, slow(rate))
    async with (
        swarm.router("one", policy=SETTLED) as one,
        swarm.router("two", policy=SETTLED) as two,
    ):
        for router in (one, two):
            await learn(swarm, router)
        await trio.sleep(2.0)
        # Both see two idle peers, and go to the better one.
        seen: list[float] = []

        async def ask(router: Router) -> None:
            began = trio.current_time()
            response = await router.ask(asked)
            seen.append(trio.current_time() - began)
            assert text_of(response) == " ".join(mock_words(asked))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, one)
            nursery.start_soon(ask, two)
        served = [e.statistics().served for e in swarm.listeners.values()]
    assert max(seen) < 3.0, "one waited for the other"
    assert sum(served) == 10


async def test_nobody_leaves_a_queue_for_a_longer_one(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Where all are full, a request stays where it is."""
    for name in "ab":
        await swarm.listener(name, slow())
    async with swarm.router() as router:
        await learn(swarm, router)
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(router.ask, question(f"all {number}"))
    total = [e.statistics() for e in swarm.listeners.values()]
    assert sum(s.cancelled for s in total) == 0
    assert [s.served for s in total] == [6, 6]


async def test_a_policy_that_predicts_nothing_moves_nobody(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Turns are no seconds."""
    for name in "ab":
        await swarm.listener(name, slow())
    async with swarm.router(policy="round-robin") as router:
        await learn(swarm, router)
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(router.ask, question(f"all {number}"))
    assert sum(e.statistics().cancelled for e in swarm.listeners.values()) == 0
