"""When a peer owes a sign of life, and when it counts as absent."""

from __future__ import annotations

import pytest

from punch.session._heartbeat import HEARTBEAT_SECONDS, SIGN_FACTOR, SIGN_SECONDS, Heartbeat


def heard_at(now: float) -> Heartbeat:
    """Something came at *now*, and no ping is out."""
    heartbeat = Heartbeat()
    heartbeat.begin(now)
    return heartbeat


def test_a_peer_that_was_just_heard_is_asked_for_no_sign() -> None:
    """Its other answers are signs enough."""
    heartbeat = heard_at(10.0)
    assert not heartbeat.wants_sign(10.0 + SIGN_SECONDS / 2)
    assert heartbeat.sign_due == 10.0 + SIGN_SECONDS


def test_a_quiet_peer_is_asked_once_for_a_sign() -> None:
    """While a ping is out, another would say the same."""
    heartbeat = heard_at(10.0)
    assert heartbeat.wants_sign(10.8)
    heartbeat.ping(10.8)
    assert not heartbeat.wants_sign(11.5)
    assert heartbeat.sign_due == 10.8 + SIGN_SECONDS


def test_a_sign_is_due_from_the_first_ping_that_nothing_came_after() -> None:
    """Further pings, as those of the heartbeat, give it no longer."""
    heartbeat = heard_at(10.0)
    heartbeat.ping(10.2)
    heartbeat.ping(10.2 + HEARTBEAT_SECONDS)
    assert heartbeat.sign_due == 10.2 + SIGN_SECONDS


def test_whatever_comes_is_a_sign() -> None:
    """It need not be the pong."""
    heartbeat = heard_at(10.0)
    heartbeat.ping(10.8)
    heartbeat.heard(11.0)
    assert heartbeat.sign_due == 11.0 + SIGN_SECONDS


def test_a_peer_with_a_long_round_trip_has_longer_for_a_sign() -> None:
    """A path that was slow once may be so again; less and less so with each quick pong."""
    heartbeat = heard_at(10.0)
    heartbeat.pong(heartbeat.ping(10.0), 10.4)
    heartbeat.heard(10.4)
    slow = heartbeat.sign_due - 10.4
    assert slow == pytest.approx(SIGN_SECONDS + SIGN_FACTOR * 0.4)
    heartbeat.pong(heartbeat.ping(11.0), 11.01)
    heartbeat.heard(11.01)
    assert SIGN_SECONDS < heartbeat.sign_due - 11.01 < slow
