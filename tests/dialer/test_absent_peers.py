"""Begun answers whose peer is there no longer, or only for a moment; in virtual time."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from answers import text_of
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript, mock_words
from punch.capability import PeerId
from punch.dialer import Answer, chat_request
from punch.testing import Swarm
from punch.wire import CommandRequest, Sampling

TOKENS = 12
FIRST = 0.7
GAP = 0.04


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**({"decode_rate": 1 / GAP, "delay": FIRST} | script)))


def question(text: str = "tell me", **changes: Any) -> CommandRequest:
    return attrs.evolve(chat_request(text, sampling=Sampling(max_tokens=TOKENS)), **changes)


class Reader:
    """Reads an answer, and strikes its peer once so many texts have come."""

    def __init__(self, swarm: Swarm, after: int = 5) -> None:
        self.victim = PeerId("")
        self.longest_gap = 0.0
        self._swarm = swarm
        self._after = after

    async def read(
        self, answer: Answer, *, absent: float | None = None, kill: bool = False
    ) -> None:
        """To its end; its peer is killed, or absent for so many seconds or for good."""
        heard, heard_at = 0, None
        async with trio.open_nursery() as nursery:
            async for _ in answer:
                now = trio.current_time()
                self.longest_gap = max(self.longest_gap, now - (heard_at or now))
                heard, heard_at = heard + 1, now
                if heard != self._after:
                    continue
                assert answer.peer_id is not None
                self.victim = answer.peer_id
                if kill:
                    self._swarm.kill(self.victim)
                else:
                    self._swarm.network.stall(self.victim)
                    if absent is not None:
                        nursery.start_soon(self._resume, absent)

    async def _resume(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._swarm.network.resume(self.victim)


@pytest.mark.parametrize("after", range(1, TOKENS, 2))
async def test_a_reader_waits_at_most_two_and_a_half_seconds_for_a_frozen_peer(
    after: int, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """With 0.7 s to the first text of the next one; wherever the blow falls."""
    request = question()
    for name in "ab":
        await swarm.listener(name, mock())
    reader = Reader(swarm, after)
    async with swarm.router() as router, router.answer(request) as answer:
        await reader.read(answer)
    assert text_of(answer.response) == " ".join(mock_words(request))
    assert reader.longest_gap < 1.5 + FIRST + 0.1
    assert [attempt.peer_id for attempt in answer.attempts] == [reader.victim]


async def test_a_reader_waits_for_nothing_but_the_next_peer_if_one_is_killed(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its connection breaks at once."""
    for name in "ab":
        await swarm.listener(name, mock())
    reader = Reader(swarm)
    async with swarm.router() as router, router.answer(question()) as answer:
        await reader.read(answer, kill=True)
    assert reader.longest_gap == pytest.approx(FIRST, abs=0.2)


