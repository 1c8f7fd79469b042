"""What the answers of a running split teach, and what they do not."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import SMOL

from punch.placement import (
    MAX_FACTOR,
    Answered,
    Calibration,
    Device,
    Lessons,
    Link,
    Mix,
    Plan,
    Speculation,
    Wants,
    plan,
)

WANTS = Wants(
    context_tokens=2048,
    slots=1,
    mix=Mix(prompt_tokens=300, answer_tokens=50),
    min_workers=2,
    may_speculate=False,
)
DEVICES = [
    Device(
        id=f"RPC{i}",
        holder=f"worker-{i}",
        memory=10**9,
        bandwidth=6e9,
        compute=2e10,
        link=Link(rtt=0.002, rate=1e8),
    )
    for i in range(2)
]
WILD = (0.0, -1.0, math.nan, math.inf, -math.inf, 1e300, 1e-300, 5e3)


def planned(lessons: Lessons) -> Plan:
    """The next plan, with what was learned."""
    found = plan(SMOL, DEVICES, WANTS, calibration=lessons.calibration)
    assert isinstance(found, Plan)
    return found


PLAN = planned(Lessons(SMOL, WANTS))
BARE = PLAN.prediction


def answer(times: float = 1.0) -> Answered:
    """The usual one, in so many times of what the formulas say by themselves."""
    return Answered(
        prompt_tokens=300,
        prompt_seconds=BARE.first_token * times,
        answer_tokens=50,
        answer_seconds=50 * BARE.token * times,
    )


def test_what_is_slower_than_predicted_is_predicted_nearer_each_time() -> None:
    """1.4 times as slow: half of that is known after one answer, and all of it after ten."""
    lessons = Lessons(SMOL, WANTS)
    before = (0.4, 0.4)
    for _ in range(10):
        lessons.learn(planned(lessons), DEVICES, answer(1.4))
        now = planned(lessons).prediction
        after = (
            abs(now.token / BARE.token - 1.4),
            abs(now.first_token / BARE.first_token - 1.4),
        )
        assert all(new < old for new, old in zip(after, before, strict=True))
        before = after
    assert max(before) < 0.01


def test_answers_of_another_length_are_held_against_their_own_prediction() -> None:
    """A short prompt says nothing of a long one that the formulas do not know already."""
    lessons = Lessons(SMOL, WANTS)
    for read, made in ((40, 400), (1500, 9), (700, 200)):
        found = lessons.predict(planned(lessons), DEVICES, Mix(prompt_tokens=read, answer_tokens=0))
        whole = Mix(prompt_tokens=read, answer_tokens=made)
        token = lessons.predict(planned(lessons), DEVICES, whole).token
        seen = Answered(
            prompt_tokens=read,
            prompt_seconds=found.first_token,
            answer_tokens=made,
            answer_seconds=made * token,
        )
        lessons.learn(planned(lessons), DEVICES, seen)
    assert planned(lessons).prediction.token == pytest.approx(BARE.token, rel=1e-6)
    assert planned(lessons).prediction.first_token == pytest.approx(BARE.first_token, rel=1e-6)


def test_what_is_cached_was_not_read_and_is_looked_back_at() -> None:
    """A conversation goes on: little is read, and each token has a long context."""
    lessons = Lessons(SMOL, WANTS)
    whole = lessons.predict(planned(lessons), DEVICES, Mix(prompt_tokens=1900, answer_tokens=50))
    seen = Answered(
        prompt_tokens=5,
        cached_tokens=1895,
        prompt_seconds=9.0,
        answer_tokens=50,
        answer_seconds=50 * whole.token,
    )
    lessons.learn(planned(lessons), DEVICES, seen)
    assert planned(lessons).prediction.token == pytest.approx(BARE.token, rel=1e-6)
    assert planned(lessons).prediction.first_token == BARE.first_token


@pytest.mark.parametrize("wild", WILD)
def test_one_wild_answer_among_others_changes_nothing_much(wild: float) -> None:
    """Nor does it where it is the first one: half as much again, and soon forgotten."""
    lessons = Lessons(SMOL, WANTS)
    seen = attrs.evolve(answer(), prompt_seconds=wild, answer_seconds=wild)
    lessons.learn(planned(lessons), DEVICES, seen)
    assert 0.66 < planned(lessons).prediction.token / BARE.token < 1.51
    for _ in range(9):
        lessons.learn(planned(lessons), DEVICES, answer())
    for _ in range(2):
        lessons.learn(planned(lessons), DEVICES, seen)
        assert planned(lessons).prediction.token == pytest.approx(BARE.token, rel=0.01)
        assert planned(lessons).prediction.first_token == pytest.approx(BARE.first_token, rel=0.01)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.floats(), st.floats(), st.integers(), st.integers()), max_size=8))
def test_no_answers_spoil_what_true_ones_teach(
    seen: list[tuple[float, float, int, int]],
) -> None:
    """Whatever came before."""
    lessons, found = Lessons(SMOL, WANTS), PLAN
    for prompt_seconds, answer_seconds, read, made in seen:
        lessons.learn(
            found,
            DEVICES,
            Answered(
                prompt_tokens=read,
                cached_tokens=made,
                prompt_seconds=prompt_seconds,
                answer_tokens=made,
                answer_seconds=answer_seconds,
            ),
        )
        lessons.learn_load(found, DEVICES, prompt_seconds)
        now = lessons.predict(found, DEVICES)
        for old, new in (
            (BARE.token, now.token),
            (BARE.first_token, now.first_token),
            (BARE.load, now.load),
        ):
            assert old / MAX_FACTOR * (1 - 1e-9) <= new <= old * MAX_FACTOR * (1 + 1e-9)
    for _ in range(12):
        lessons.learn(found, DEVICES, answer())
    now = lessons.predict(found, DEVICES)
    assert now.token == pytest.approx(BARE.token, rel=0.05)
    assert now.first_token == pytest.approx(BARE.first_token, rel=0.05)


def test_what_another_plan_was_measured_to_be_is_not_counted_with_this_one() -> None:
    """Other devices have other faults."""
    lessons = Lessons(SMOL, WANTS)
    for _ in range(5):
        lessons.learn(PLAN, DEVICES, answer())
    turned = plan(SMOL, DEVICES, attrs.evolve(WANTS, tensor_split=(1, 2)))
    assert isinstance(turned, Plan)
    lessons.learn(turned, DEVICES, answer(1.4))
    # The first one of another plan is believed by half, as the very first one was.
    assert planned(lessons).prediction.token / BARE.token == pytest.approx(1.2, rel=0.05)


def test_the_time_of_a_token_is_not_known_where_the_head_guesses() -> None:
    """How many of them were right is not told; what a prompt takes is."""
    lessons = Lessons(SMOL, WANTS)
    guessing = attrs.evolve(planned(lessons), speculation=Speculation())
    lessons.learn(guessing, DEVICES, answer(1.4))
    assert lessons.calibration.token == Calibration().token
    assert planned(lessons).prediction.first_token > 1.1 * BARE.first_token


def test_a_load_is_learned_too() -> None:
    """How long a split takes to start decides whether it is worth a start."""
    lessons = Lessons(SMOL, WANTS)
    for _ in range(10):
        lessons.learn_load(planned(lessons), DEVICES, 1.4 * BARE.load)
    assert planned(lessons).prediction.load == pytest.approx(1.4 * BARE.load, rel=0.01)
    assert planned(lessons).prediction.token == BARE.token
