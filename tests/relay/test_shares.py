"""How fast each peer's circuits through a relay may go."""

from __future__ import annotations

import heapq

import pytest

from punch.relay import Shares


def carried(rate: float, senders: list[str], *, seconds: float = 60.0) -> dict[str, int]:
    """What each has moved that sends a hundred bytes whenever it may; one name for each flow."""
    shares, moved = Shares(rate), dict.fromkeys(senders, 0)
    turns = [(0.0, number) for number in range(len(senders))]
    while turns:
        now, number = heapq.heappop(turns)
        if now < seconds:
            owner = senders[number]
            moved[owner] += 100
            heapq.heappush(turns, (now + shares.pause(owner, 100, now=now), number))
    return moved


def test_a_peer_alone_has_the_whole_rate() -> None:
    """A hundred bytes of a hundred a second take a second."""
    assert Shares(100.0).pause("one", 100, now=0.0) == 1.0


def test_both_ways_of_a_circuit_have_the_rate_together() -> None:
    """What goes back waits for what went there."""
    shares = Shares(100.0)
    assert shares.pause("one", 100, now=0.0) == 1.0
    assert shares.pause("one", 100, now=0.0) == 2.0
    assert carried(1000.0, ["one", "one"])["one"] == pytest.approx(60_000, rel=0.02)


def test_peers_that_move_much_have_the_same_part_each() -> None:
    """However many circuits each has; together they have no more than the rate."""
    moved = carried(1000.0, ["one", "other", "other", "other"])
    assert moved["one"] == pytest.approx(moved["other"], rel=0.1)
    assert sum(moved.values()) == pytest.approx(60_000, rel=0.05)


def test_a_thousand_sessions_that_say_a_byte_a_second_slow_nobody_down() -> None:
    """Each takes what its byte takes, and not a thousandth of the line."""
    shares = Shares(100_000.0)
    for number in range(1000):
        shares.pause(number, 1, now=number / 1000)
    assert shares.pause("one", 100_000, now=1.0) <= 1.1


def test_a_peer_that_is_done_with_what_it_has_moved_has_no_part() -> None:
    """Nothing is kept of it, and it begins anew when it comes back."""
    shares = Shares(100.0)
    shares.pause("over", 100, now=0.0)
    assert shares.pause("one", 100, now=1.0) == 1.0
    assert list(shares._until) == ["one"]
    assert shares.pause("over", 100, now=5.0) == 1.0
