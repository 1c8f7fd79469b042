"""What a router publishes of who is there, in virtual time."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.events import Bus, PeerJoined, PeerLeft
from punch.testing import open_swarm


async def test_a_listener_joins_once_and_leaves_once(autojump_clock: MockClock) -> None:
    """However often it says how it is in between."""
    events = Bus()
    with events.subscribe(PeerJoined, PeerLeft) as subscription, trio.fail_after(3600):
        async with open_swarm() as swarm:
            await swarm.listener("a", MockBackend(MockScript()))
            async with swarm.router(events=events) as router:
                await trio.sleep(5)
                joined = subscription.drain().events
                swarm.kill("a")
                while router.peers:
                    await trio.sleep(1)
                left = subscription.drain().events
    (join,), (leave,) = joined, left
    assert join == PeerJoined(at=join.at, peer_id=PeerId("a"))
    assert leave == PeerLeft(at=leave.at, peer_id=PeerId("a"))
    assert join.at < leave.at
