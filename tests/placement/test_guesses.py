"""What guessing comes to: counted in answers, priced by a plan, and left alone where it loses."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.placement import Guesses, Parts, Plan, Prediction, Speculation

# A step of a tenth of a second, to which each guessed token adds a hundredth.
PREDICTION = Prediction(
    token=0.1,
    first_token=1.0,
    prompt_rate=10.0,
    load=1.0,
    seconds=8.0,
    terms={"answer waits": 10.0, "speculation": -2.0},
    step=0.1,
    gain=1.25,
    guess=0.01,
    token_parts=Parts(),
    prompt_parts=Parts(),
    load_parts=Parts(),
)
PLAN = Plan(
    shares=(),
    output_on_head=True,
    is_tied=True,
    micro_batch=64,
    slots=1,
    context_tokens=512,
    speculation=Speculation(),
    prediction=PREDICTION,
)


def many(answers: int, *, tokens: int, guessed: int, right: int) -> Guesses:
    """So many answers of one kind."""
    found = Guesses()
    for _ in range(answers):
        found = found.after(tokens=tokens, guessed=guessed, right=right)
    return found


def test_a_right_guess_saves_a_step_and_each_guess_has_its_price() -> None:
    """A hundred tokens in sixty steps of 0.1 s, and eighty guesses of 0.01 s each."""
    found = many(1, tokens=100, guessed=80, right=40)
    assert found.steps == 60
    assert found.gain(PREDICTION) == pytest.approx(10.0 / (6.0 + 0.8))


def test_nothing_is_known_before_there_is_an_answer() -> None:
    """Then guessing is no loss, as far as anybody knows."""
    assert Guesses().gain(PREDICTION) == 1.0
    assert Guesses().pay(PREDICTION)


def test_guessing_that_loses_is_left_out_of_the_next_plan() -> None:
    """A hundred guesses for one that is right: the plan is the same otherwise."""
    found = many(5, tokens=100, guessed=100, right=1)
    assert found.gain(PREDICTION) < 1.0
    judged = PLAN.judged(found)
    assert judged == attrs.evolve(PLAN, speculation=None, prediction=judged.prediction)
    assert judged.prediction.gain == 1.0
    assert judged.prediction.seconds == pytest.approx(10.0)
    assert judged.prediction.decode_rate == pytest.approx(10.0)


def test_guessing_that_earns_its_price_stays() -> None:
    """Every tenth guess is right, which is all it takes here."""
    found = many(5, tokens=100, guessed=200, right=21)
    assert PLAN.judged(found) is PLAN


def test_guesses_that_cost_nothing_stay() -> None:
    """A text without any repetition, in which nothing is guessed at all."""
    assert PLAN.judged(many(50, tokens=100, guessed=0, right=0)) is PLAN


def test_one_odd_answer_decides_nothing() -> None:
    """It is too short to tell."""
    assert PLAN.judged(many(1, tokens=100, guessed=300, right=0)) is PLAN


def test_a_plan_without_guessing_is_left_alone() -> None:
    """There is nothing to judge."""
    plain = attrs.evolve(PLAN, speculation=None)
    assert plain.judged(many(9, tokens=100, guessed=300, right=0)) is plain


def test_guessing_is_tried_again_once_enough_is_forgotten() -> None:
    """Each plan without it forgets half."""
    found = many(90, tokens=100, guessed=300, right=0)
    tries = 0
    while PLAN.judged(found) is not PLAN:
        found = found.faded()
        tries += 1
    assert 1 <= tries <= 4


def test_what_is_asked_today_outweighs_what_was_asked_before() -> None:
    """After thousands of steps in which guessing lost, a hundred answers turn it round."""
    found = many(1000, tokens=100, guessed=100, right=1)
    assert not found.pay(PREDICTION)
    for _ in range(100):
        found = found.after(tokens=100, guessed=100, right=60)
    assert found.pay(PREDICTION)


@pytest.mark.parametrize(
    ("tokens", "guessed", "right"), [(10, 3, 4), (10, -1, -1), (-1, 0, 0), (5, 9, 6)]
)
def test_a_count_that_cannot_be_is_no_count(tokens: int, guessed: int, right: int) -> None:
    """More right than guessed, or than the answer has."""
    assert Guesses().after(tokens=tokens, guessed=guessed, right=right) == Guesses()


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(-9, 10**6), st.integers(-9, 10**6)),
        max_size=60,
    )
)
def test_an_account_is_bounded_whatever_is_told(answers: list[tuple[int, int, int]]) -> None:
    """Counts stay numbers that are 0 or more, and old steps fade."""
    found = Guesses()
    for tokens, guessed, right in answers:
        before = found
        found = found.after(tokens=tokens, guessed=guessed, right=right)
        assert min(found.steps, found.guessed, found.right) >= 0.0
        assert found.steps <= max(before.steps, 2048 + tokens)
        assert found.gain(PREDICTION) >= 0.0
