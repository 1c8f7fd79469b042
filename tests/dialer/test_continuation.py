"""Answers that go on when their peer is gone, over a network in memory and in virtual time."""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest
import trio
from answers import result_of, text_of
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript, mock_words
from punch.dialer import chat_request
from punch.exceptions import AnswerInterrupted, DeadlineExceeded
from punch.testing import Swarm, open_swarm
from punch.wire import CommandRequest, CommandResponse, Sampling

LIMIT = 3600
TOKENS = 12


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**({"decode_rate": 10.0} | script)))


def question(text: str = "tell me", **changes: Any) -> CommandRequest:
    sampling = Sampling(max_tokens=TOKENS)
    return attrs.evolve(chat_request(text, sampling=sampling), **changes)


def story(request: CommandRequest) -> str:
    """The unbroken answer."""
    return " ".join(mock_words(request))


async def ask_and_kill(
    swarm: Swarm, request: CommandRequest, *after: int, how: str = "kill"
) -> CommandResponse:
    """Ask, and end whoever answers after so many parts of the text; each number is a death."""
    async with swarm.router() as router, router.answer(request) as answer:
        heard = 0
        deaths = list(after)
        while await answer.receive() is not None:
            heard += 1
            if deaths and heard == deaths[0]:
                deaths.pop(0)
                name = answerer(swarm)
                if how == "kill":
                    swarm.kill(name)
                else:
                    swarm.network.stall(swarm.listeners[name].peer_id)
        assert answer.text == text_of(answer.response)
        return answer.response


def answerer(swarm: Swarm) -> str:
    """The one listener that is busy and neither dead nor stalled."""
    (name,) = (
        name
        for name, executor in swarm.listeners.items()
        if executor.statistics().busy and not swarm.network.is_stalled(executor.peer_id)
    )
    return name


