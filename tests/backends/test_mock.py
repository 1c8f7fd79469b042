"""The mock's answers, whole and continued."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from punch.backends import Generation, MockBackend, MockScript, mock_words
from punch.exceptions import GenerationFailed
from punch.wire import ChatMessage, CommandRequest, Sampling

ASK = CommandRequest(
    request_id="r",
    messages=(ChatMessage(role="user", content="go on and on"),),
    sampling=Sampling(max_tokens=12, seed=3),
)


def answer(request: CommandRequest, **script: Any) -> tuple[Generation, list[tuple[str, int]]]:
    """What a mock makes of *request*, and what it emitted."""
    emitted: list[tuple[str, int]] = []

    async def emit(text: str, tokens: int) -> None:
        emitted.append((text, tokens))

    backend = MockBackend(MockScript(**script))
    return trio.run(backend.generate, request, emit), emitted


def rest(request: CommandRequest, said: str) -> CommandRequest:
    """What is asked of the next peer after *said*."""
    limit = request.sampling.max_tokens
    left = None if limit is None else limit - len(said.split())
    return attrs.evolve(
        request, continuation=said, sampling=attrs.evolve(request.sampling, max_tokens=left)
    )


@pytest.mark.parametrize("limit", [None, 12, 128_000])
@pytest.mark.parametrize("stop", [(), ("zzz",), "word", "two words"])
def test_a_continued_answer_is_the_unbroken_one_wherever_it_is_cut(
    limit: int | None, stop: str | tuple[str, ...]
) -> None:
    """At every character, inside a word too; with the same end, and every token counted once."""
    request = attrs.evolve(ASK, sampling=Sampling(max_tokens=limit, seed=3))
    words = mock_words(request)
    if isinstance(stop, str):
        stop = (words[7],) if stop == "word" else (f"{words[6]} {words[7]}",)
    request = attrs.evolve(request, sampling=attrs.evolve(request.sampling, stop=stop))
    whole, _ = answer(request)
    text = whole.completion.text
    for cut in range(1, len(text)):
        asked = rest(request, text[:cut])
        if asked.sampling.max_tokens == 0:
            continue
        generation, emitted = answer(asked)
        assert text[:cut] + generation.completion.text == text
        assert "".join(part for part, _ in emitted) == generation.completion.text
        assert generation.completion.finish_reason == whole.completion.finish_reason
        made = generation.usage.completion_tokens
        assert made == sum(tokens for _, tokens in emitted)
        assert len(text[:cut].split()) + made == whole.usage.completion_tokens


def test_a_limit_that_no_answer_reaches_is_none() -> None:
    """Clients that must say one say the highest there is."""
    high = attrs.evolve(ASK, sampling=Sampling(max_tokens=128_000))
    free = attrs.evolve(ASK, sampling=Sampling())
    assert mock_words(high) == mock_words(free)
    assert answer(high)[0].completion.finish_reason == "stop"


def test_what_was_made_is_counted_though_nothing_of_it_is_text() -> None:
    """A stop sequence that is hit at once."""
    stop = mock_words(ASK)[0]
    ask = attrs.evolve(ASK, sampling=attrs.evolve(ASK.sampling, stop=(stop,)))
    generation, emitted = answer(ask)
    assert generation.completion.text == ""
    assert generation.completion.finish_reason == "stop"
    assert generation.usage.completion_tokens == 1
    assert sum(tokens for _, tokens in emitted) == 1


@given(limit=st.integers(1, 60), more=st.integers(1, 60), seed=st.integers(0, 1000))
def test_a_shorter_answer_is_the_beginning_of_a_longer_one(
    limit: int, more: int, seed: int
) -> None:
    """That is what makes a continuation right."""

    def words(tokens: int) -> list[str]:
        return mock_words(attrs.evolve(ASK, sampling=Sampling(max_tokens=tokens, seed=seed)))

    assert words(limit + more)[:limit] == words(limit)


def test_a_continuation_is_part_of_the_prompt() -> None:
    """As with a real backend, which has to read it."""
    said = answer(ASK)[0].completion.text[:20]
    generation, _ = answer(rest(ASK, said))
    assert generation.usage.prompt_tokens == 4 + len(said.split())


def test_fail_after_counts_the_tokens_of_this_try() -> None:
    """What another peer delivered is not ours."""
    said = " ".join(mock_words(ASK)[:5])
    emitted: list[str] = []

    async def emit(text: str, tokens: int) -> None:
        emitted.extend([text] if tokens else [])

    with pytest.raises(GenerationFailed, match="told to fail after 3"):
        trio.run(MockBackend(MockScript(fail_after=3)).generate, rest(ASK, said), emit)
    assert len(emitted) == 3


def test_all_mocks_offer_the_same_model() -> None:
    """So that any of them can go on with another's answer."""
    (one,) = MockBackend(MockScript(model="a")).offers
    (other,) = MockBackend(MockScript(model="b", decode_rate=3)).offers
    assert one.continues
    assert one.digest is not None
    assert one.chat_template is not None
    assert (one.digest, one.chat_template) == (other.digest, other.chat_template)
