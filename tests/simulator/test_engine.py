"""The service model: by hand for small cases, and by its invariants for any."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punch.simulator import Engine, Job, PoolPeer, PrefixCache, TraceRequest, forecast, job_of
from punch.simulator._engine import PIECE_TOKENS

PEER = PoolPeer(name="p", prefill_rate=100.0, decode_rate=10.0, slowdown=0.5, slots=2)


def job(key: str = "j", *, prompt: int = 100, output: int = 11, cached: int = 0) -> Job:
    return Job(key=key, prompt_tokens=prompt, cached_tokens=cached, output_tokens=output)


def request(*blocks: int, tokens: int = 10, block_tokens: int = 10) -> TraceRequest:
    return TraceRequest(
        arrival=0.0,
        input_tokens=block_tokens * (len(blocks) - 1) + tokens,
        output_tokens=1,
        blocks=blocks,
        block_tokens=block_tokens,
        conversation=0,
    )


def test_one_request_alone_takes_reading_plus_writing() -> None:
    """100 tokens at 100 a second; the first token comes with it, ten more at 10 a second."""
    engine, only = Engine(PEER), job()
    engine.begin(only, 0.0)
    engine.advance(10.0)
    assert only.first_at == pytest.approx(1.0)
    assert only.ended_at == pytest.approx(2.0)


def test_prompts_are_read_one_after_another() -> None:
    """The second begins to be read when the first is."""
    engine, first, second = Engine(PEER), job("a"), job("b", output=1)
    engine.begin(first, 0.0)
    engine.begin(second, 0.0)
    engine.advance(1.5)
    assert first.first_at == pytest.approx(1.0)
    assert second.first_at is None
    engine.advance(2.0)
    assert second.first_at == pytest.approx(2.0)


def test_a_batch_slows_everybody_by_its_slope() -> None:
    """Two answers are made side by side at 10 / 1.5 tokens a second each."""
    engine, first, second = Engine(PEER), job("a", output=100), job("b", output=100)
    engine.begin(first, 0.0)
    engine.begin(second, 0.0)
    engine.advance(2.0)
    before = first.made
    engine.advance(5.0)
    assert second.made == pytest.approx(1 + 30 / 1.5)
    assert first.made == pytest.approx(before + 30 / 1.5)


def test_a_prompt_takes_the_machine() -> None:
    """While it is read the others get a token for every piece of it, as llama.cpp does."""
    engine, first = Engine(PEER), job("a", output=100)
    second = job("b", prompt=2 * PIECE_TOKENS, output=100)
    engine.begin(first, 0.0)
    engine.begin(second, 2.0)
    engine.advance(2.0)
    assert first.made == pytest.approx(1 + 10)
    read = 2.0 + 2 * PIECE_TOKENS / 100
    assert engine.milestone(second) == pytest.approx(read)
    assert engine.milestone(first) == pytest.approx(read + (89 - 2) * 1.5 / 10)
    engine.advance(read)
    assert first.made == pytest.approx(1 + 10 + 2)
    assert second.made == pytest.approx(1.0)


def test_an_answer_may_end_beside_a_prompt() -> None:
    """Its last token comes between two pieces."""
    engine, first = Engine(PEER), job("a", output=2)
    engine.begin(first, 0.0)
    engine.begin(job("b", prompt=2 * PIECE_TOKENS), 1.0)
    engine.advance(1.0)
    due = 1.0 + PIECE_TOKENS / 100
    assert engine.milestone(first) == pytest.approx(due)
    engine.advance(100.0)
    assert first.ended_at == pytest.approx(due)


def test_what_is_cached_is_not_read() -> None:
    """But for one token at least."""
    engine, only = Engine(PEER), job(cached=100)
    engine.begin(only, 0.0)
    assert engine.milestone(only) == pytest.approx(0.01)


def test_a_model_that_was_put_away_is_loaded_first() -> None:
    """Once, for the request that finds the machine idle."""
    engine = Engine(PoolPeer(name="p", prefill_rate=100.0, decode_rate=10.0, load_seconds=3.0))
    first, second = job("a"), job("b")
    engine.begin(first, 0.0)
    engine.begin(second, 0.0)
    engine.advance(4.5)
    assert first.first_at == pytest.approx(4.0)
    engine.advance(5.0)
    assert second.first_at == pytest.approx(5.0)


def test_a_forecast_is_what_happens() -> None:
    """The oracle's copy runs as the machine itself does, and leaves it alone."""
    engine = Engine(PEER)
    engine.begin(job("a"), 0.0)
    engine.begin(job("b", output=30), 0.5)
    predicted = forecast(engine, [job("c")], job("d"))
    assert (engine.now, engine.active) == (0.5, 2)
    queue, last = [job("c"), job("d")], None
    while last is None or last.ended_at is None:
        while queue and engine.active < engine.slots:
            last = queue.pop(0)
            engine.begin(last, engine.now)
        engine.advance(engine.next_event())
        last = last if not queue else job("not yet")
    assert last.ended_at == pytest.approx(predicted)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(1, 500), st.integers(1, 60), st.floats(0.01, 4)),
        min_size=1,
        max_size=12,
    )
)
def test_every_request_is_done_once_in_order_and_never_faster_than_alone(
    steps: list[tuple[float, int, int, float]],
) -> None:
    """Whatever comes when, and however often one looks."""
    engine, now = Engine(PEER), 0.0
    jobs: list[Job] = []
    for gap, prompt, output, _ in steps:
        now += gap
        jobs.append(job(str(len(jobs)), prompt=prompt, output=output))
        engine.begin(jobs[-1], now)
    for *_, step in steps:
        now += step
        engine.advance(now)
    engine.advance(now + 10_000)
    assert engine.active == 0
    firsts: list[float] = []
    for one in jobs:
        alone = one.prompt_tokens / 100 + (one.output_tokens - 1) / 10
        assert one.begun_at is not None
        assert one.first_at is not None
        assert one.ended_at is not None
        assert one.ended_at - one.begun_at >= alone - 1e-5
        assert one.first_at <= one.ended_at
        firsts.append(one.first_at)
    assert firsts == sorted(firsts)


def test_a_cache_finds_the_longest_prefix_it_has() -> None:
    """A block in the middle that is missing ends it."""
    cache = PrefixCache(100)
    cache.add(request(1, 2, 3))
    assert cache.found(request(1, 2, 4)) == 20
    assert cache.found(request(5, 2, 3)) == 0


def test_a_cache_forgets_what_was_longest_unused() -> None:
    """The end of a prompt goes before its beginning."""
    cache = PrefixCache(40)
    cache.add(request(1, 2))
    cache.add(request(3, 4, 5))
    assert cache.tokens == 40
    assert cache.found(request(1, 2)) == 10
    assert cache.found(request(3, 4, 5)) == 30


def test_text_that_was_delivered_elsewhere_is_read_not_written() -> None:
    """A continuation is a longer prompt and a shorter answer."""
    whole = request(1, 2)
    rest = job_of(
        "k",
        TraceRequest(
            arrival=0.0,
            input_tokens=20,
            output_tokens=10,
            blocks=whole.blocks,
            block_tokens=10,
            conversation=0,
        ),
        PrefixCache(0),
        delivered=4,
    )
    assert (rest.prompt_tokens, rest.output_tokens) == (24, 6)