@pytest.mark.parametrize("after", range(1, TOKENS))
async def test_an_answer_survives_its_peer_at_every_token(
    after: Any, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The whole is the unbroken one, and counted as such."""
    request = question()
    for name in "ab":
        await swarm.listener(name, mock())
    response = await ask_and_kill(swarm, request, after)
    assert text_of(response) == story(request)
    assert result_of(response).finish_reason == "length"
    assert response.usage.completion_tokens == TOKENS
    assert response.segments[0].tokens == after
    assert sum(segment.tokens for segment in response.segments) == TOKENS
    first = text_of(response)[: response.segments[0].characters]
    assert first == " ".join(mock_words(request)[:after])


async def test_the_segments_say_who_delivered_what_and_why_it_ended(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """In order, with the reason in words."""
    request = question()
    for name in "ab":
        await swarm.listener(name, mock())
    response = await ask_and_kill(swarm, request, 5)
    first, second = response.segments
    assert {first.peer_id, second.peer_id} == {"a", "b"}
    assert (first.tokens, second.tokens) == (5, 7)
    assert (first.reason, second.reason) == ("the connection was lost", "length")
    assert first.characters + second.characters == len(text_of(response))
    assert response.executor == second.peer_id
    (attempt,) = response.attempts
    assert (attempt["peer_id"], attempt["error"]) == (first.peer_id, "unreachable")


@pytest.mark.parametrize("deaths", [(3, 7), (1, 2), (1, 11), (6, 7)])
async def test_an_answer_survives_two_deaths(
    deaths: tuple[int, ...], autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Three peers, one sentence."""
    request = question()
    for name in "abc":
        await swarm.listener(name, mock())
    response = await ask_and_kill(swarm, request, *deaths)
    assert text_of(response) == story(request)
    assert len(response.segments) == 3
    assert response.usage.completion_tokens == TOKENS


async def test_the_prompt_is_counted_as_that_of_the_whole_answer(autojump_clock: MockClock) -> None:
    """What was delivered is read as part of a prompt, and is none."""
    request = question("one two three")
    with trio.fail_after(LIMIT):
        async with open_swarm() as swarm:
            for name in "ab":
                await swarm.listener(name, mock())
            broken = await ask_and_kill(swarm, request, 4)
        async with open_swarm() as swarm:
            await swarm.listener("a", mock())
            unbroken = await ask_and_kill(swarm, request)
    assert broken.usage == unbroken.usage


@pytest.mark.parametrize("after", range(1, 7))
@pytest.mark.parametrize("length", [1, 2, 3])
async def test_a_stop_across_the_seam_ends_the_answer(
    after: Any, length: int, autojump_clock: MockClock
) -> None:
    """As it would have ended without a seam, wherever the peer dies."""
    plain = question()
    words = mock_words(plain)
    request = attrs.evolve(
        plain, sampling=attrs.evolve(plain.sampling, stop=(" ".join(words[6 : 6 + length]),))
    )
    with trio.fail_after(LIMIT):
        async with open_swarm() as swarm:
            await swarm.listener("a", mock())
            unbroken = await ask_and_kill(swarm, request)
        async with open_swarm() as swarm:
            for name in "ab":
                await swarm.listener(name, mock())
            broken = await ask_and_kill(swarm, request, after)
    assert broken.result == unbroken.result
    assert result_of(broken).finish_reason == "stop"
    assert broken.usage.completion_tokens == unbroken.usage.completion_tokens


async def test_an_answer_whose_last_token_is_out_needs_nobody(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The peer died between its last word and its farewell."""
    request = question()
    await swarm.listener("a", mock())
    async with swarm.router() as router, router.answer(request) as answer:
        for _ in range(TOKENS):
            await answer.receive()
        swarm.kill("a")
        assert await answer.receive() is None
    assert text_of(answer.response) == story(request)
    assert answer.response.usage.completion_tokens == TOKENS


async def test_a_request_that_must_not_go_on_elsewhere_says_how_far_it_came(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Continuation is a choice of each request."""
    request = question(continuable=False)
    for name in "ab":
        await swarm.listener(name, mock())
    with pytest.raises(AnswerInterrupted) as caught:
        await ask_and_kill(swarm, request, 3)
    assert caught.value.tokens == 3
    assert caught.value.characters == len(" ".join(mock_words(request)[:3]))


@pytest.mark.parametrize("changes", [{"digest": "f" * 64}, {"chat_template": "f" * 64}])
async def test_nobody_goes_on_with_another_model_or_template(
    changes: dict[str, Any], autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A peer with the same name for another file is no peer for this answer."""
    request = question()
    other = mock()
    other.offers = tuple(attrs.evolve(offer, **changes) for offer in other.offers)
    await swarm.listener("a", mock())
    async with swarm.router() as router, router.answer(request) as answer:
        heard = [await answer.receive() for _ in range(4)]
        await swarm.listener("b", other)
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        swarm.kill("a")
        with pytest.raises(AnswerInterrupted) as caught:
            await answer.receive()
    assert answer.text == "".join(filter(None, heard))
    assert caught.value.tokens == 4
    assert "\n  b: " in str(caught.value)


async def test_a_peer_that_comes_back_goes_on_with_its_own_answer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """There was nobody else, and it was back within a moment."""
    request = question()
    await swarm.listener("a", mock())
    async with trio.open_nursery() as nursery:

        async def restart() -> None:
            swarm.kill("a")
            await trio.sleep(2.0)
            await swarm.listener("a", mock())

        async with swarm.router() as router, router.answer(request) as answer:
            for _ in range(4):
                await answer.receive()
            nursery.start_soon(restart)
            while await answer.receive() is not None:
                pass
    assert answer.text == story(request)
    assert [segment.peer_id for segment in answer.segments] == ["a", "a"]


async def test_an_answer_that_nobody_can_go_on_with_is_not_waited_for_for_ever(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Five seconds, and the caller knows."""
    await swarm.listener("a", mock())
    began = trio.current_time()
    with pytest.raises(AnswerInterrupted):
        await ask_and_kill(swarm, question(), 4)
    waited = trio.current_time() - began
    assert 5.0 <= waited <= 6.0


async def test_the_deadline_holds_across_peers(autojump_clock: MockClock, swarm: Swarm) -> None:
    """The second one gets what is left of it."""
    for name in "ab":
        await swarm.listener(name, mock(decode_rate=1.0))
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded, match=r"after \d+ tokens"):
        await ask_and_kill(swarm, question(timeout=8.0), 3)
    assert trio.current_time() - began == pytest.approx(8.0, abs=0.2)


# ---- the watchdog ----


async def test_a_peer_that_stops_in_mid_sentence_is_replaced(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its connection stands; only its rhythm says that something is wrong."""
    request = question()
    for name in "ab":
        await swarm.listener(name, mock())
    began = trio.current_time()
    response = await ask_and_kill(swarm, request, 5, how="stall")
    took = trio.current_time() - began
    assert text_of(response) == story(request)
    # 0.5 s until it stops, up to 1.5 until its ping is missed, 0.7 s for the rest.
    assert took == pytest.approx(2.45, abs=0.3)
    assert [attempt["error"] for attempt in response.attempts] == ["silent"]
    reason = r"no text for 1\.\d s, nor an answer to a ping; its usual gap is 1"
    assert re.match(reason, response.segments[0].reason)


async def test_a_backend_that_hangs_is_replaced_though_its_session_lives(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Heartbeats go on; the answer does not."""
    request = question()
    hung = trio.Event()

    class Hanging(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            async def emit_some(text: str, tokens: int) -> None:
                await emit(text, tokens)
                if len(heard) == 5 and not hung.is_set():
                    hung.set()
                    await trio.sleep_forever()

            return await super().generate(request, emit_some)

    heard: list[str] = []
    for name in "ab":
        await swarm.listener(name, Hanging(MockScript(decode_rate=10.0)))
    async with swarm.router() as router, router.answer(request) as answer:
        while (text := await answer.receive()) is not None:
            heard.append(text)
    assert hung.is_set()
    assert "".join(heard) == story(request)
    assert [attempt.error.code for attempt in answer.attempts] == ["silent"]


async def test_the_only_peer_is_waited_for_however_silent_it_is(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Giving it up would lose the answer for nothing."""
    request = question()

    class Pausing(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            async def emit_slowly(text: str, tokens: int) -> None:
                await emit(text, tokens)
                if text == f" {mock_words(request)[5]}":
                    await trio.sleep(60)

            return await super().generate(request, emit_slowly)

    await swarm.listener("a", Pausing(MockScript(decode_rate=10.0)))
    async with swarm.router() as router:
        response = await router.ask(request)
    assert text_of(response) == story(request)
    assert len(response.segments) == 1
