"""What nobody runs is started once for all that wait for it, and asked as any other then."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from punch import (
    ConfigurationError,
    DeadlineExceeded,
    Hints,
    ModelOffer,
    NoPeerAvailable,
    PeerId,
    PunchError,
    StartableOffer,
    chat_request,
    open_router,
)
from punch.backends import MockBackend, MockScript
from punch.dialer._dispatch import SETTLE_SECONDS
from punch.events import Attempted, Bus, Event
from punch.routing.starts import APPEAR_SECONDS, FIRST_REST_SECONDS, MAX_START_PATIENCE_SECONDS
from punch.testing import ScriptedBackend, Swarm

HEAD = PeerId("head")
SPLIT = StartableOffer(
    id="big over two",
    peer_id=HEAD,
    offer=ModelOffer(name="big", prefill_rate=1000.0, decode_rate=50.0, split=True),
    seconds=20.0,
    slots=4,
    workers=2,
    owners=("ann", "bob"),
    plan="layers 0-11 on ann, 12-23 on bob",
)


class Real(MockBackend):
    """Makes so many tokens a second, and says that it is no mock."""

    def __init__(self, rate: float = 50.0, *, slots: int = 4, **offer: Any) -> None:
        super().__init__(MockScript(decode_rate=rate, prefill_rate=1000.0, slots=slots))
        self.simulated = False
        self.name = "engine"
        fields: dict[str, Any] = {"name": "big"}
        fields |= {"decode_rate": rate, "prefill_rate": 1000.0, **offer}
        self.offers = tuple(attrs.evolve(one, **fields) for one in self.offers)


class Starting:
    """Starts `SPLIT` on the swarm, as a cluster would."""

    def __init__(
        self,
        swarm: Swarm,
        *,
        seconds: float = SPLIT.seconds,
        fails: Exception | None = None,
        appears: bool = True,
    ) -> None:
        self.begun: list[float] = []
        self.fails = fails
        self._swarm = swarm
        self._seconds = seconds
        self._appears = appears

    async def __call__(self, offer: StartableOffer) -> None:
        assert offer.id == SPLIT.id
        self.begun.append(trio.current_time())
        await trio.sleep(self._seconds)
        if self.fails is not None:
            raise self.fails
        if self._appears:
            await self._swarm.listener(HEAD, Real(split=True))


async def test_ten_requests_start_it_once(swarm: Swarm, autojump_clock: MockClock) -> None:
    """All of them are answered by it, as are those that come when it runs."""
    start = Starting(swarm)
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        found: list[PeerId | None] = []

        async def ask(after: float) -> None:
            await trio.sleep(after)
            found.append((await router.ask("hi", model="big", max_tokens=4)).executor)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(ask, float(number))
        took = trio.current_time() - began
        assert found == [HEAD] * 10
        assert len(start.begun) == 1
        assert SPLIT.seconds <= took <= SETTLE_SECONDS + SPLIT.seconds + 2.0
        assert router.startable == ()
        assert (await router.ask("hi", model="big", max_tokens=4)).executor == HEAD
        assert len(start.begun) == 1


async def test_what_has_started_may_be_told_of_no_more(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Whoever started it knows that it runs before the router does."""
    start = Starting(swarm, seconds=1.0, appears=False)

    async def begin(offer: StartableOffer) -> None:
        await start(offer)
        left.clear()
        nursery.start_soon(appear)

    async def appear() -> None:
        await trio.sleep(7.0)
        await swarm.listener(HEAD, Real(split=True))

    left = [SPLIT]
    async with (
        trio.open_nursery() as nursery,
        swarm.router(startable=lambda: tuple(left), start=begin) as router,
    ):
        assert (await router.ask("hi", model="big", max_tokens=4)).executor == HEAD


