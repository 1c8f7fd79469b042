"""A trouble that lasts is told once, then at doubling intervals, then when it is over."""

from __future__ import annotations

import itertools
import logging

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from punch.bootstrap import open_bootstrap
from punch.discovery import KnownPeers, bootstrap_sources, parse_bootstrap
from punch.discovery._announcement import Announcement
from punch.discovery._quiet import FIRST_SECONDS, MAX_SECONDS, Lasting
from punch.testing import Swarm

# The virtual hours of a test are one.
AWAY_SECONDS = 3000.0


@given(st.lists(st.floats(0.1, 5000.0), min_size=1, max_size=200))
def test_the_times_that_are_told_lie_ever_farther_apart(pauses: list[float]) -> None:
    """Whenever it is noticed; and never farther than the limit and one pause."""
    trouble, now, told = Lasting(), 0.0, list[float]()
    for pause in pauses:
        if trouble.goes_on(now):
            told.append(now)
        now += pause
    assert told[0] == 0.0
    for number, (before, after) in enumerate(itertools.pairwise(told)):
        assert after - before >= min(FIRST_SECONDS * 2**number, MAX_SECONDS)
    assert trouble.ended(now) == now
    assert trouble.ended(now) is None
    assert trouble.goes_on(now)


async def test_a_bootstrap_that_is_away_fills_no_log(
    swarm: Swarm, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried six hundred times, told of nine times at most, and once when it is back."""
    caplog.set_level(logging.INFO)
    node = swarm.network.node("alone")
    server = swarm.network.node("late")
    server.is_up = False
    place = parse_bootstrap(server.addresses[0])
    (source,) = bootstrap_sources(node, [place], known=KnownPeers(None), namespace="testing")
    announce = Announcement(node, namespace="testing", roles={"listener"}, incarnation=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run, announce, lambda sighting: None)
        await trio.sleep(AWAY_SECONDS)
        told = [r for r in caplog.records if "the bootstrap is out of reach" in r.getMessage()]
        server.is_up = True
        async with open_bootstrap(server):
            await trio.sleep(10)
        nursery.cancel_scope.cancel()
    back = [r for r in caplog.records if "the bootstrap is back" in r.getMessage()]
    assert 3 < len(told) <= 9
    assert len(back) == 1
