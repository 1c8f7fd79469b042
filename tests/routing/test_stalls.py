"""When silence is no longer a peer's usual way of speaking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.routing import Pace, StallDetector
from punch.routing._stalls import CEILING_SECONDS, FLOOR_SECONDS


def after(
    gaps: list[float],
    *,
    gap: float | None = None,
    prefill_rate: float | None = None,
    floor: float = FLOOR_SECONDS,
) -> StallDetector:
    """The rhythm after texts with these gaps between them, from second 100 on."""
    now = 100.0
    rhythm = StallDetector(now, gap=gap, prefill_rate=prefill_rate, floor=floor)
    for one in gaps:
        now += one
        rhythm.heard(now)
    return rhythm


def patience(rhythm: StallDetector) -> float:
    """How long it may be silent."""
    return rhythm.overdue_at - rhythm.heard_at


def test_a_quick_peer_is_missed_after_the_floor() -> None:
    """Ten milliseconds between tokens, and then nothing."""
    assert patience(after([0.01] * 50)) == FLOOR_SECONDS


def test_a_slow_peer_is_given_its_own_time() -> None:
    """Half a second a token: twenty of these."""
    assert patience(after([0.5] * 50)) == pytest.approx(10.0)


def test_a_restless_peer_is_given_more_than_an_even_one() -> None:
    """The same mean gap, with and without deviation."""
    assert patience(after([0.1, 0.7] * 50)) > patience(after([0.4] * 100)) + 1.0


def test_the_first_gap_is_the_predicted_one() -> None:
    """And where nothing is predicted, the ceiling."""
    assert patience(after([], gap=0.3)) == pytest.approx(6.0)
    assert patience(after([])) == CEILING_SECONDS


def test_another_requests_prompt_may_come_between() -> None:
    """A peer that reads 200 tokens a second is busy for ten seconds with a piece of one."""
    assert patience(after([0.01] * 9, prefill_rate=200.0)) == pytest.approx(10.44, abs=0.3)


@given(
    gaps=st.lists(st.floats(0.0, 1e4), max_size=30),
    gap=st.none() | st.floats(0.0, 1e6),
    prefill_rate=st.none() | st.floats(1e-6, 1e9),
)
def test_patience_has_a_floor_and_a_ceiling(
    gaps: list[float], gap: float | None, prefill_rate: float | None
) -> None:
    """Whatever was predicted and whatever came."""
    rhythm = after(gaps, gap=gap, prefill_rate=prefill_rate)
    assert FLOOR_SECONDS - 1e-6 <= patience(rhythm) <= CEILING_SECONDS + 1e-6


def test_an_answer_is_not_behind_for_the_prompts_of_others() -> None:
    """Ten tokens of 0.1 s may take four times as long and the floor, and what held them up."""
    assert Pace(0.1, 2.0).is_behind(10, awaited=6.0)
    assert not Pace(0.1, 2.0, lambda: 3.0).is_behind(10, awaited=8.9)
    assert Pace(0.1, 2.0, lambda: 3.0).is_behind(10, awaited=9.0)
