"""Subscribers with a task of their own, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from punch._subscribers import open_bus, open_subscriber
from punch.capability import PeerId
from punch.events import Event, PeerJoined, PeerLeft

A = PeerId("a")


async def test_a_subscriber_handles_events_in_its_own_task(autojump_clock: MockClock) -> None:
    """The publisher goes on at once."""
    bus = open_bus()
    heard: list[Event] = []
    async with open_subscriber(bus, PeerJoined, handle=heard.append):
        bus.publish(PeerJoined(at=0.0, peer_id=A))
        bus.publish(PeerLeft(at=0.0, peer_id=A))
        assert heard == []
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [PeerJoined(at=0.0, peer_id=A)]


async def test_catching_up_handles_what_was_published_so_far(autojump_clock: MockClock) -> None:
    """A total that is shown now has all that happened before now."""
    bus = open_bus()
    heard: list[Event] = []
    async with open_subscriber(bus, PeerJoined, handle=heard.append) as subscriber:
        bus.publish(PeerJoined(at=0.0, peer_id=A))
        subscriber.catch_up()
        assert len(heard) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert len(heard) == 1


async def test_the_last_events_are_handled_at_the_end(autojump_clock: MockClock) -> None:
    """Also those that nobody had time for."""
    bus = open_bus()
    heard: list[Event] = []
    async with open_subscriber(bus, PeerJoined, handle=heard.append):
        bus.publish(PeerJoined(at=0.0, peer_id=A))
    assert len(heard) == 1


async def test_a_bug_in_a_handler_is_logged_and_the_next_event_handled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One event's bug is not the next one's."""
    bus = open_bus()
    heard: list[Event] = []

    def handle(event: Event) -> None:
        heard.append(event)
        if len(heard) == 1:
            raise ValueError("a bug")

    async with open_subscriber(bus, PeerJoined, handle=handle):
        bus.publish(PeerJoined(at=0.0, peer_id=A))
        bus.publish(PeerJoined(at=1.0, peer_id=A))
    assert len(heard) == 2
    assert "a subscriber has a bug" in caplog.text


async def test_a_subscriber_is_told_what_it_lost(autojump_clock: MockClock) -> None:
    """And how many events, each time."""
    bus = open_bus()
    heard: list[Event] = []
    lost: list[int] = []
    opened = open_subscriber(bus, PeerJoined, handle=heard.append, lost=lost.append, limit=2)
    async with opened as subscriber:
        for at in range(5):
            bus.publish(PeerJoined(at=at, peer_id=A))
        subscriber.catch_up()
        subscriber.catch_up()
    assert (len(heard), lost) == (2, [3])
