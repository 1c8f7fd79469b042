"""What a model thinks reaches its caller as it comes, and is never a part of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript, mock_words
from punch.capability import ModelOffer
from punch.dialer import Answer, chat_request
from punch.testing import ScriptedBackend, Swarm
from punch.wire import (
    CommandRequest,
    CommandResponse,
    Completion,
    Sampling,
    Thought,
    Timings,
    Usage,
)

FEATURES = frozenset({"chat", "reasoning"})
OFFER = ModelOffer(
    name="model", digest="ab" * 32, features=FEATURES, chat_template="cd" * 32, continues=True
)


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**({"decode_rate": 10.0, "thinks": 6} | script)))


def scripted(*parts: str, **result: Any) -> ScriptedBackend:
    """Emits *parts*, and says in the end what it thought, if anything."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for part in parts:
            await emit(part, 1)
        text = "".join(part for part in parts if type(part) is not Thought)
        return Generation(
            completion=Completion(text=text, **result),
            usage=Usage(prompt_tokens=3, completion_tokens=len(parts)),
            timings=Timings(),
        )

    return ScriptedBackend(play, offers=(OFFER,))


async def parts_of(answer: Answer) -> list[str]:
    """All parts of an answer that is under way."""
    parts = []
    while (part := await answer.receive_part()) is not None:
        parts.append(part)
    return parts


def thought_in(parts: Sequence[str]) -> str:
    return "".join(part for part in parts if type(part) is Thought)


def said_in(parts: Sequence[str]) -> str:
    return "".join(part for part in parts if type(part) is not Thought)


def completion_of(response: CommandResponse) -> Completion:
    assert response.result is not None
    return response.result


