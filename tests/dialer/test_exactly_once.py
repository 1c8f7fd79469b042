"""One request id, one answer: on the dialer's side, over a network in memory."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
import trio
from answers import text_of
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript, mock_words
from punch.capability import PeerId
from punch.dialer import Attribution, Router, chat_request
from punch.dialer import _runs as limits
from punch.exceptions import BackendError, GenerationFailed, PunchError, RequestConflict
from punch.routing import Decision
from punch.testing import Swarm
from punch.wire import CommandRequest, Sampling


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**({"decode_rate": 10.0} | script)))


def question(**changes: Any) -> CommandRequest:
    request = chat_request("tell me", sampling=Sampling(max_tokens=10), request_id="my-1")
    return attrs.evolve(request, **changes)


async def heard(router: Router, request: CommandRequest, into: list[str]) -> None:
    async with router.answer(request) as answer:
        while (text := await answer.receive()) is not None:
            into.append(text)


def served(swarm: Swarm) -> int:
    return sum(executor.statistics().served for executor in swarm.listeners.values())


async def test_the_same_id_joins_the_running_answer_from_its_start(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Two readers, two listeners, one generation."""
    first: list[str] = []
    second: list[str] = []
    for name in "ab":
        await swarm.listener(name, mock())
    async with swarm.router() as router:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heard, router, question(), first)
            await trio.sleep(0.45)
            nursery.start_soon(heard, router, question(), second)
    assert served(swarm) == 1
    assert first == second
    assert "".join(first) == " ".join(mock_words(question()))


async def test_the_same_id_afterwards_gets_the_stored_answer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """At once, with the same response, and nobody is asked."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        before = await router.ask(question(), keep=True)
        at = trio.current_time()
        assert await router.ask(question(timeout=7.0, priority=3)) is before
        assert trio.current_time() == at
    assert served(swarm) == 1


async def test_a_stored_answer_is_kept_for_two_minutes(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """After that the id is free again."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        await router.ask(question(), keep=True)
        await trio.sleep(limits.STORED_SECONDS + 1)
        await router.ask(question(messages=(chat_request("else").messages[0],)), keep=True)
        assert len(router._runs) == 1


