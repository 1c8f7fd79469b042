"""What a split does before each start of its head: whom it asks, leaves out and borrows of.

In virtual time; lenders and planner are made up, and so is what supervises the head.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import pytest
import trio
from layouts import SMOL
from trio.testing import MockClock

from punch.cluster.coordinator import HeadBuild, Lendable, LentDevice, LoanLook, Split
from punch.cluster.coordinator._telling import Telling
from punch.events import (
    Bus,
    Event,
    LeaseEnded,
    LeaseTaken,
    PlanChanged,
    SplitFailed,
    SplitReady,
    WorkerConnected,
    WorkerLost,
)
from punch.exceptions import BackendError, PeerRefused
from punch.llama_cpp import RpcVersion
from punch.placement import (
    Device,
    Lessons,
    Link,
    Mix,
    Parts,
    Plan,
    Prediction,
    Refused,
    Share,
    Speculation,
    Wants,
)
from punch.placement import plan as plan_layers
from punch.processes import Supervised
from punch.wire import Timings, Usage

LINK = Link(rtt=0.001, rate=1e8)
PREDICTION = Prediction(
    token=0.1, first_token=1.0, prompt_rate=10.0, load=1.0, seconds=2.0, terms={}, step=0.1,
    guess=0.01, token_parts=Parts(), prompt_parts=Parts(), load_parts=Parts(),
)  # fmt: skip

WANTS = Wants(
    context_tokens=2048,
    slots=1,
    mix=Mix(prompt_tokens=300, answer_tokens=50),
    min_workers=2,
    may_speculate=False,
)


class Loan:
    """Borrowed memory that ends when a test says so."""

    devices = 1

    def __init__(self, lender: Lender) -> None:
        self.endpoint = f"127.0.0.1:{lender.number}"
        self.lost = trio.Event()
        self.why = ""
        self.bytes_up = 0
        self.memory: int | None = None
        self.fault: str | None = None
        self.oldest_reply_age: float | None = None
        self.link = lender.measured
        self.is_own = lender.is_own
        self.is_alive = True

    async def look(self) -> LoanLook | None:
        return LoanLook(cpu_seconds=0.0, is_alive=self.is_alive)


class Lender:
    """Somebody who lends, or does not."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.version = RpcVersion(7, 0, 0)
        self.build = "b1"
        self.fault: str | None = None
        self.refuses: str | None = None
        self.is_mute = False
        self.device = LentDevice(name="CPU", memory=10, bandwidth=1.0, compute=1.0)
        self.is_own = True
        self.is_authenticated = True
        self.measured: Link | None = None
        self.asked = 0
        self.closes_in = 0.0
        self.loan: Loan | None = None

    async def survey(self) -> Lendable:
        self.asked += 1
        if self.is_mute:
            await trio.sleep_forever()
        if self.fault is not None:
            raise BackendError(self.fault)
        return Lendable(
            devices=(self.device,),
            version=self.version,
            build=self.build,
            link=LINK,
            is_own=self.is_own,
            is_authenticated=self.is_authenticated,
        )

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Loan]:
        if self.refuses is not None:
            raise PeerRefused(self.refuses)
        self.loan = Loan(self)
        try:
            yield self.loan
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.closes_in)
            self.loan = None


@attrs.define
class Head:
    """In the place of what supervises the head."""

    killed: list[str] = attrs.field(factory=list)
    started: int = 0
    state: str = "ready"
    trouble: str | None = None

    def kill(self, why: str, *, loading_too: bool = False) -> None:
        assert loading_too
        self.killed.append(why)

    def start_now(self) -> None:
        self.started += 1

    def statistics(self) -> Any:
        return attrs.make_class("Statistics", ["starts"])(1)


