"""Splits that are started when a request is worth it: planned again and again, and ended idle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from punch.backends import Backend, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.cluster.coordinator import OnDemand, Outlook, SplitOnDemand, open_on_demand
from punch.cluster.coordinator._on_demand import LOOK_SECONDS, PLAN_SECONDS
from punch.dialer import Router, open_router
from punch.exceptions import BackendCrashed, NoPeerAvailable
from punch.listener import Listener
from punch.placement import Parts, Plan, Prediction, Refused, Share
from punch.testing import Swarm

OFFER = ModelOffer(name="big", digest="ab" * 32)

PREDICTION = Prediction(
    token=0.05, first_token=1.0, prompt_rate=100.0, load=8.0, seconds=2.0, terms={}, step=0.075,
    token_parts=Parts(), prompt_parts=Parts(), load_parts=Parts(),
)  # fmt: skip

REFUSED = Refused(word="slower", reason="one machine alone takes 2 s, and the best split 3 s")


def plan(*workers: str) -> Plan:
    """Ten layers each."""
    shares = tuple(
        Share(device=f"{who}/0", holder=who, layers=range(10 * n, 10 * n + 10), weights=1, kv=1)
        for n, who in enumerate(workers)
    )
    fields: dict[str, Any] = {
        "output_on_head": False, "is_tied": False, "micro_batch": 64, "slots": 2,
        "context_tokens": 512, "speculation": None, "prediction": PREDICTION,
    }  # fmt: skip
    return Plan(shares=shares, **fields)


class Running(MockBackend):
    """A split that answers, and says that it is no mock."""

    def __init__(self) -> None:
        super().__init__(MockScript(decode_rate=20.0, prefill_rate=100.0, slots=2))
        self.simulated = False
        self.name = "engine"
        self.offers = tuple(
            attrs.evolve(one, name="big", digest=OFFER.digest, split=True) for one in self.offers
        )


@attrs.define
class Lab:
    """What is planned, and how often it was opened and closed."""

    planned: Plan | Refused
    left_out: Mapping[str, str] = attrs.field(factory=dict)
    is_own: bool = False
    opened: int = 0
    closed: int = 0
    fails: bool = False

    async def plan(self) -> Outlook:
        """As `plan_once`."""
        return Outlook(plan=self.planned, left_out=self.left_out, is_own=self.is_own)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backend]:
        """As `open_split`."""
        self.opened += 1
        await trio.sleep(8.0)
        if self.fails:
            raise BackendCrashed("a lends nothing now")
        try:
            yield Running()
        finally:
            self.closed += 1

    @property
    def split(self) -> SplitOnDemand:
        """The split that is offered."""
        return SplitOnDemand(
            offer=OFFER, plan=self.plan, open=self.open, owner_of=lambda who: f"owner of {who}"
        )


@asynccontextmanager
async def demand(
    lab: Lab, swarm: Swarm, **given: Any
) -> AsyncIterator[tuple[OnDemand, Router, Listener]]:
    """A listener without any lane, its splits, and a router that starts them."""
    listener = await swarm.listener("head", ())
    async with (
        open_on_demand(listener, [lab.split], **given) as splits,
        open_router(listener=listener, startable=splits.startable, start=splits.start) as router,
    ):
        yield splits, router, listener


async def test_a_split_is_started_as_a_lane_of_this_process(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """By the first request, with what its plan predicts; and answers all that follow."""
    lab = Lab(plan("a", "b"), {"c": "it lends nothing now"})
    async with demand(lab, swarm) as (splits, router, listener):
        (offer,) = splits.startable()
        assert offer.offer.split
        assert (offer.workers, offer.owners) == (2, ("owner of a", "owner of b"))
        assert (offer.seconds, offer.slots, offer.offer.decode_rate) == (8.0, 2, 20.0)
        assert offer.offer.slowdown == pytest.approx(0.5)
        assert "not in it: c: it lends nothing now" in offer.plan
        for _ in range(3):
            answer = await router.ask("hi", model="big", max_tokens=4)
            assert answer.executor == listener.peer_id
        assert (lab.opened, len(listener.lanes)) == (1, 1)
        assert router.startable == ()


async def test_a_split_that_nobody_asks_gives_its_memory_back(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """And is started anew when it is asked again."""
    lab = Lab(plan("a"))
    async with demand(lab, swarm, idle_seconds=60.0) as (_, router, listener):
        for times in (1, 2):
            await router.ask("hi", model="big", max_tokens=4)
            await trio.sleep(40.0)
            await router.ask("hi", model="big", max_tokens=4)
            await trio.sleep(60.0 - 2 * LOOK_SECONDS)
            assert (lab.opened, lab.closed) == (times, times - 1)
            await trio.sleep(4 * LOOK_SECONDS)
            assert (lab.opened, lab.closed, listener.lanes) == (times, times, ())
            await trio.sleep(PLAN_SECONDS)
            assert [one.why_not for one in router.startable] == [None]


async def test_no_split_is_offered_that_its_plan_refuses(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """It says why, and looks again: workers come and go."""
    lab = Lab(REFUSED)
    async with demand(lab, swarm) as (splits, router, _):
        assert [one.why_not for one in splits.startable()] == [REFUSED.reason]
        assert splits.why_not == {"big": REFUSED.reason}
        assert router.offering == router.peers
        with pytest.raises(NoPeerAvailable, match=REFUSED.reason):
            await router.ask("hi", model="big")
        lab.planned = plan("a")
        await trio.sleep(PLAN_SECONDS + 1.0)
        (one,) = router.startable
        lab.planned = plan("a", "b")
        await trio.sleep(PLAN_SECONDS)
        (other,) = router.startable
        assert one.offer.id != other.offer.id
        assert splits.why_not == {}


async def test_what_could_be_started_is_the_owners_if_its_plan_is(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """As told by the next plan; what runs then says it for itself."""
    lab = Lab(plan("a"), is_own=True)
    async with demand(lab, swarm) as (splits, _, _):
        (offer,) = splits.startable()
        assert offer.offer.own_workers
        lab.is_own = False
        await trio.sleep(PLAN_SECONDS + 1.0)
        (offer,) = splits.startable()
        assert not offer.offer.own_workers


async def test_a_split_that_does_not_start_says_why(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """With the words of whoever did not lend."""
    lab = Lab(plan("a"), fails=True)
    async with demand(lab, swarm) as (_, router, listener):
        with pytest.raises(NoPeerAvailable, match="a lends nothing now"):
            await router.ask("hi", model="big")
        assert listener.lanes == ()