@pytest.mark.parametrize("seconds", [0.5, 1.3, 1.8, 2.1])
async def test_a_peer_that_is_back_before_another_has_spoken_keeps_its_answer(
    seconds: float, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Another was asked beside it at most, and nothing counts against it."""
    request = question()
    for name in "ab":
        await swarm.listener(name, mock())
    reader = Reader(swarm)
    async with swarm.router() as router, router.answer(request) as answer:
        await reader.read(answer, absent=seconds)
    assert text_of(answer.response) == " ".join(mock_words(request))
    assert [segment.peer_id for segment in answer.segments] == [reader.victim]
    assert answer.attempts == ()
    assert len(answer.decisions) == (2 if seconds > 1.5 else 1)


async def test_an_engine_may_pause_while_its_peer_answers_pings(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Nobody is asked beside it: it may read the long prompt of another request."""
    request = question()

    class Pausing(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            async def emit_slowly(text: str, tokens: int) -> None:
                await emit(text, tokens)
                if text == f" {mock_words(request)[5]}":
                    await trio.sleep(3.5)

            return await super().generate(request, emit_slowly)

    for name in "ab":
        await swarm.listener(name, Pausing(MockScript(decode_rate=1 / GAP)))
    async with swarm.router() as router:
        async with router.answer(request) as answer:
            async for _ in answer:
                pass
    assert text_of(answer.response) == " ".join(mock_words(request))
    assert len(answer.decisions) == 1


@pytest.mark.parametrize("seconds", [1.0, 3.0, 10.0])
async def test_no_peer_is_left_for_the_time_in_which_the_dialer_was_held_up(
    seconds: float, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """What came meanwhile is read first."""
    request = question()
    for name in "ab":
        await swarm.listener(name, mock())
    heard = 0
    async with swarm.router() as router, router.answer(request) as answer:
        async for _ in answer:
            heard += 1
            if heard == 5:
                autojump_clock.jump(seconds)
    assert text_of(answer.response) == " ".join(mock_words(request))
    assert len(answer.decisions) == 1


async def test_the_only_peer_may_be_absent_for_a_while(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """There is no other, so it is waited for until its session counts as lost."""
    request = question()
    await swarm.listener("a", mock())
    reader = Reader(swarm)
    async with swarm.router() as router, router.answer(request) as answer:
        await reader.read(answer, absent=3.5)
    assert text_of(answer.response) == " ".join(mock_words(request))
    assert answer.attempts == ()


async def test_an_answer_that_must_not_be_continued_waits_for_its_peer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Half of it from another peer would be worth nothing."""
    request = question(continuable=False)
    for name in "ab":
        await swarm.listener(name, mock())
    reader = Reader(swarm)
    async with swarm.router() as router, router.answer(request) as answer:
        await reader.read(answer, absent=3.5)
    assert text_of(answer.response) == " ".join(mock_words(request))
    assert len(answer.decisions) == 1


async def test_an_answer_is_whole_though_its_peer_dies_before_the_last_word(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """All of its tokens are there, so nobody else is asked."""
    request = question()
    for name in "ab":
        await swarm.listener(name, mock())
    reader = Reader(swarm, after=TOKENS - 1)
    async with swarm.router() as router, router.answer(request) as answer:
        await reader.read(answer)
    assert text_of(answer.response) == " ".join(mock_words(request))


async def test_no_peer_is_asked_that_is_absent_as_well(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Of three machines two are frozen by the same blow: the third has the rest."""
    request = question()
    for name in "abc":
        await swarm.listener(name, mock())
    heard_at, longest_gap = None, 0.0
    async with swarm.router() as router, router.answer(request) as answer:
        async for _ in answer:
            now = trio.current_time()
            if heard_at is not None:
                longest_gap = max(longest_gap, now - heard_at)
            else:
                first = answer.peer_id
                # The one that would be asked next.
                second = next(name for name in "abc" if name != first)
                swarm.network.stall(PeerId(str(first)))
                swarm.network.stall(PeerId(second))
            heard_at = now
    assert text_of(answer.response) == " ".join(mock_words(request))
    third = answer.response.executor
    assert third not in (first, second)
    assert [decision.chosen_peer for decision in answer.decisions] == [first, third]
    assert longest_gap < 1.75 + FIRST + 0.2


async def test_nobody_else_is_asked_while_the_whole_network_is_away(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A dialer whose own cable is out for two seconds burdens no peer with its answers."""
    request = question()
    for name in "abcd":
        await swarm.listener(name, mock())
    heard = 0

    async def away() -> None:
        swarm.network.stall(PeerId("dialer"))
        await trio.sleep(2.0)
        swarm.network.resume(PeerId("dialer"))

    async with swarm.router() as router, trio.open_nursery() as nursery:
        async with router.answer(request) as answer:
            async for _ in answer:
                heard += 1
                if heard == 5:
                    nursery.start_soon(away)
    assert text_of(answer.response) == " ".join(mock_words(request))
    assert len(answer.decisions) == 1
    assert answer.attempts == ()


async def test_nobody_else_is_asked_for_the_delays_of_a_bad_network(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A round trip of up to a second, and a tenth of the packets lost: each peer is there."""
    asked: list[int] = []
    network = swarm.network
    network.delay, network.jitter, network.loss = 0.1, 0.3, 0.1
    for name in "abc":
        await swarm.listener(name, mock())

    async def ask(number: int) -> None:
        request = question(f"{number}: tell me")
        async with router.answer(request) as answer:
            async for _ in answer:
                pass
        assert text_of(answer.response) == " ".join(mock_words(request))
        asked.append(len(answer.decisions))

    async with swarm.router() as router, trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(ask, number)
    assert asked == [1] * 12


async def test_a_peer_that_failed_lately_is_asked_rather_than_an_absent_one_waited_for(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It may be well again; where all have failed, one of them is asked as well."""
    request = question()
    for name in "ab":
        await swarm.listener(name, mock())
    reader = Reader(swarm)
    async with swarm.router() as router, router.answer(request) as answer:
        async for _ in answer:
            break
        first = answer.peer_id
        (other,) = (peer for peer in router.peers if peer.peer_id != first)
        now = trio.current_time()
        router._dispatch.table.failed(other.peer_id, now=now, retry_after=20.0)
        await reader.read(answer)
    assert text_of(answer.response) == " ".join(mock_words(request))
    assert answer.response.executor == other.peer_id
    assert reader.longest_gap < 1.5 + FIRST + 0.2