@attrs.define
class Scene:
    """A split, those who may lend to it, and what it has told."""

    lenders: dict[str, Lender]
    split: Split
    head: Head
    events: list[Event]
    links: list[dict[str, Link | None]]

    async def prepare(self) -> Plan:
        await self.split.prepare(cast("Supervised", self.head))
        assert self.split.plan is not None
        return self.split.plan

    def work(self) -> bool:
        """The head has loaded and makes a token."""
        for lender in self.lenders.values():
            if lender.loan is not None:
                lender.loan.bytes_up += 100
        return self.split.note_token()

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def scene(
    *names: str,
    most: int = 8,
    here: Sequence[Device] = (),
    least: int = 1,
    speculation: Speculation | None = None,
    lessons: Lessons | None = None,
) -> AsyncIterator[Scene]:
    """A split whose planner gives one layer to each of the first *most* devices.

    With *lessons* it has a real planner, for SmolLM2 and with what was learned.
    """
    lenders = {name: Lender(name, number) for number, name in enumerate(names, 1)}
    links: list[dict[str, Link | None]] = []

    def planner(devices: Sequence[Device]) -> Plan | Refused:
        links.append({device.id: device.link for device in devices})
        if lessons is not None:
            return plan_layers(SMOL, devices, WANTS, calibration=lessons.calibration)
        used = list(devices)[:most]
        if len(used) < least:
            return Refused(word="does_not_fit", reason=f"{least} are needed, {len(used)} lend")
        shares = tuple(
            Share(device=one.id, holder=one.holder, layers=range(n, n + 1), weights=100, kv=1)
            for n, one in enumerate(used)
        )
        return Plan(
            shares=shares, output_on_head=False, is_tied=False, micro_batch=64, slots=1,
            context_tokens=64, speculation=speculation, prediction=PREDICTION,
        )  # fmt: skip

    bus, events = Bus(), cast("list[Event]", [])
    kinds = (
        PlanChanged, LeaseTaken, LeaseEnded, WorkerLost, WorkerConnected, SplitReady, SplitFailed,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        with bus.account(*kinds, note=events.append):
            split = Split(
                lenders=lambda: list(lenders.values()),
                planner=planner,
                here=here,
                build=HeadBuild(version=RpcVersion(7, 0, 0), build="b1"),
                telling=Telling(split="split-1", model="m", events=bus),
                nursery=nursery,
                lessons=lessons,
            )
            nursery.start_soon(split.run)
            yield Scene(lenders=lenders, split=split, head=Head(), events=events, links=links)
            await split.close()
        nursery.cancel_scope.cancel()
    assert all(lender.loan is None for lender in lenders.values())


async def test_what_the_plan_needs_is_borrowed_and_told(autojump_clock: MockClock) -> None:
    """Of its workers, and of nobody else; ready once all of them had a part."""
    async with scene("a", "b", "c", most=2) as one:
        plan = await one.prepare()
        assert plan.workers == ("a", "b")
        assert [lender.loan is not None for lender in one.lenders.values()] == [True, True, False]
        assert sorted(event.worker for event in one.told(LeaseTaken)) == ["a", "b"]
        (planned,) = one.told(PlanChanged)
        assert [(layer.worker, layer.first, layer.layers) for layer in planned.layers] == [
            ("a", 0, 1),
            ("b", 1, 1),
        ]
        assert one.split.progress() == 0.0
        assert one.lenders["a"].loan is not None
        one.lenders["a"].loan.bytes_up = 50
        assert one.split.progress() == 0.25
        assert one.work()
        assert one.split.progress() == 1.0
        assert len(one.told(SplitReady)) == 1
        assert sorted(event.worker for event in one.told(WorkerConnected)) == ["a", "b"]
    assert sorted(event.worker for event in one.told(LeaseEnded)) == ["a", "b"]


@pytest.mark.parametrize(
    ("version", "build", "words"),
    [
        ((5, 0, 0), "b1", "b speaks RPC 5.0.0 (llama.cpp b1), and the head RPC 7.0.0"),
        ((7, 0, 1), "b1", "b speaks RPC 7.0.1 (llama.cpp b1), and the head RPC 7.0.0"),
        ((7, 0, 0), "b2", "b has llama.cpp b2, and the head b1"),
    ],
)
async def test_a_skewed_worker_is_left_out_before_anything_is_borrowed(
    version: Any, build: str, words: str, autojump_clock: MockClock
) -> None:
    """In words that name both; the plan is made without it."""
    async with scene("a", "b") as one:
        one.lenders["b"].version, one.lenders["b"].build = RpcVersion(*version), build
        assert (await one.prepare()).workers == ("a",)
        (planned,) = one.told(PlanChanged)
        (left_out,) = planned.left_out
        assert words in left_out
        assert one.lenders["b"].loan is None


async def test_where_all_are_skewed_nothing_is_started(autojump_clock: MockClock) -> None:
    """The failure has the planner's reason and both versions."""
    async with scene("a") as one:
        one.lenders["a"].version = RpcVersion(5, 1, 0)
        with pytest.raises(PeerRefused, match=r"1 are needed, 0 lend; a: .*5\.1\.0.*7\.0\.0"):
            await one.prepare()


async def test_who_is_mute_or_refuses_is_planned_without(autojump_clock: MockClock) -> None:
    """In a bounded time; another one takes the place."""
    async with scene("a", "b", "c", most=1) as one:
        one.lenders["a"].is_mute = True
        one.lenders["b"].refuses = "another borrower has the lease"
        began = trio.current_time()
        assert (await one.prepare()).workers == ("c",)
        assert trio.current_time() - began < 5.0
        (planned,) = one.told(PlanChanged)
        assert planned.left_out == (
            "a: it said nothing within 3 s",
            "b: another borrower has the lease",
        )


async def test_who_leaves_the_directory_after_its_survey_is_asked_all_the_same(
    autojump_clock: MockClock,
) -> None:
    """Who was heard of is there for so long, or does not lend: no reason for no plan at all."""
    async with scene("a", "b") as one:
        leaving = one.lenders["b"]
        survey = leaving.survey

        async def last_survey() -> Lendable:
            del one.lenders["b"]
            return await survey()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(leaving, "survey", last_survey)
            assert (await one.prepare()).workers == ("a", "b")
        leaving.refuses = "it has gone"
        assert leaving.loan is not None
        leaving.loan.lost.set()
        await trio.sleep(0.1)
        assert (await one.prepare()).workers == ("a",)


async def test_a_tunnel_that_was_measured_is_planned_with(autojump_clock: MockClock) -> None:
    """Once more, when the loan has told what it costs; and not a third time."""
    async with scene("a") as one:
        measured = Link(rtt=0.02, rate=1e6)
        one.lenders["a"].measured = measured
        await one.prepare()
        assert one.links == [{"a": LINK}, {"a": measured}]


async def test_a_lost_worker_ends_the_head_and_is_planned_without(
    autojump_clock: MockClock,
) -> None:
    """The loan of the other one is kept; what the head is killed for names the worker."""
    async with scene("a", "b") as one:
        await one.prepare()
        assert one.work()
        kept = one.lenders["a"].loan
        loan = one.lenders["b"].loan
        assert loan is not None
        loan.why = "the tunnel ended"
        loan.lost.set()
        await trio.sleep(0.1)
        assert one.head.killed == ["worker b was lost: the tunnel ended"]
        assert await one.split.has_lost_machine()
        assert (await one.prepare()).workers == ("a",)
        assert one.lenders["a"].loan is kept
        assert one.lenders["b"].asked == 1
        assert [event.worker for event in one.told(WorkerLost)] == ["b"]
        # It comes back: the next plan has it, and the head that is well was left alone.
        await trio.sleep(20.0)
        assert len(one.head.killed) == 1
        assert (await one.prepare()).workers == ("a", "b")


async def test_a_loan_that_is_lost_holds_up_no_plan(autojump_clock: MockClock) -> None:
    """Its worker may be mute, and requests wait."""
    async with scene("a", "b") as one:
        await one.prepare()
        assert one.work()
        one.lenders["b"].closes_in = 3.0
        assert one.lenders["b"].loan is not None
        one.lenders["b"].loan.lost.set()
        await trio.sleep(0.1)
        began = trio.current_time()
        assert (await one.prepare()).workers == ("a",)
        assert trio.current_time() - began <= 1.0
        await trio.sleep(3.0)


async def test_who_is_lost_while_a_plan_is_made_is_not_in_it(autojump_clock: MockClock) -> None:
    """The head would end as soon as it began; and no other head is held to account for it."""
    async with scene("a", "b", "c", most=1) as one:
        assert (await one.prepare()).workers == ("a",)
        assert one.work()
        one.lenders["b"].is_mute = True
        loan = one.lenders["a"].loan
        assert loan is not None

        async def lose() -> None:
            await trio.sleep(1.0)
            loan.lost.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            assert (await one.prepare()).workers == ("c",)
        assert one.work()
        assert [event.worker for event in one.told(WorkerLost)] == ["a"]


async def test_a_head_that_was_begun_without_a_worker_is_killed(autojump_clock: MockClock) -> None:
    """There was no head yet when the worker was lost, so that nothing has ended it."""
    async with scene("a", "b") as one:
        await one.prepare()
        assert one.lenders["b"].loan is not None
        one.lenders["b"].loan.bytes_up = 100
        one.lenders["b"].loan.lost.set()
        await trio.sleep(0.1)
        one.head.killed.clear()
        assert not one.work()
        assert one.head.killed == ["a worker was lost before it began"]


async def test_a_worker_that_was_just_lost_is_asked_where_there_is_no_plan_without(
    autojump_clock: MockClock,
) -> None:
    """It may have started anew, and nobody else has the memory."""
    async with scene("a") as one:
        await one.prepare()
        assert one.lenders["a"].loan is not None
        one.lenders["a"].loan.lost.set()
        await trio.sleep(0.1)
        assert (await one.prepare()).workers == ("a",)
        assert one.lenders["a"].asked == 2


async def test_a_head_that_works_without_a_worker_is_killed(autojump_clock: MockClock) -> None:
    """A head of RPC 5 goes on without one of another version, with all layers to itself."""
    async with scene("a", "b") as one:
        await one.prepare()
        assert one.lenders["a"].loan is not None
        one.lenders["a"].loan.bytes_up = 100
        assert not one.split.note_token()
        assert one.head.killed == ["worker b was lost: the head makes tokens without it"]
        assert one.told(SplitReady) == []


async def test_a_server_that_died_unnoticed_is_found_before_the_next_start(
    autojump_clock: MockClock,
) -> None:
    """The head has crashed, and each of the others is looked at before it is used again."""
    async with scene("a", "b") as one:
        await one.prepare()
        assert one.work()
        assert one.lenders["b"].loan is not None
        one.lenders["b"].loan.is_alive = False
        assert (await one.prepare()).workers == ("a",)
        (lost,) = one.told(WorkerLost)
        assert (lost.worker, lost.why) == ("b", "its server does not run")


async def test_guessing_that_has_not_paid_is_left_out_of_the_next_plan(
    autojump_clock: MockClock,
) -> None:
    """The head that guesses is left alone until it is started anew, and later it guesses again."""
    async with scene("a", speculation=Speculation()) as one:
        assert (await one.prepare()).speculation is not None
        for _ in range(5):
            one.split.note_answer(tokens=100, guessed=200, right=2)
        assert one.head.killed == []
        assert (await one.prepare()).speculation is None
        # What a head without guessing answers says nothing of guessing.
        one.split.note_answer(tokens=5000, guessed=0, right=0)
        assert (await one.prepare()).speculation is not None


async def test_a_crash_of_the_head_alone_accuses_nobody(autojump_clock: MockClock) -> None:
    """No worker was lost: it may be the request."""
    async with scene("a") as one:
        await one.prepare()
        assert one.work()
        began = trio.current_time()
        assert not await one.split.has_lost_machine()
        assert trio.current_time() - began <= 1.0


async def test_a_worker_whose_server_did_what_ends_a_head_is_planned_without(
    autojump_clock: MockClock,
) -> None:
    """It runs, and says so; but it answers what is no reply, or has not the room that it lends."""
    async with scene("a", "b") as one:
        await one.prepare()
        assert one.lenders["b"].loan is not None
        one.lenders["b"].loan.fault = "it answers what is no reply"
        # What the head makes of it is the head's: a head that is well is left alone.
        await trio.sleep(10.0)
        assert one.head.killed == []
        assert await one.split.has_lost_machine()
        assert (await one.prepare()).workers == ("a",)
        (lost,) = one.told(WorkerLost)
        assert (lost.worker, lost.why) == ("b", "it answers what is no reply")


async def test_the_word_of_a_loss_may_come_after_the_end_of_the_head(
    autojump_clock: MockClock,
) -> None:
    """The head aborts within milliseconds, and the worker's machine tells later."""
    async with scene("a") as one:
        await one.prepare()
        assert one.work()

        async def tell() -> None:
            await trio.sleep(0.3)
            assert one.lenders["a"].loan is not None
            one.lenders["a"].loan.lost.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            assert await one.split.has_lost_machine()


async def test_a_crash_loop_is_told_once_and_again_after_a_head_that_was_well(
    autojump_clock: MockClock,
) -> None:
    """With why, and how often it was tried; it stays failed while it is tried anew."""
    async with scene("a") as one:
        await one.prepare()
        assert one.work()
        for times in (1, 2):
            one.head.state, one.head.trouble = "failed", f"crash loop, {times} times"
            await trio.sleep(60.0)
            assert [event.why for event in one.told(SplitFailed)][times - 1 :] == [one.head.trouble]
            one.head.state = "ready"
            await trio.sleep(1.0)
        assert {(event.model, event.starts) for event in one.told(SplitFailed)} == {("m", 1)}


async def test_a_head_that_never_worked_is_told_though_its_split_ends_at_once(
    autojump_clock: MockClock,
) -> None:
    """Whoever looks at it later sees why."""
    async with scene("a") as one:
        await one.prepare()
        one.head.state, one.head.trouble = "failed", "it ended with 1"
    assert [event.why for event in one.told(SplitFailed)] == ["it ended with 1"]


async def test_one_who_comes_has_a_split_planned_that_has_nobody(
    autojump_clock: MockClock,
) -> None:
    """It asks what supervises the head to start it now, which does nothing to one that runs."""
    async with scene("a") as one:
        one.lenders["a"].fault = "not yet"
        with pytest.raises(PeerRefused, match="a: not yet"):
            await one.prepare()
        one.split.lenders_changed()
        assert one.head.started == 1


async def test_two_splits_borrow_of_different_workers(autojump_clock: MockClock) -> None:
    """A worker lends once; the second split of a process takes others."""
    async with scene("a", "b", most=1) as first, scene("a", "b", most=1) as second:
        assert (await first.prepare()).workers == ("a",)
        second.lenders["a"].fault = "lent to another split of this process"
        assert (await second.prepare()).workers == ("b",)


def answers(
    split: Split, bare: Prediction, times: float, *, prompt: int = 300, made: int = 50
) -> None:
    """The head of *split* makes one, *times* as slow as *bare*."""
    split.note_times(
        Usage(prompt_tokens=prompt, completion_tokens=made, cached_tokens=0),
        Timings(prefill=times * bare.first_token, decode=made * times * bare.token),
    )


async def test_a_split_that_was_slower_than_predicted_is_predicted_slower_the_next_time(
    autojump_clock: MockClock,
) -> None:
    """1.4 times; also in the event of the next plan, although its shares are the same."""
    lessons = Lessons(SMOL, WANTS)
    async with scene("a", "b", lessons=lessons) as one:
        for lender in one.lenders.values():
            lender.device = LentDevice(name="CPU", memory=10**9, bandwidth=6e9, compute=2e10)
        first = (await one.prepare()).prediction
        await trio.sleep(1.4 * first.load)
        answers(one.split, first, 9.0)
        assert lessons.calibration.samples == 0  # It loads: this is of the plan before.
        assert one.work()
        for _ in range(8):
            answers(one.split, first, 1.4)
        second = (await one.prepare()).prediction
        for old, new in (
            (first.token, second.token),
            (first.first_token, second.first_token),
        ):
            assert new / old == pytest.approx(1.4, rel=0.02)
        assert second.load / first.load == pytest.approx(1.2, rel=0.02)
        told = one.told(PlanChanged)
        assert [event.decode_rate for event in told] == [first.decode_rate, second.decode_rate]
        # Nothing new was learned: nothing is said.
        assert one.work()
        await one.prepare()
        assert len(one.told(PlanChanged)) == 2


async def test_wild_measurements_of_a_head_do_not_spoil_the_next_plan(
    autojump_clock: MockClock,
) -> None:
    """Nothing, not a number, without end, or once a thousand times as slow."""
    lessons = Lessons(SMOL, WANTS)
    async with scene("a", "b", lessons=lessons) as one:
        for lender in one.lenders.values():
            lender.device = LentDevice(name="CPU", memory=10**9, bandwidth=6e9, compute=2e10)
        first = await one.prepare()
        await trio.sleep(first.prediction.load)
        assert one.work()
        for times in (1.0, 0.0, 1.0, float("nan"), 1.0, float("inf"), -1.0, 1.0, 1000.0):
            answers(one.split, first.prediction, times)
        answers(one.split, first.prediction, 1.0, prompt=-1, made=0)
        one.split.note_times(Usage(), Timings())
        second = await one.prepare()
        assert second.shares == first.shares
        assert second.prediction.token == pytest.approx(first.prediction.token, rel=0.01)
        assert second.prediction.first_token == pytest.approx(
            first.prediction.first_token, rel=0.01
        )
        assert len(one.told(PlanChanged)) == 1


async def test_a_split_is_its_owners_for_as_long_as_all_of_its_workers_are(
    autojump_clock: MockClock,
) -> None:
    """It says so of its last plan, and of nobody who could lend and is not in it."""
    async with scene("a", "b", "c", most=2) as one:
        one.lenders["c"].is_own = False
        found = [one.split.is_own]
        await one.prepare()
        found.append(one.split.is_own)
        assert one.lenders["b"].loan is not None
        one.lenders["b"].loan.lost.set()
        await trio.sleep(0.1)
        found.append(one.split.is_own)
        assert (await one.prepare()).workers == ("a", "c")
        assert [*found, one.split.is_own] == [False, True, True, False]


async def test_a_split_says_whether_one_of_its_plan_is_reached_by_plain_rpc(
    autojump_clock: MockClock,
) -> None:
    """Of its last plan alone; one that could lend and is not in it does not count."""
    async with scene("a", "b", "c", most=2) as one:
        one.lenders["c"].is_authenticated = False
        await one.prepare()
        found = [one.split.is_plain]
        assert one.lenders["b"].loan is not None
        one.lenders["b"].loan.lost.set()
        await trio.sleep(0.1)
        assert (await one.prepare()).workers == ("a", "c")
        assert [*found, one.split.is_plain] == [False, True]


async def test_the_word_of_the_loan_counts_and_not_that_of_the_survey(
    autojump_clock: MockClock,
) -> None:
    """Its grant may be another one by then."""
    async with scene("a") as one:
        lender = one.lenders["a"]
        survey = lender.survey

        async def before() -> Lendable:
            found = await survey()
            lender.is_own = False
            return found

        lender.survey = before  # type: ignore[method-assign]  # It changes its mind.
        await one.prepare()
        assert not one.split.is_own
