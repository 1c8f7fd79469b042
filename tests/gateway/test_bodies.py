"""Room for the bodies of requests under way."""

from __future__ import annotations

from punch.gateway import Limits
from punch.gateway.server._limits import ALWAYS_TAKEN, Bodies

LONG = 2 * ALWAYS_TAKEN


def test_one_key_leaves_half_of_the_room_to_the_others():
    """Whoever sends the longest bodies shuts nobody out but itself."""
    bodies = Bodies(Limits(body=LONG, bodies=4 * LONG))
    with bodies.room("ada") as first, bodies.room("ada") as second, bodies.room("ada") as third:
        assert [room.grow(LONG) for room in (first, second, third)] == [True, True, False]
        assert third.grow(ALWAYS_TAKEN)
        with bodies.room("bob") as other:
            assert other.grow(LONG)
            assert bodies.held == 3 * LONG
    with bodies.room("ada") as again:
        assert again.grow(LONG)
    assert (bodies.held, dict(bodies.held_by)) == (0, {})


def test_without_keys_all_of_the_room_is_for_anybody():
    """There is nobody to be told apart."""
    bodies = Bodies(Limits(body=LONG, bodies=2 * LONG))
    with bodies.room() as first, bodies.room() as second, bodies.room() as third:
        assert [room.grow(LONG) for room in (first, second, third)] == [True, True, False]


def test_the_longest_body_that_is_allowed_always_finds_room_in_an_empty_house():
    """However small the room for all is set."""
    bodies = Bodies(Limits(body=LONG, bodies=1))
    with bodies.room("ada") as room:
        assert room.grow(LONG)
