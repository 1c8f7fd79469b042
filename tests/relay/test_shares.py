"""How fast each circuit of a relay may go."""

from __future__ import annotations

from punch.relay import Shares


def test_a_circuit_alone_has_the_whole_rate() -> None:
    """A hundred bytes of a hundred a second take a second."""
    assert Shares(100.0).pause("one", 100, now=0.0) == 1.0


def test_circuits_that_move_have_the_same_part_each() -> None:
    """Whoever sends more waits longer."""
    shares = Shares(100.0)
    shares.pause("other", 1, now=0.0)
    assert shares.pause("one", 100, now=0.5) == 2.0


def test_a_circuit_that_moves_nothing_or_has_ended_has_no_part() -> None:
    """Open sessions say little, and slow nobody down."""
    shares = Shares(100.0)
    shares.pause("idle", 1, now=0.0)
    assert shares.pause("one", 100, now=5.0) == 1.0
    shares.pause("over", 1, now=5.0)
    shares.forget("over")
    assert shares.pause("one", 100, now=5.0) == 1.0
