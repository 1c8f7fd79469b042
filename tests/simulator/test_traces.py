"""Traces: two formats, two generators, and what is done to make them fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from punch.exceptions import ConfigurationError
from punch.simulator import Trace, generate, open_trace, parse_trace, read_trace

MOONCAKE = [
    '{"timestamp": 0, "input_length": 1030, "output_length": 5, "hash_ids": [0, 1, 2]}\n',
    '{"timestamp": 1500, "input_length": 512, "output_length": 0, "hash_ids": [0]}\n',
    '{"timestamp": 3000, "input_length": 1540, "output_length": 7, "hash_ids": [0, 1, 2, 3]}\n',
]
AZURE = [
    "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "2023-11-16 18:17:03.9799600,4808,10\n",
    "2023-11-16 18:17:05.4799600,110,27\n",
]


def test_a_mooncake_line_is_a_request_with_its_blocks() -> None:
    """Seconds, lengths and ids; an answer has at least one token."""
    first, second, third = parse_trace("m", MOONCAKE).requests
    assert (first.arrival, first.input_tokens, first.output_tokens) == (0.0, 1030, 5)
    assert list(first.block_lengths()) == [(0, 512), (1, 512), (2, 6)]
    assert (second.arrival, second.output_tokens) == (1.5, 1)
    assert first.conversation == third.conversation != second.conversation


def test_an_azure_line_is_a_request_that_shares_nothing() -> None:
    """Its time is counted from the first line."""
    first, second = parse_trace("a", AZURE).requests
    assert (first.arrival, first.input_tokens, first.output_tokens) == (0.0, 4808, 10)
    assert second.arrival == pytest.approx(1.5)
    assert not set(first.blocks) & set(second.blocks)


@pytest.mark.parametrize(
    ("lines", "place", "rule"),
    [
        ([], "line 1", "neither"),
        (["hello\n"], "line 1", "neither"),
        ([MOONCAKE[0], "{oops\n"], "line 2", "JSON object"),
        ([MOONCAKE[0].replace("1030", "-1")], "input_length is -1", "whole number from 1"),
        ([MOONCAKE[0].replace("1030", "99")], "hash_ids has 3 entries", "99 tokens need 1"),
        ([MOONCAKE[2], MOONCAKE[0]], "timestamp is 0", "earlier"),
        ([AZURE[0], "2023-11-16 18:17:03.97,12\n"], "line 2", "three cells"),
        ([AZURE[0], "yesterday,12,13\n"], "line 2", "a time and two whole numbers"),
        ([AZURE[0], AZURE[2], AZURE[1]], "line 3", "earlier"),
        ([AZURE[0]], "holds no request", "complete"),
    ],
)
def test_a_bad_line_is_named_with_the_rule_it_breaks(
    lines: list[Any] | list[str], place: str, rule: str
) -> None:
    """Line, what is there, rule."""
    with pytest.raises(ConfigurationError) as caught:
        parse_trace("trace", lines)
    assert place in str(caught.value)
    assert rule in str(caught.value)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigurationError, match="conversation or code"):
        read_trace(tmp_path / "absent.jsonl")


def test_a_trace_at_a_rate_keeps_its_rhythm() -> None:
    """Gaps stay in proportion."""
    trace = parse_trace("m", MOONCAKE).at_rate(6.0)
    assert [request.arrival for request in trace.requests] == [0.0, 0.25, 0.5]


def test_scaled_prompts_share_what_they_shared() -> None:
    """Equal blocks stay equal in length."""
    first, _, third = parse_trace("m", MOONCAKE).scaled(inputs=0.1, outputs=0.5).requests
    assert list(third.block_lengths())[:2] == list(first.block_lengths())[:2] == [(0, 51), (1, 51)]
    assert third.output_tokens == 4


def test_a_sample_takes_whole_conversations() -> None:
    """Reuse is what the trace is about; thinning turn by turn would take it out."""
    trace = generate("conversation", 400, Random(1))
    sample = trace.sample(60, Random(2))
    turns = Counter(request.conversation for request in trace.requests)
    kept = Counter(request.conversation for request in sample.requests)
    assert len(sample) == 60
    assert sum(kept[name] != turns[name] for name in kept) <= 1


def _reuse(trace: Trace) -> float:
    seen: set[int] = set()
    shared = total = 0
    for request in trace.requests:
        known = 0
        for block in request.blocks:
            if block not in seen:
                break
            known += 1
        shared += known
        total += len(request.blocks)
        seen.update(request.blocks)
    return shared / total


def _median(values: Iterable[int]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def test_made_up_conversations_have_the_statistics_of_the_real_ones() -> None:
    """Measured on the file: medians 6,909 and 350 tokens, reuse 0.366, 1.63 turns."""
    trace = generate("conversation", 6000, Random(3))
    assert _median(r.input_tokens for r in trace.requests) == pytest.approx(6909, rel=0.15)
    assert _median(r.output_tokens for r in trace.requests) == pytest.approx(350, rel=0.1)
    assert _reuse(trace) == pytest.approx(0.366, abs=0.06)
    turns = len(trace) / len({r.conversation for r in trace.requests})
    assert turns == pytest.approx(1.63, rel=0.1)


def test_made_up_code_has_the_statistics_of_the_real_one() -> None:
    """Measured on the file: medians 1,469 and 13 tokens, nothing shared, bursts."""
    trace = generate("code", 6000, Random(3))
    assert _median(r.input_tokens for r in trace.requests) == pytest.approx(1469, rel=0.1)
    assert _median(r.output_tokens for r in trace.requests) == pytest.approx(13, rel=0.1)
    assert _reuse(trace) == 0
    counts = Counter(int(request.arrival // 10) for request in trace.requests)
    found = [counts[i] for i in range(max(counts) + 1)]
    mean = sum(found) / len(found)
    assert sum((n - mean) ** 2 for n in found) / len(found) > 20 * mean


def test_the_same_seed_makes_the_same_trace() -> None:
    """And another one another."""
    assert open_trace("code", 50, Random(1)) == open_trace("code", 50, Random(1))
    assert open_trace("code", 50, Random(1)) != open_trace("code", 50, Random(2))


def test_an_unknown_generator_is_taken_for_a_file() -> None:
    """The text names both ways."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_trace("chatter", 5, Random(1))
