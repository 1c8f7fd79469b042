"""Room for the bodies of requests under way."""

from __future__ import annotations

from punch.gateway import Limits
from punch.gateway._memory import ALWAYS_TAKEN, MemoryBudget

LONG = 2 * ALWAYS_TAKEN


def test_one_key_leaves_half_of_the_room_to_the_others() -> None:
    """Whoever sends the longest bodies shuts nobody out but itself."""
    budget = MemoryBudget(Limits(body=LONG, bodies=4 * LONG))
    with (
        budget.reserve("ada") as first,
        budget.reserve("ada") as second,
        budget.reserve("ada") as third,
    ):
        assert [room.grow(LONG) for room in (first, second, third)] == [True, True, False]
        assert third.grow(ALWAYS_TAKEN)
        with budget.reserve("bob") as other:
            assert other.grow(LONG)
            assert budget.held == 3 * LONG
    with budget.reserve("ada") as again:
        assert again.grow(LONG)
    assert (budget.held, dict(budget.held_by)) == (0, {})


def test_without_keys_all_of_the_room_is_for_anybody() -> None:
    """There is nobody to be told apart."""
    budget = MemoryBudget(Limits(body=LONG, bodies=2 * LONG))
    with budget.reserve() as first, budget.reserve() as second, budget.reserve() as third:
        assert [room.grow(LONG) for room in (first, second, third)] == [True, True, False]


def test_the_longest_body_that_is_allowed_always_finds_room_in_an_empty_house() -> None:
    """However small the room for all is set."""
    budget = MemoryBudget(Limits(body=LONG, bodies=1))
    with budget.reserve("ada") as room:
        assert room.grow(LONG)
