"""A request under which two engines died goes to no third one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.capability import ModelOffer
from punch.dialer import Hedge, chat_request
from punch.exceptions import BackendCrashed, EnginesDied, NoPeerAvailable
from punch.testing import ScriptedBackend, Swarm
from punch.wire import CommandRequest, Completion, Timings, Usage

Play = Callable[[CommandRequest, Emit], Awaitable[Generation]]

REST_SECONDS = 40.0


class Engines:
    """Listeners whose engines do what is asked, and who was asked what."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self.asked: list[str] = []
        self.mended = False

    async def add(self, *names: str, delay: float = 0.0, lanes: int = 1) -> None:
        """Add listeners whose engines die of `die`, after *delay* seconds."""
        for name in names:
            await self._swarm.listener(
                name, [ScriptedBackend(self._play(name, delay)) for _ in range(lanes)]
            )

    def _play(self, name: str, delay: float) -> Play:
        async def play(request: CommandRequest, emit: Emit) -> Generation:
            if request.priority >= 0:
                # Not what a dialer asks to see whether a peer is well again.
                self.asked.append(name)
            await trio.sleep(delay)
            word = request.messages[-1].content
            if word == "fail":
                raise BackendCrashed("the server is not there")
            if word == "begin":
                await emit("begun ", 1)
            if word in ("die", "begin") and not self.mended:
                raise BackendCrashed("killed by signal 9", engine_died=True)
            await emit("whole", 1)
            return Generation(completion=Completion(text="whole"), usage=Usage(), timings=Timings())

        return play


async def test_two_engines_die_and_the_third_is_left_alone(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The caller hears that it is the request, and nothing that a client would try again."""
    engines = Engines(swarm)
    await engines.add("a", "b", "c")
    async with swarm.router() as router:
        with pytest.raises(EnginesDied, match=r"2 engines died while they worked at this request"):
            await router.ask(chat_request("die"))
        assert len(set(engines.asked)) == len(engines.asked) == 2
        assert (await router.ask(chat_request("hello"))).text == "whole"


async def test_one_death_is_an_accident(autojump_clock: MockClock, swarm: Swarm) -> None:
    """The next peer answers, as after any other failure."""
    engines = Engines(swarm)
    await engines.add("a")
    await swarm.listener("well", ScriptedBackend())
    async with swarm.router(policy="round-robin") as router:
        for number in range(6):
            assert (await router.ask(chat_request("die"))).text == "die", number
    assert "a" in engines.asked


async def test_failures_that_are_no_deaths_go_on_as_ever(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Three peers whose servers are gone are all asked."""
    engines = Engines(swarm)
    await engines.add("a", "b", "c")
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable):
            await router.ask(chat_request("fail"))
    assert sorted(engines.asked) == ["a", "b", "c"]


async def test_listeners_that_vanish_are_no_proof(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Two sessions are lost under it, and the third peer answers."""
    engines = Engines(swarm)
    await engines.add("a", "b", "c", delay=5.0)

    async def lose_two() -> None:
        for _ in range(2):
            await trio.sleep(1.0)
            swarm.kill(engines.asked[-1])

    async with swarm.router() as router, trio.open_nursery() as nursery:
        nursery.start_soon(lose_two)
        response = await router.ask(chat_request("hello"))
    assert (response.text, len(engines.asked)) == ("whole", 3)


async def test_two_lanes_of_one_peer_are_one_witness(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A liar with many lanes ends nobody's request; nor does a machine lose all its engines."""
    engines = Engines(swarm)
    await engines.add("liar", lanes=5)
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable):
            await router.ask(chat_request("die"))
        assert engines.asked == ["liar"]


async def test_the_deaths_count_when_the_same_request_is_sent_again(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """By its id: a client that tries again does not get two more engines."""
    engines = Engines(swarm)
    await engines.add("a")
    request = chat_request("die", request_id="again")
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable):
            await router.ask(request)
        await trio.sleep(REST_SECONDS)
        with pytest.raises(EnginesDied):
            await router.ask(request)
        await engines.add("b", "c")
        await router.wait_for_peers(lambda found: len(found) == 3)
        with pytest.raises(EnginesDied):
            await router.ask(request)
        assert engines.asked == ["a", "a"]
        # Not for ever: what they died of may be mended.
        engines.mended = True
        await trio.sleep(600.0)
        assert (await router.ask(request)).text == "whole"