async def test_a_request_that_waits_says_what_for(swarm: Swarm, autojump_clock: MockClock) -> None:
    """With the seconds that are left, which one that comes later sees as well."""
    async with swarm.router(startable=lambda: (SPLIT,), start=Starting(swarm)) as router:
        async with (
            router.answer(chat_request("hi", model="big", max_tokens=4)) as first,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(first.receive)
            await trio.sleep(SETTLE_SECONDS + 15.5)
            progress = first.progress
            assert progress is not None
            assert progress.state == "loading"
            assert progress.seconds == pytest.approx(5.0, abs=1.0)
            (one,) = router.startable
            assert (one.is_under_way, one.waiting) == (True, 1)
            assert one.seconds == pytest.approx(4.5, abs=0.1)
            second = await router.ask("again", model="big", max_tokens=4)
            assert second.executor == HEAD
        decisions = first.decisions
    # One to start it and one to ask it; none for each look between.
    assert [one.chosen_peer for one in decisions] == [HEAD, HEAD]
    started, asked = (one.start_of(one.order[0]) for one in decisions)
    assert started is not None
    assert (started.offer, asked) == (SPLIT, None)


async def test_short_answers_go_to_the_slow_peer_and_long_ones_start_the_split(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """By what each would take in all."""
    await swarm.listener("solo", Real(rate=2.0))
    start = Starting(swarm)
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        short = await router.ask("hi", model="big", max_tokens=10)
        assert (short.executor, start.begun) == ("solo", [])
        long = await router.ask("hi", model="big", max_tokens=200)
        assert (long.executor, len(start.begun)) == (HEAD, 1)
        assert (await router.ask("hi", model="big", max_tokens=10)).executor == HEAD


async def test_a_peer_that_becomes_free_is_asked_instead(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """What was begun goes on, for whoever comes next."""
    start = Starting(swarm, seconds=60.0)
    offer = attrs.evolve(SPLIT, seconds=60.0)
    events, attempts = Bus(), list[Attempted]()

    def note(event: Event) -> None:
        assert isinstance(event, Attempted)
        attempts.append(event)

    with events.account(Attempted, note=note):
        async with swarm.router(startable=(offer,), start=start, events=events) as router:
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    answer = await router.ask("hi", model="big", max_tokens=20)
                    assert answer.executor == "solo"
                    nursery.cancel_scope.cancel()

                nursery.start_soon(ask)
                await trio.sleep(10.0)
                await swarm.listener("solo", Real(rate=20.0))
                await trio.sleep(20.0)
            (one,) = router.startable
            assert (one.is_under_way, one.waiting) == (True, 0)
            assert len(start.begun) == 1
    waited, asked = attempts
    assert (waited.lane, waited.reason, waited.outcome) == ("start", "start", "cancelled")
    assert waited.seconds == pytest.approx(10.0 - SETTLE_SECONDS, abs=1.0)
    assert (asked.peer_id, asked.reason) == ("solo", "first")


async def test_a_failed_start_ends_in_its_reason_and_rests(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """A caller is told when to come again, and then it is tried again."""
    start = Starting(swarm, seconds=1.0, fails=PunchError("ann lends no memory"))
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask("hi", model="big")
        (why,) = caught.value.reasons.values()
        assert "start: could not be started: ann lends no memory; tried again in 1" in why
        # A request that finds nobody waits for those who may be about to come.
        left = FIRST_REST_SECONDS - SETTLE_SECONDS
        assert caught.value.retry_after == pytest.approx(left, abs=1.0)
        with pytest.raises(NoPeerAvailable):
            await router.ask("hi", model="big")
        assert len(start.begun) == 1
        await trio.sleep(FIRST_REST_SECONDS)
        start.fails = None
        assert (await router.ask("hi", model="big", max_tokens=4)).executor == HEAD
        assert len(start.begun) == 2


async def test_after_a_failed_start_the_slow_peer_answers(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """For the very request that waited for it."""
    await swarm.listener("solo", Real(rate=2.0))
    start = Starting(swarm, fails=PunchError("ann lends no memory"))
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        async with router.answer(chat_request("hi", model="big", max_tokens=200)) as answer:
            while await answer.receive() is not None:
                pass
            assert answer.response.executor == "solo"
            assert [one.chosen_peer for one in answer.decisions] == [HEAD, "solo"]


async def test_a_fault_of_whoever_starts_it_is_no_end_of_the_router(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Whatever it raises."""
    start = Starting(swarm, fails=ZeroDivisionError())
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        with pytest.raises(NoPeerAvailable, match="failed in an unforeseen way"):
            await router.ask("hi", model="big")
        assert router.startable[0].why_not is not None


async def test_a_start_that_never_ends_is_given_up(swarm: Swarm, autojump_clock: MockClock) -> None:
    """Long after its time, and long after the caller has gone."""
    start = Starting(swarm, seconds=1e6)
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        with pytest.raises(DeadlineExceeded, match="big is being started, for about"):
            await router.ask("hi", model="big", timeout=30.0)
        assert router.startable[0].waiting == 0
        await trio.sleep(MAX_START_PATIENCE_SECONDS)
        assert router.startable[0].is_under_way is False
        assert len(start.begun) == 1


async def test_what_was_started_and_is_not_offered_has_failed(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Soon after."""
    start = Starting(swarm, seconds=1.0, appears=False)
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        began = trio.current_time()
        with pytest.raises(NoPeerAvailable, match="its peer does not offer it"):
            await router.ask("hi", model="big")
        assert trio.current_time() - began <= 1.0 + APPEAR_SECONDS + 10.0


async def test_nothing_is_started_before_the_peers_that_are_there_were_met(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """A router that has just begun knows nobody."""
    await swarm.listener("whole", Real(rate=50.0))
    start = Starting(swarm)
    async with swarm.router(startable=(SPLIT,), start=start, peers=0) as router:
        assert (await router.ask("hi", model="big", max_tokens=4)).executor == "whole"
    assert start.begun == []


async def test_a_split_is_started_for_nobody_who_wants_one_machine(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Or the own ones: its owner is not known to be this one."""
    start = Starting(swarm)
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        for hints, why in (
            (Hints(privacy="whole"), "over several machines"),
            (Hints(privacy="own"), "of another owner"),
        ):
            with pytest.raises(NoPeerAvailable, match=why):
                await router.ask("hi", model="big", hints=hints)
    assert start.begun == []


@pytest.mark.parametrize("own_workers", [True, False])
async def test_own_machines_may_be_pooled_for_the_own(
    swarm: Swarm, autojump_clock: MockClock, own_workers: bool
) -> None:
    """Where the plan says so, and the head is this very process."""
    offer = attrs.evolve(
        SPLIT,
        peer_id=PeerId("dialer"),
        offer=attrs.evolve(SPLIT.offer, own_workers=own_workers),
    )
    hints = Hints(privacy="own")
    start = Starting(swarm, seconds=1.0, fails=PunchError("no matter"))
    async with swarm.router(startable=(offer,), start=start) as router:
        with pytest.raises(NoPeerAvailable):
            await router.ask("hi", model="big", hints=hints)
    assert len(start.begun) == own_workers


async def test_a_model_that_could_be_started_is_known_by_its_names(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """It may be spelled as any other; and a hint means its peer."""
    await swarm.listener("solo", Real(name="other"))
    async with swarm.router(startable=(SPLIT,), start=Starting(swarm)) as router:
        assert router.names.offered == ("big", "other")
        answer = await router.ask("hi", model="BIG.gguf", max_tokens=4, hints=Hints(only=("head",)))
        assert answer.executor == HEAD


async def test_a_mock_answers_nothing_that_a_start_could(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Nor anything else while it fails: no answer is made up in its place."""
    made_up = ScriptedBackend(offers=(ModelOffer(name="big"),))
    await swarm.listener("mock", made_up)
    start = Starting(swarm, seconds=1.0, fails=PunchError("no"))
    async with swarm.router(startable=(SPLIT,), start=start) as router:
        with pytest.raises(NoPeerAvailable):
            await router.ask("hi", model="big")


async def test_what_could_be_started_needs_what_starts_it(autojump_clock: MockClock) -> None:
    """And says so at once."""
    with pytest.raises(ConfigurationError, match="no start"):
        async with open_router(startable=(SPLIT,)):
            pass


async def test_what_was_predicted_of_it_is_believed_as_soon_as_it_runs(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Also where it says nothing of its speed: else it would be taken to be as slow as others."""
    await swarm.listener("solo", Real(rate=1.0))

    async def begin(offer: StartableOffer) -> None:
        await trio.sleep(1.0)
        await swarm.listener(HEAD, Real(split=True, decode_rate=None, prefill_rate=None))

    async with swarm.router(startable=(SPLIT,), start=begin) as router:
        async with router.answer(chat_request("hi", model="big", max_tokens=200)) as answer:
            while await answer.receive() is not None:
                pass
            _, asked = answer.decisions
        assert answer.response.executor == HEAD
        chosen = asked.chosen
        assert chosen is not None
        assert asked.term(chosen, "decode") == pytest.approx(200 / 50.0)