@pytest.mark.parametrize("running", [True, False])
async def test_the_same_id_for_another_request_is_a_conflict(
    running: bool, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """While it runs, and while it is stored."""
    other = question(sampling=Sampling(max_tokens=9))
    await swarm.listener("a", mock())
    async with swarm.router() as router, router.answer(question()) as answer:
        await answer.receive()
        if not running:
            while await answer.receive() is not None:
                pass
        with pytest.raises(RequestConflict, match="'my-1' was used for another request"):
            await router.ask(other)
        while await answer.receive() is not None:
            pass
    assert answer.text == " ".join(mock_words(question()))


async def test_a_reader_that_leaves_takes_nothing_from_the_others(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Not even the one that drives the loop."""
    second: list[str] = []
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        async with trio.open_nursery() as nursery:
            async with router.answer(question()) as answer:
                await answer.receive()
                nursery.start_soon(heard, router, question(), second)
                await answer.receive()
                with trio.move_on_after(0.05):
                    await answer.receive()
    assert swarm.listeners["a"].statistics().cancelled == 0
    assert "".join(second) == " ".join(mock_words(question()))


async def test_the_last_reader_to_leave_cancels(autojump_clock: MockClock, swarm: Swarm) -> None:
    """The slot is free within 100 ms, and the id with it."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        async with router.answer(question()) as one, router.answer(question()) as two:
            await one.receive()
            await two.receive()
        await trio.sleep(0.1)
        statistics = swarm.listeners["a"].statistics()
        assert (statistics.busy, statistics.cancelled) == (0, 1)
        assert len(router._runs) == 0
        # Even at once, while the cancel is still on its way.
        async with router.answer(question()) as again:
            await again.receive()
        response = await router.ask(question())
    assert text_of(response) == " ".join(mock_words(question()))


async def test_an_id_that_failed_is_asked_anew(autojump_clock: MockClock, swarm: Swarm) -> None:
    """An error is no answer."""

    class Moody(MockBackend):
        works = False

        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            if not self.works:
                raise GenerationFailed("not today")
            return await super().generate(request, emit)

    backend = Moody(MockScript(decode_rate=10.0))
    await swarm.listener("a", backend)
    async with swarm.router() as router:
        with pytest.raises(PunchError):
            await router.ask(question())
        backend.works = True
        response = await router.ask(question())
    assert text_of(response) == " ".join(mock_words(question()))
    assert issubclass(GenerationFailed, BackendError)


async def test_what_nobody_will_ask_for_again_is_not_kept(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whoever joins it while it runs still reads it to its end."""
    second: list[str] = []
    await swarm.listener("a", mock())
    async with swarm.router() as router, trio.open_nursery() as nursery:
        async with router.answer(question(), keep=False) as answer:
            await answer.receive()
            nursery.start_soon(late_reader, router, question(), second)
            while await answer.receive() is not None:
                pass
            await trio.lowlevel.checkpoint()
        assert len(router._runs) == 1
        await router.ask("tell me")
    assert served(swarm) == 2
    assert len(router._runs) == 0
    assert "".join(second) == " ".join(mock_words(question()))


async def late_reader(router: Router, request: CommandRequest, into: list[str]) -> None:
    async with router.answer(request, keep=False) as answer:
        while (text := await answer.receive()) is not None:
            into.append(text)
            await trio.sleep(1)


async def test_what_else_makes_a_request_another_one_is_compared(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """As far as whoever asks says so."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        async with router.answer(question(), scope="one of two") as answer:
            while await answer.receive() is not None:
                pass
        for scope in ("", "one of three"):
            with pytest.raises(RequestConflict):
                async with router.answer(question(), scope=scope):
                    pass
        async with router.answer(question(), scope="one of two"):
            pass
    assert served(swarm) == 1


async def test_an_answer_is_made_for_one_of_its_readers(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Who asked first; when that one has left, for the next, from there on."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        async with AsyncExitStack() as first:
            one = await first.enter_async_context(router.answer(question()))
            assert one.billed == Attribution()
            await one.receive()
            await one.receive()
            async with router.answer(question()) as two:
                assert await two.receive() is not None
                both = (one, two)
                billed = [answer.billed for answer in both]
                assert billed == [Attribution(prompt=True, tokens=2), None]
                await first.aclose()
                assert [answer.billed for answer in both] == [None, Attribution(earlier=2)]
                while await two.receive() is not None:
                    pass
                assert two.billed == Attribution(tokens=8, earlier=2)
                async with router.answer(question()) as three:
                    assert three.billed is None
        async with router.answer(question()) as replayed:
            assert replayed.billed is None


async def test_a_reader_with_less_time_does_not_wait_as_long_as_one_that_joins_it(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its listener is lost, and may come back: the first gives up at its own time."""
    await swarm.listener("a", mock(decode_rate=0.1))
    async with swarm.router() as router:
        await router.wait_for_peers()
        began = trio.current_time()
        ends: dict[str, float] = {}

        async def ask(name: str, timeout: float) -> None:
            with pytest.raises(PunchError):
                await heard(router, question(timeout=timeout), [])
            ends[name] = round(trio.current_time() - began, 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first", 2.0)
            await trio.sleep(1.0)
            nursery.start_soon(ask, "second", 60.0)
            await trio.sleep(0.5)
            swarm.network.take_down(PeerId("a"))
        assert ends["first"] == 2.0
        assert ends["second"] > 5.0


def decisions() -> int:
    """Those that something holds on to; each has a snapshot of every peer."""
    gc.collect()
    return sum(isinstance(each, Decision) for each in gc.get_objects())


async def test_what_is_stored_holds_no_peers(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Nor the prompt: they are far larger than the answer."""
    await swarm.listener("a", MockBackend(MockScript()))
    async with swarm.router() as router:
        before = decisions()
        for number in range(5):
            request = chat_request("hi", request_id=f"r{number}", max_tokens=1)
            await router.ask(request, keep=True)
        assert decisions() == before


async def test_what_is_stored_is_bounded(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest goes first, by number and by size."""
    monkeypatch.setattr(limits, "MAX_STORED", 3)
    await swarm.listener("a", mock(decode_rate=None))
    async with swarm.router() as router:
        for number in range(5):
            await router.ask(question(request_id=f"my-{number}"), keep=True)
        assert sorted(router._runs._stored) == ["my-2", "my-3", "my-4"]
        monkeypatch.setattr(limits, "MAX_CHARACTERS", 1)
        await router.ask(question(request_id="my-9"), keep=True)
        assert len(router._runs) == 0
        assert router._runs._characters == 0
