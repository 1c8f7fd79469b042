"""What further tries are paid from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punch.routing import LATE_LEAVES, Budget


@given(first_tries=st.integers(0, 500), share=st.floats(0.0, 0.5), reserve=st.floats(0.0, 5.0))
def test_further_tries_stay_a_share_of_the_first(
    first_tries: int, share: float, reserve: float
) -> None:
    """Beyond the reserve, and however often one is asked for."""
    budget = Budget(share=share, reserve=reserve, per_second=0.0)
    further = 0
    for _ in range(first_tries):
        budget.deposit(0.0)
        further += sum(budget.withdraw(0.0) for _ in range(3))
    assert further <= share * first_tries + reserve + 1e-6


def test_time_refills_the_reserve_and_no_more() -> None:
    """A dialer that asks once an hour may still try again."""
    budget = Budget(reserve=2.0, per_second=1.0)
    assert [budget.withdraw(0.0) for _ in range(3)] == [True, True, False]
    assert not budget.withdraw(0.5)
    assert budget.withdraw(1.0)
    assert budget.left(1000.0) == 2.0


def test_what_was_earned_is_not_lost_to_time_and_is_bounded() -> None:
    """A busy hour does not pay for a storm of an hour."""
    budget = Budget(share=0.5, reserve=2.0, per_second=1.0)
    for _ in range(10):
        budget.deposit(0.0)
    assert budget.left(1000.0) == 7.0
    for _ in range(1000):
        budget.deposit(1000.0)
    assert budget.left(1000.0) == 20.0


def test_who_is_only_late_leaves_something_for_a_death() -> None:
    """However many are late at once, the peer that dies then is gone on from."""
    budget = Budget(per_second=0.0)
    for _ in range(1000):
        budget.deposit(0.0)
        budget.withdraw(0.0, leaving=LATE_LEAVES)
    assert LATE_LEAVES <= budget.left(0.0) < LATE_LEAVES + 1.0
    assert budget.withdraw(0.0)