async def test_a_hedge_counts_and_ends_with_the_second_death(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Both are asked at once, both die, and nobody else hears of it."""
    engines = Engines(swarm)
    await engines.add("a", "b", "c", delay=3.0)
    async with swarm.router(hedge=Hedge(least=1.0)) as router:
        with pytest.raises(EnginesDied):
            await router.ask(chat_request("die"))
        await trio.sleep(10.0)
        assert len(engines.asked) == 2


async def test_a_begun_answer_ends_with_how_far_it_came(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The text that came stays; the error says how much."""
    offer = ModelOffer(name="m", digest="0" * 64, chat_template="1" * 64, continues=True)
    asked = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request.continuation)
        await emit("word ", 1)
        raise BackendCrashed("killed by signal 11", engine_died=True)

    for name in "abc":
        await swarm.listener(name, ScriptedBackend(play, simulated=False, offers=(offer,)))
    async with swarm.router() as router, router.answer(chat_request("tell")) as answer:
        with pytest.raises(EnginesDied, match=r"after 2 tokens \(10 characters\)"):
            async for _ in answer:
                pass
    assert asked == [None, "word "]
    assert answer.text == "word word "


OFFER = ModelOffer(name="m", digest="0" * 64, chat_template="1" * 64, continues=True)


def losing(asked: list[tuple[float, str | None]], *, times: int, begun: str) -> Play:
    """A split that loses a worker so many times, and takes three seconds to be there again."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append((trio.current_time(), request.continuation))
        if len(asked) > 1:
            await trio.sleep(3.0)
        if len(asked) > times:
            await emit("the end", 2)
            return Generation(
                completion=Completion(text="the end"), usage=Usage(), timings=Timings()
            )
        if begun:
            await emit(begun, 1)
        raise BackendCrashed("worker b was lost", engine_restarts=True)

    return play


@pytest.mark.parametrize("begun", ["", "word "])
async def test_a_split_that_restarts_is_asked_again(
    begun: str, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Also where nobody else has the model; what was delivered stays, and is gone on with."""
    asked: list[tuple[float, str | None]] = []
    backend = ScriptedBackend(losing(asked, times=2, begun=begun), simulated=False, offers=(OFFER,))
    await swarm.listener("a", backend)
    async with swarm.router() as router, router.answer(chat_request("tell")) as answer:
        async for _ in answer:
            pass
        assert answer.text == begun * 2 + "the end"
        assert [so_far for _, so_far in asked] == [None, begun or None, begun * 2 or None]
        # Nothing counts against it: the next request goes there at once.
        assert router.peers[0].breakers == {}


async def test_a_split_that_restarts_again_and_again_is_given_up(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The third time under one request."""
    asked: list[tuple[float, str | None]] = []
    backend = ScriptedBackend(losing(asked, times=100, begun=""), simulated=False, offers=(OFFER,))
    await swarm.listener("a", backend)
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable, match="worker b was lost"):
            await router.ask(chat_request("tell"))
    assert len(asked) == 3


async def test_another_peer_goes_on_where_a_split_restarts(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Where it is the quicker one, as whoever has the model in memory is."""
    asked: list[tuple[float, str | None]] = []
    split = ScriptedBackend(losing(asked, times=1, begun="word "), simulated=False, offers=(OFFER,))
    await swarm.listener("a", split)
    async with swarm.router() as router, router.answer(chat_request("tell")) as answer:
        await answer.receive()
        others: list[tuple[float, str | None]] = []
        whole = ScriptedBackend(losing(others, times=0, begun=""), simulated=False, offers=(OFFER,))
        await swarm.listener("b", whole)
        split.offers = (attrs.evolve(OFFER, load_seconds=30.0),)
        await trio.sleep(2.0)
        async for _ in answer:
            pass
        assert answer.text == "word the end"
        assert (len(asked), len(others)) == (1, 1)
