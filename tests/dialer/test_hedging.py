"""A second peer beside a late one, over a network in memory."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript, mock_words
from punch.dialer import Hedge, chat_request
from punch.testing import ScriptedBackend, Swarm
from punch.wire import CommandRequest, Sampling


async def late(swarm: Swarm, name: str, seconds: float) -> None:
    """A listener that thinks for so long before its first word."""
    await swarm.listener(name, MockBackend(MockScript(delay=seconds, decode_rate=100.0)))


async def test_without_being_asked_for_nothing_is_hedged(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A request for nothing is somebody's electricity, if an answer is only a little late."""
    await late(swarm, "a", 5.0)
    await late(swarm, "b", 5.0)
    async with swarm.router() as router:
        response = await router.ask(chat_request("hello"))
    total = [e.statistics() for e in swarm.listeners.values()]
    assert sum(s.served + s.cancelled for s in total) == 1
    assert response.attempts == ()


async def test_the_quicker_of_two_answers_and_the_other_stops(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whole and once: the loser is cancelled, and is not blamed."""
    request = chat_request("hello", sampling=Sampling(max_tokens=10))
    await late(swarm, "slow", 30.0)
    async with swarm.router(hedge=Hedge(least=1.0)) as router:
        async with router.answer(request) as answer:
            async with trio.open_nursery() as nursery:

                async def arrive() -> None:
                    await trio.sleep(0.2)
                    await late(swarm, "quick", 0.1)

                nursery.start_soon(arrive)
                began = trio.current_time()
                while await answer.receive() is not None:
                    pass
                took = trio.current_time() - began
        await trio.sleep(0.2)
        losers = swarm.listeners["slow"].statistics()
        (slow,) = (p for p in router.peers if p.peer_id == "slow")
    assert answer.text == " ".join(mock_words(request))
    assert took < 3.0
    assert answer.response.executor == "quick"
    assert (losers.busy, losers.cancelled) == (0, 1)
    assert (slow.failures, slow.in_flight) == (0, 0)
    assert len(answer.segments) == 1


async def test_a_late_first_peer_may_still_win(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Then the second one stops."""
    await late(swarm, "a", 2.0)
    await late(swarm, "b", 2.0)
    async with swarm.router(hedge=Hedge(least=1.0)) as router:
        response = await router.ask(chat_request("hello"))
        await trio.sleep(0.2)
        statistics = [e.statistics() for e in swarm.listeners.values()]
    assert response.status == "success"
    assert sorted((s.served, s.cancelled) for s in statistics) == [(0, 1), (1, 0)]


async def test_hedges_stay_within_their_budget(autojump_clock: MockClock, swarm: Swarm) -> None:
    """A twentieth of the requests, and one to begin with."""
    asked = 0

    async def think(request: CommandRequest, emit: Emit) -> Generation:
        nonlocal asked
        asked += 1
        await trio.sleep(2.0)
        return await ScriptedBackend().generate(request, emit)

    for name in "ab":
        await swarm.listener(name, ScriptedBackend(think, slots=8))
    async with swarm.router(hedge=Hedge(least=1.0, share=0.05)) as router:
        for _ in range(40):
            await router.ask(chat_request("hello"))
    assert 41 <= asked <= 43


async def test_the_failure_of_one_leaves_the_other_alone(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It was asked beside it, so nobody else has to be."""
    request = chat_request("hello", sampling=Sampling(max_tokens=5))
    await late(swarm, "a", 4.0)
    await late(swarm, "b", 4.0)
    async with swarm.router(hedge=Hedge(least=1.0)) as router:
        async with router.answer(request) as answer, trio.open_nursery() as nursery:

            async def kill_the_first() -> None:
                await trio.sleep(2.0)
                swarm.kill(str(answer.decisions[0].chosen_peer))

            nursery.start_soon(kill_the_first)
            while await answer.receive() is not None:
                pass
    assert answer.text == " ".join(mock_words(request))
    assert len(answer.decisions) == 2
    assert [a.error.code for a in answer.attempts] == ["unreachable"]