async def test_thoughts_come_before_the_text_and_as_they_are_made(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """A token each tenth of a second, from the first thought on."""
    await swarm.listener("a", mock())
    times = []
    async with swarm.router() as router, router.answer(chat_request("hi")) as answer:
        parts = []
        while (part := await answer.receive_part()) is not None:
            parts.append(part)
            times.append(trio.current_time())
    kinds = [type(part) is Thought for part in parts]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count(True) == 6
    assert times[5] - times[0] == pytest.approx(0.5, abs=0.02)
    result = completion_of(answer.response)
    assert (result.text, result.reasoning) == (said_in(parts), thought_in(parts))
    assert result.text == " ".join(mock_words(chat_request("hi")))
    assert answer.response.usage.reasoning_tokens == 6


async def test_who_reads_the_text_alone_sees_no_thought(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Iterating, receiving, and asking for the whole."""
    await swarm.listener("a", mock())
    question = chat_request("hi")
    text = " ".join(mock_words(question))
    async with swarm.router() as router:
        async with router.answer(question) as answer:
            assert "".join([part async for part in answer]) == text == answer.text
        response = await router.ask(question)
        assert completion_of(response).text == text
        whole = await router.ask(attrs.evolve(question, stream=False))
        assert completion_of(whole) == completion_of(response)
        assert completion_of(whole).reasoning.count(" ") == 5


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_told_at_the_end_only_is_told_all_the_same(
    stream: bool, swarm: Swarm, autojump_clock: MockClock
) -> None:
    """As a listener of an earlier version does it."""
    await swarm.listener("a", scripted("well, ", "yes", reasoning="hm"))
    asked = attrs.evolve(chat_request("hi"), stream=stream)
    async with swarm.router() as router, router.answer(asked) as answer:
        parts = await parts_of(answer)
    assert (said_in(parts), thought_in(parts)) == ("well, yes", "hm")
    assert completion_of(answer.response).reasoning == "hm"


async def test_thoughts_between_texts_keep_their_place(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Also for a reader that gets the answer in fewer messages, and for one that joins it."""
    made = (Thought("a"), Thought("b"), "c", Thought("d"), "e", "f")
    await swarm.listener("a", scripted(*made))
    for interval in (0.0, 1.0):
        asked = attrs.evolve(chat_request(f"{interval}"), stream_interval=interval)
        async with swarm.router() as router, router.answer(asked) as answer:
            parts = await parts_of(answer)
            async with router.answer(answer.request) as again:
                assert said_in(await parts_of(again)) == "cef"
        runs: list[str] = []
        for part in parts:
            if runs and type(runs[-1]) is type(part):
                runs[-1] = type(part)(runs[-1] + part)
            else:
                runs.append(part)
        assert runs == ["ab", "c", "d", "ef"]
        assert [type(run) is Thought for run in runs] == [True, False, True, False]


async def test_a_thought_longer_than_a_window_is_not_stuck(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Who does not read it holds it up as text is held up, and no longer."""
    long = "hm, " * 100_000
    await swarm.listener("a", scripted(Thought(long), Thought(long), "so"))
    async with swarm.router() as router, router.answer(chat_request("hi")) as answer:
        await trio.sleep(20)
        parts = await parts_of(answer)
    assert (said_in(parts), thought_in(parts)) == ("so", 2 * long)


# ---- a peer that dies ----


async def ask_and_kill(
    swarm: Swarm, request: CommandRequest, after: int
) -> tuple[list[str], CommandResponse]:
    """Ask, and kill whoever answers after so many parts, thoughts among them."""
    parts: list[str] = []
    async with swarm.router() as router, router.answer(request) as answer:
        while (part := await answer.receive_part()) is not None:
            parts.append(part)
            if len(parts) == after:
                (name,) = (n for n, each in swarm.listeners.items() if each.statistics().busy)
                swarm.kill(name)
        return parts, answer.response


async def test_a_peer_that_dies_while_it_thinks_is_replaced_by_one_that_thinks_anew(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """The caller has both thoughts, apart; the text is that of the second peer alone."""
    for name in "ab":
        await swarm.listener(name, mock())
    request = attrs.evolve(chat_request("hi"), sampling=Sampling(max_tokens=20))
    parts, response = await ask_and_kill(swarm, request, after=3)
    whole = thought_in(parts).split("\n\n")[1]
    assert len(whole.split()) == 6
    first = " ".join(whole.split()[:3])
    assert thought_in(parts) == f"{first}\n\n{whole}"
    result = completion_of(response)
    # Fourteen words are left of twenty tokens after six thoughts: none is paid for twice.
    words = mock_words(attrs.evolve(request, sampling=Sampling(max_tokens=14)))
    assert result.text == " ".join(words) == said_in(parts)
    assert result.reasoning == thought_in(parts)
    assert response.usage.completion_tokens == 3 + 20
    assert response.usage.reasoning_tokens == 3 + 6
    assert [each.characters for each in response.segments] == [0, len(result.text)]
    assert [each.tokens for each in response.segments] == [3, 20]


async def test_a_peer_that_dies_after_it_thought_is_continued_without_more_thoughts(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Its text is continued where it was cut, with the tokens that are left."""
    for name in "ab":
        await swarm.listener(name, mock())
    request = attrs.evolve(chat_request("hi"), sampling=Sampling(max_tokens=20))
    parts, response = await ask_and_kill(swarm, request, after=10)
    words = mock_words(attrs.evolve(request, sampling=Sampling(max_tokens=14)))
    assert said_in(parts) == " ".join(words) == completion_of(response).text
    assert len(thought_in(parts).split()) == 6
    assert response.usage.completion_tokens == 20
    assert len(response.segments) == 2


async def test_an_answer_from_one_peer_only_may_still_be_thought_about_twice(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """A schema cannot be continued; a thought is no part of what it holds."""
    for name in "ab":
        await swarm.listener(name, mock())
    request = attrs.evolve(chat_request("hi"), response_schema='{"type": "boolean"}')
    parts, response = await ask_and_kill(swarm, request, after=3)
    assert said_in(parts) == "true" == completion_of(response).text


# ---- how much is thought ----


@pytest.mark.parametrize(
    ("wish", "thoughts"),
    [
        ({}, 6),
        ({"reasoning_effort": "none"}, 0),
        ({"reasoning_effort": "low"}, 3),
        ({"reasoning_effort": "high"}, 12),
        ({"reasoning_effort": "unheard of"}, 6),
        ({"reasoning_budget": 2}, 2),
        ({"reasoning_budget": 0}, 0),
        ({"sampling": Sampling(max_tokens=4)}, 4),
    ],
)
async def test_the_mock_thinks_as_much_as_it_is_asked_to(
    wish: dict[str, Any], thoughts: int, swarm: Swarm, autojump_clock: MockClock
) -> None:
    """And an answer that was used up by thoughts has no text and ends at its limit."""
    await swarm.listener("a", mock())
    request = attrs.evolve(chat_request("hi"), **wish)
    async with swarm.router() as router:
        response = await router.ask(request)
    result = completion_of(response)
    assert len(result.reasoning.split()) == thoughts
    if request.sampling.max_tokens:
        assert (result.text, result.finish_reason) == ("", "length")
    else:
        assert (result.text, result.finish_reason) == (" ".join(mock_words(request)), "stop")
