"""Whose machines a split is over: told by the grants of its workers, and kept to by whoever asks.

Workers, tunnels and engines are made up; grants, plans, listeners and dialers are real.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import pytest
import trio
from cluster.lending import open_bench
from made_up_members import MadeUpMember, MadeUpNamespace
from trio.testing import MockClock

from punch import Hints, NoPeerAvailable, Router, chat_request, open_router
from punch.backends import Loading, MockBackend, MockScript
from punch.cluster.coordinator import HeadBuild, Split, WorkerLender, plan_once
from punch.cluster.coordinator._telling import Telling
from punch.llama_cpp import RpcVersion
from punch.placement import Device, Parts, Plan, Prediction, Refused, Share
from punch.processes import Supervised
from punch.testing import open_swarm

HOME = MadeUpNamespace("home")
DESK = HOME.admin("desk")
FRIEND = HOME.admin("friend")
HEAD = HOME.machine("b1", by=DESK, scopes={"dial", "borrow"}, owner=DESK.peer_id)
BUILD = HeadBuild(version=RpcVersion(7, 0, 0), build="b1")

PREDICTION = Prediction(
    token=0.1, first_token=1.0, prompt_rate=10.0, load=1.0, seconds=2.0, terms={}, step=0.1,
    token_parts=Parts(), prompt_parts=Parts(), load_parts=Parts(),
)  # fmt: skip

# Who lends, and whether that is the head's owner.
WORKERS = {
    "let in as its own": (HOME.machine("worker", by=DESK, scopes={"lend"}, owner=DESK.peer_id), 1),
    "let in by its owner": (HOME.machine("worker", by=DESK, scopes={"lend"}), 0),
    "of another admin": (
        HOME.machine("worker", by=FRIEND, scopes={"lend"}, owner=FRIEND.peer_id),
        0,
    ),
}


def planner(devices: Sequence[Device]) -> Plan | Refused:
    """A layer for each device."""
    shares = tuple(
        Share(device=one.id, holder=one.holder, layers=range(n, n + 1), weights=100, kv=1)
        for n, one in enumerate(devices)
    )
    return Plan(
        shares=shares, output_on_head=False, is_tied=False, micro_batch=64, slots=1,
        context_tokens=64, speculation=None, prediction=PREDICTION,
    )  # fmt: skip


@pytest.mark.parametrize(("worker", "is_own"), WORKERS.values(), ids=WORKERS)
async def test_a_worker_is_the_heads_owners_by_its_grant(
    autojump_clock: MockClock, worker: MadeUpMember, is_own: bool
) -> None:
    """And a plan over it, a lease of it, and a split that has borrowed of it say so."""
    async with (
        open_bench(lend_to=(), membership=worker.membership()) as bench,
        trio.open_nursery() as nursery,
    ):
        borrower = bench.borrower("b1", HEAD.membership())
        lender = WorkerLender(borrower, bench.node.peer_id, lambda: bench.addresses)
        facts = await borrower.survey(bench.node.peer_id, bench.addresses)
        assert facts.is_own == is_own
        async with bench.take(borrower) as lease:
            assert lease.is_own == is_own
        outlook = await plan_once([lender], planner, build=BUILD)
        assert isinstance(outlook.plan, Plan)
        assert outlook.is_own == is_own
        split = Split(
            lenders=lambda: [lender],
            planner=planner,
            here=(),
            build=BUILD,
            telling=Telling(split="split-1", model="m", events=None),
            nursery=nursery,
        )
        await split.prepare(cast("Supervised", None))
        assert split.is_own == is_own
        await split.close()
        nursery.cancel_scope.cancel()


async def test_in_an_open_namespace_another_machine_is_nobodys_own(
    autojump_clock: MockClock,
) -> None:
    """Nobody has a grant there; only this machine is known to be its owner's."""
    async with open_bench() as bench:
        borrower = bench.borrower("b1")
        assert not (await borrower.survey(bench.node.peer_id, bench.addresses)).is_own


async def test_a_plan_without_workers_is_the_heads_owners(autojump_clock: MockClock) -> None:
    """All of it is on the head."""
    assert (await plan_once([], planner, build=BUILD)).is_own


# ---- who asks it ----


class Running(MockBackend):
    """A split, over machines of one owner or not, that loads while a test says so."""

    def __init__(self, *, is_own: bool) -> None:
        super().__init__(MockScript(decode_rate=20.0, slots=1))
        self.simulated = False
        self.name = "engine"
        self.is_loaded = trio.Event()
        self.is_loaded.set()
        self.set(is_own=is_own)

    def set(self, *, is_own: bool) -> None:
        self.offers = tuple(
            attrs.evolve(one, name="big", split=True, own_workers=is_own) for one in self.offers
        )

    async def ready(self, loading: Loading) -> None:
        await self.is_loaded.wait()


@asynccontextmanager
async def asker(backend: Running) -> AsyncIterator[Router]:
    """A router whose own process has the split."""
    async with open_swarm() as swarm:
        head = await swarm.listener("head", backend)
        async with open_router(listener=head) as router:
            await router.wait_for_peers(lambda found: len(found) == 1)
            yield router


async def ask(router: Router, privacy: Any) -> str | None:
    return (
        await router.ask("hi", model="big", max_tokens=4, hints=Hints(privacy=privacy))
    ).executor


async def test_own_asks_a_split_of_own_machines_alone_and_whole_none(
    autojump_clock: MockClock,
) -> None:
    """A foreign worker would read the prompt."""
    async with asker(Running(is_own=True)) as router:
        assert await ask(router, "own") == "head"
        with pytest.raises(NoPeerAvailable, match="over several machines"):
            await ask(router, "whole")
    async with asker(Running(is_own=False)) as router:
        assert await ask(router, "any") == "head"
        with pytest.raises(NoPeerAvailable, match="may be another owner's"):
            await ask(router, "own")
        with pytest.raises(NoPeerAvailable, match="over several machines"):
            await ask(router, "whole")


@pytest.mark.parametrize("when", ["before it is sent", "while it loads", "while it is queued"])
async def test_a_request_for_own_machines_is_answered_by_no_others_that_came_meanwhile(
    autojump_clock: MockClock, when: str
) -> None:
    """However old the dialer's news: a lost worker was replaced by another owner's."""
    backend = Running(is_own=True)
    async with asker(backend) as router, trio.open_nursery() as nursery:
        if when == "while it is queued":
            request = chat_request("hi", model="big", max_tokens=200)
            nursery.start_soon(router.ask, request)
            await trio.sleep(0.5)
        if when == "before it is sent":
            backend.set(is_own=False)
        elif when == "while it loads":
            backend.is_loaded = trio.Event()

        async def change() -> None:
            await trio.sleep(5.0)
            backend.set(is_own=False)
            backend.is_loaded.set()

        nursery.start_soon(change)
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask("hi", model="big", hints=Hints(privacy="own"), timeout=20.0)
        print(caught.value.reasons)
        nursery.cancel_scope.cancel()
