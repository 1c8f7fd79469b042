"""Lanes: several backends of one listener, which come and go and fail by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import answers
import attrs
import pytest
import trio
from answers import end_of, error_of, provenance_of, session_of
from trio.testing import MockClock

from punch.backends import Backend, Emit, Generation, Loading, MockBackend, MockScript
from punch.capability import Capability, ModelOffer, PeerId
from punch.dialer import Router, chat_request, open_router
from punch.discovery import Nowhere, Sighting
from punch.events import (
    AttemptServed,
    BackendRestarted,
    Bus,
    LaneChanged,
    LoadProgress,
)
from punch.exceptions import BackendCrashed, ConfigurationError, NoPeerAvailable, NoRealPeer
from punch.listener import Listener, Openable, open_listener
from punch.testing import MemoryNetwork, ScriptedBackend, Swarm
from punch.wire import (
    CommandRequest,
    CommandResponse,
    Completion,
    Join,
    Reach,
    Sampling,
    Timings,
    Usage,
)

LIMIT = 3600
KINDS = (AttemptServed, BackendRestarted, LaneChanged, LoadProgress)


def mock(model: str = "mock", **script: Any) -> MockBackend:
    return MockBackend(MockScript(model=model, **script))


def saying(text: str, *, model: str = "scripted", **options: Any) -> ScriptedBackend:
    """A backend that always says *text*."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        await emit(text, 1)
        return Generation(
            completion=Completion(text=text),
            usage=Usage(prompt_tokens=1, completion_tokens=1),
            timings=Timings(),
        )

    return ScriptedBackend(play, offers=(ModelOffer(name=model),), **options)


@asynccontextmanager
async def alone(*backends: Openable, **options: Any) -> AsyncIterator[tuple[Listener, Router]]:
    """A listener that nobody but this process reaches, and a router that asks it."""
    async with trio.open_nursery() as nursery:
        node = MemoryNetwork(nursery).node("self")
        async with (
            open_listener(
                backends, node=node, bootstrap=None, incarnation=1, **options
            ) as listener,
            open_router(listener=listener) as router,
        ):
            await router.wait_for_peers()
            yield listener, router
        nursery.cancel_scope.cancel()


def told(listener: Listener) -> dict[str, str]:
    """The state of each lane, as it is advertised."""
    return {lane.id: lane.state for lane in listener.capability().lanes}


async def text_of(router: Router, question: str, **options: Any) -> str:
    return answers.text_of(await router.ask(chat_request(question, **options)))


async def asked(
    router: Router, question: str, *, offer: str | None = None, **options: Any
) -> CommandResponse:
    """What the listener itself says to a request, whatever a dialer would make of it."""
    request = chat_request(question, stream=False, **options)
    return await end_of(session_of(router, "self").ask(attrs.evolve(request, offer=offer)))


# ---- by loopback ----


async def test_a_router_asks_the_listener_of_its_process_without_a_network(
    autojump_clock: MockClock,
) -> None:
    """It is a peer like any other: measured, chosen, and named in the response."""
    with trio.fail_after(LIMIT):
        async with alone(mock()) as (listener, router):
            response = await router.ask("hello")
            (peer,) = router.peers
            sessions = router.sessions

    assert response.executor == listener.peer_id == peer.peer_id
    assert response.status == "success"
    assert sessions == 1


async def test_a_long_answer_passes_the_loopback_whole(autojump_clock: MockClock) -> None:
    """Flow control, windows and all."""
    long = "word " * 200_000
    with trio.fail_after(LIMIT):
        async with alone(saying(long)) as (_, router):
            assert await text_of(router, "go on") == long


async def test_local_and_remote_listeners_are_candidates_of_one_policy(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Both are in the table; the one identity of the process is known to the others as well."""
    await swarm.listener("far", mock("big"))
    near = await swarm.listener("near", mock("small"))
    async with open_router(listener=near) as router:
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        here = await router.ask(chat_request("hi", model="small"))
        there = await router.ask(chat_request("hi", model="big"))
        async with swarm.router("third") as third:
            known = {peer.peer_id for peer in third.peers}

    assert (here.executor, there.executor) == ("near", "far")
    assert known == {"near", "far"}


async def test_a_router_hears_of_listeners_that_come_after_it_joined_its_listener(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The process is announced as a dialer from then on, so that it is told."""
    near = await swarm.listener("near", mock("small"))
    await trio.sleep(60)
    async with open_router(listener=near) as router:
        await router.wait_for_peers()
        await swarm.listener("late", mock("big"))
        began = trio.current_time()
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        took = trio.current_time() - began

    assert took < 2


class Unannounced:
    """Says nothing of us: whoever asks for it has somebody to tell."""

    altered = trio.Event()
    roles = frozenset({"listener"})

    def __call__(self, *, as_dialer: bool = False) -> Join:
        raise AssertionError("we were announced")

    def troubles(self) -> tuple[Reach, ...]:
        return ()

    def known(self) -> dict[PeerId, tuple[str, ...]]:
        return {}

    async def be_relayed(self, relay: PeerId) -> None: ...

    def besides(self, source: str) -> dict[PeerId, bool]:
        return {}


async def test_a_listener_that_meets_nowhere_is_found_by_nobody() -> None:
    """Its source has nobody to tell."""
    seen: list[Sighting] = []
    await Nowhere().run(Unannounced(), seen.append)
    assert seen == [Sighting(is_whole=True)]


# ---- which lane ----


async def test_each_model_is_answered_by_its_lane(autojump_clock: MockClock) -> None:
    """The first lane that was added answers where no model is named."""
    with trio.fail_after(LIMIT):
        async with alone(saying("one", model="m1"), saying("two", model="m2")) as (_, router):
            texts = [
                await text_of(router, "?", model="m2"),
                await text_of(router, "?", model="m1"),
                await text_of(router, "?"),
            ]

    assert texts == ["two", "one", "one"]


async def test_a_simulated_lane_is_not_asked_in_place_of_a_real_one(
    autojump_clock: MockClock,
) -> None:
    """Only by the name of its model; and never by a strict request."""
    real = saying("real", model="m", simulated=False)
    with trio.fail_after(LIMIT):
        async with alone(mock("toy"), real, calibrate=False) as (_, router):
            anybody = await asked(router, "?")
            toy = await asked(router, "?", model="toy")
            strict = await asked(router, "?", strict=True)
            refused = await asked(router, "?", model="toy", strict=True)

    assert provenance_of(anybody).kind == provenance_of(strict).kind == "real"
    assert provenance_of(toy).kind == "simulated"
    assert (refused.status, error_of(refused).code) == ("refused", "simulated")


async def test_a_dead_real_lane_is_not_replaced_by_the_mock(autojump_clock: MockClock) -> None:
    """There is no fallback from a real backend to the mock, ever."""
    real = saying("real", model="m", simulated=False)
    with trio.fail_after(LIMIT):
        async with alone(mock("toy"), real, calibrate=False) as (listener, router):
            real.offers = ()
            await trio.sleep(2)
            assert told(listener)["scripted"] == "failed"
            response = await asked(router, "?")

    assert response.status == "refused"


async def test_who_asks_hears_why_a_backend_is_down(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """As its peer says it: that nobody lends may be all there is to mend."""

    class Split(ScriptedBackend):
        reason: str | None = None

    why = "crash loop, 5 times in a row: llama-server could not be started: nobody lends"
    split = Split(offers=(ModelOffer(name="m", split=True),), simulated=False)
    await swarm.listener("head", split)
    async with swarm.router() as router:
        assert await text_of(router, "?", model="m") == "?"
        split.offers, split.reason = (), why
        await router.wait_for_peers(lambda peers: not peers[0].capability.models)
        (lane,) = router.peers[0].capability.lanes
        assert (lane.state, lane.reason) == ("failed", why)
        for model in ("m", None):
            with pytest.raises(NoPeerAvailable, match=f"is failed, and says: {why}"):
                await router.ask(chat_request("?", model=model))
        split.offers, split.reason = (ModelOffer(name="m", split=True),), None
        await router.wait_for_peers(lambda peers: bool(peers[0].capability.models))
        assert await text_of(router, "?", model="m") == "?"


async def test_strictness_is_a_lanes_own(autojump_clock: MockClock) -> None:
    """A strict simulating lane refuses everybody; the one beside it answers."""
    with trio.fail_after(LIMIT):
        async with alone(saying("free", model="free")) as (listener, router):
            await listener.add(saying("bound", model="bound"), name="bound", strict=True)
            await router.wait_for_peers(lambda peers: len(peers[0].capability.lanes) == 2)
            assert await text_of(router, "?", model="free") == "free"
            with pytest.raises(NoPeerAvailable, match="simulates"):
                await router.ask(chat_request("?", model="bound"))


async def test_a_strict_listener_has_strict_lanes(autojump_clock: MockClock) -> None:
    """Unless a lane says otherwise."""
    with trio.fail_after(LIMIT):
        async with alone(mock(), strict=True) as (listener, router):
            assert listener.lanes[0].strict
            with pytest.raises((NoPeerAvailable, NoRealPeer)):
                await router.ask("?")


async def test_a_request_that_names_an_offer_is_answered_with_that_one(
    autojump_clock: MockClock,
) -> None:
    """Even if another lane was added before it, and has the very same model."""
    with trio.fail_after(LIMIT):
        async with alone(saying("one"), saying("two")) as (_, router):
            (peer,) = router.peers
            ids = [offer.id for offer in peer.capability.models]
            texts = [answers.text_of(await asked(router, "?", offer=offer)) for offer in ids]

    assert ids == ["scripted/scripted", "scripted-2/scripted"]
    assert texts == ["one", "two"]


async def test_an_offer_that_is_gone_is_not_answered_by_another(autojump_clock: MockClock) -> None:
    """The dialer chose that one: it is told so, and may choose again."""
    with trio.fail_after(LIMIT):
        async with alone(saying("one"), saying("two")) as (listener, router):
            goes, _ = listener.lanes
            draining = trio.Event()
            async with trio.open_nursery() as nursery:

                async def remove() -> None:
                    await listener.remove(goes)
                    draining.set()

                nursery.start_soon(remove)
                await draining.wait()
            response = await asked(router, "?", offer="scripted/scripted")
            wrong = await asked(router, "?", offer="scripted-2/scripted", model="other")

    for refused in (response, wrong):
        assert (refused.status, error_of(refused).code) == ("refused", "unavailable")
        assert error_of(refused).retryable


# ---- what is said of them ----


async def test_every_lane_has_its_own_load_and_every_offer_its_id(
    autojump_clock: MockClock,
) -> None:
    """One lane is busy and the other is not; ids are unique, and lanes are told by them."""
    with trio.fail_after(LIMIT):
        async with alone(mock("slow", delay=50, slots=1), mock("quick")) as (listener, router):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(router.ask, chat_request("?", model="slow"))
                nursery.start_soon(router.ask, chat_request("and?", model="slow"))
                await trio.sleep(3)
                (peer,) = router.peers
                nursery.cancel_scope.cancel()
        capability = peer.capability
        loads = {lane.id: (lane.load.busy, lane.load.queued) for lane in capability.lanes}

    assert loads == {"mock": (1, 1), "mock-2": (0, 0)}
    assert {offer.id: offer.lane for offer in capability.models} == {
        "mock/slow": "mock",
        "mock-2/quick": "mock-2",
    }
    assert len(listener.lanes) == 2


async def test_a_name_too_long_for_an_id_still_has_one(autojump_clock: MockClock) -> None:
    """Within the 64 characters that it may have, and another for another model."""
    offers = tuple(ModelOffer(name=f"{'x' * 200}{number}") for number in range(2))
    with trio.fail_after(LIMIT):
        async with alone(ScriptedBackend(offers=offers)) as (_, router):
            (peer,) = router.peers
            ids = [offer.id for offer in peer.capability.models]

    assert len(set(ids)) == 2
    assert all(one is not None and len(one) <= 64 for one in ids)


async def test_a_listener_without_a_lane_says_that_it_takes_nothing(
    autojump_clock: MockClock,
) -> None:
    """It is met all the same, and answers from its first lane on."""
    with trio.fail_after(LIMIT):
        async with alone() as (listener, router):
            (peer,) = router.peers
            with pytest.raises(NoPeerAvailable):
                await router.ask("?")
            await listener.add(mock())
            await router.wait_for_peers(lambda peers: bool(peers[0].capability.models))
            response = await router.ask("?")

    assert attrs.evolve(peer.capability) == Capability()
    assert response.status == "success"


@pytest.mark.parametrize("name", ["", "x" * 33, "a\nb"])
async def test_a_lanes_name_must_be_one(name: str) -> None:
    """It travels, and people read it."""
    async with trio.open_nursery() as nursery:
        node = MemoryNetwork(nursery).node("self")
        async with open_listener(node=node, bootstrap=None) as listener:
            with pytest.raises(ConfigurationError, match="1 to 32 printable"):
                await listener.add(mock(), name=name)
        nursery.cancel_scope.cancel()


# ---- they come and go, and fail ----


async def test_removing_a_lane_finishes_what_it_has_begun(autojump_clock: MockClock) -> None:
    """The other lane answers meanwhile, and the one that goes takes nothing new."""
    with trio.fail_after(LIMIT):
        async with alone(mock("goes", decode_rate=10), saying("stays", model="stays")) as (
            listener,
            router,
        ):
            goes = listener.lanes[0]
            sampling = Sampling(max_tokens=40)
            answer = router.answer(chat_request("long", model="goes", sampling=sampling))
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    async with answer:
                        async for _ in answer:
                            pass

                nursery.start_soon(read)
                await trio.sleep(1)
                nursery.start_soon(listener.remove, goes)
                await trio.sleep(1)
                assert await text_of(router, "?", model="stays") == "stays"
                assert goes.statistics().busy == 1
                with pytest.raises(NoPeerAvailable):
                    await router.ask(chat_request("late", model="goes"))
            lanes = listener.lanes
            served = listener.statistics().served

    assert answer.response.status == "success"
    assert [lane.backend.name for lane in lanes] == ["scripted"]
    assert served == 2


async def test_removing_a_lane_that_does_not_finish_ends_its_answers(
    autojump_clock: MockClock,
) -> None:
    """After a bounded time the backend may be closed, whoever still reads."""
    with trio.fail_after(LIMIT):
        async with alone(mock("goes", delay=10_000)) as (listener, router):
            async with trio.open_nursery() as nursery:
                failed: list[str] = []

                async def ask() -> None:
                    with pytest.raises(NoPeerAvailable, match="was removed") as error:
                        await router.ask("?")
                    failed.append(str(error.value))

                nursery.start_soon(ask)
                await trio.sleep(1)
                began = trio.current_time()
                await listener.remove(listener.lanes[0])
                took = trio.current_time() - began
            assert listener.lanes == ()

    assert took == pytest.approx(10, abs=1)
    assert len(failed) == 1


async def test_a_lane_that_replaces_another_has_an_id_of_its_own(autojump_clock: MockClock) -> None:
    """What was chosen of the earlier one is not this one's."""
    with trio.fail_after(LIMIT):
        async with alone() as (listener, router):
            first = await listener.add(saying("old"), name="main")
            with pytest.raises(ConfigurationError, match="'main' already"):
                await listener.add(saying("new"), name="main")
            await listener.remove(first)
            second = await listener.add(saying("new"), name="main")
            await router.wait_for_peers(
                lambda peers: [lane.id for lane in peers[0].capability.lanes] == [second.id]
            )
            text = await text_of(router, "?")

    assert (first.id, second.id) == ("main", "main-2")
    assert text == "new"


async def test_no_two_lanes_ever_have_one_id_whatever_they_are_called(
    autojump_clock: MockClock,
) -> None:
    """A name may be what another name's number would make of it."""
    ids = []
    async with alone() as (listener, _):
        for name in ("a", "a-2", "a", "a-2", "a-7", "a", "a-2", "a-07", "-3", "a-x"):
            lane = await listener.add(mock(), name=name)
            ids.append(lane.id)
            await listener.remove(lane)
    assert ids == ["a", "a-2", "a-3", "a-4", "a-7", "a-8", "a-9", "a-07", "-3", "a-x"]


class Engine(ScriptedBackend):
    """A backend whose engine can be killed: as a served one, it says so in its offers."""

    restarts = 0
    why_restarted = "a test"

    def __init__(self, model: str) -> None:
        super().__init__(offers=(ModelOffer(name=model),), name="engine")
        self.is_up = trio.Event()
        self.is_up.set()

    def die(self) -> None:
        self.restarts += 1
        self.is_up = trio.Event()
        self.offers = (attrs.evolve(self.offers[0], load_seconds=5.0),)

    def come_back(self) -> None:
        self.offers = (attrs.evolve(self.offers[0], load_seconds=0.0),)
        self.is_up.set()

    async def ready(self, loading: Loading) -> None:
        while not self.is_up.is_set():
            loading(5.0)
            await self.is_up.wait()

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        if not self.is_up.is_set():
            raise BackendCrashed("the engine is gone")
        return await super().generate(request, emit)


async def test_one_lane_dies_and_comes_back_while_the_other_answers(
    autojump_clock: MockClock,
) -> None:
    """Its state says so within a second or two, both times."""
    engine = Engine("m")
    states = []
    with trio.fail_after(LIMIT):
        async with alone(engine, saying("still here", model="other")) as (_, router):
            changes: list[Callable[[], None]] = [lambda: None, engine.die, engine.come_back]
            for change in changes:
                change()
                await trio.sleep(2)
                (peer,) = router.peers
                states.append({lane.id: lane.state for lane in peer.capability.lanes})
                assert await text_of(router, "?", model="other") == "still here"
            assert await text_of(router, "back?", model="m") == "back?"

    assert [state["engine"] for state in states] == ["ready", "starting", "ready"]
    assert {state["scripted"] for state in states} == {"ready"}


async def test_a_lane_rests_after_a_crash_that_its_backend_says_nothing_of(
    autojump_clock: MockClock,
) -> None:
    """Another lane with the same model answers; a resting lane alone is tried all the same."""
    is_down = True

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        if is_down:
            raise BackendCrashed("connection refused")
        await emit("back", 1)
        return Generation(
            completion=Completion(text="back"), usage=Usage(completion_tokens=1), timings=Timings()
        )

    offers = (ModelOffer(name="m"),)
    with trio.fail_after(LIMIT):
        async with alone(ScriptedBackend(play, offers=offers)) as (listener, router):
            lane = listener.lanes[0]
            with pytest.raises(NoPeerAvailable):
                await router.ask("?")
            resting = lane.state
            other = await listener.add(saying("other", model="m"), name="other")
            assert listener._executor.lanes.choose(chat_request("?"))[0] is other
            await listener.remove(other)
            is_down = False
            assert listener._executor.lanes.choose(chat_request("?"))[0] is lane
            await trio.sleep(60)
            text = await text_of(router, "and now?")

    assert resting == "resting"
    assert (lane.state, text) == ("ready", "back")


async def test_draining_drains_every_lane(autojump_clock: MockClock) -> None:
    """Side by side, within the time that one may take."""
    with trio.fail_after(LIMIT):
        async with alone(mock("a", delay=4), mock("b", delay=4)) as (listener, router):
            async with trio.open_nursery() as nursery:
                for model in ("a", "b"):
                    sampling = Sampling(max_tokens=1)
                    nursery.start_soon(
                        router.ask, chat_request("?", model=model, sampling=sampling)
                    )
                await trio.sleep(1)
                began = trio.current_time()
                await listener.drain()
                took = trio.current_time() - began
            load = listener.capability().load

    assert took < 5
    assert load.draining


# ---- what is published ----


async def test_a_listener_publishes_what_it_serves_and_how_its_lanes_are(
    autojump_clock: MockClock,
) -> None:
    """Each answer, each change of a lane's state, each restart of an engine, each loading."""
    events = Bus()
    engine = Engine("m")
    with trio.fail_after(LIMIT), events.subscribe(*KINDS) as subscription:
        async with alone(engine, events=events) as (listener, router):
            await router.ask("hello")
            engine.die()
            await trio.sleep(2)
            engine.come_back()
            await trio.sleep(2)
            await listener.remove(listener.lanes[0])
        batch = subscription.drain()

    assert [(one.before, one.state) for one in batch.events if type(one) is LaneChanged] == [
        (None, "ready"),
        ("ready", "starting"),
        ("starting", "ready"),
        ("ready", "removed"),
    ]
    (served,) = (one for one in batch.events if type(one) is AttemptServed)
    assert (served.lane, served.model, served.outcome) == ("engine", "m", "success")
    assert (served.peer_id, served.tokens) == ("self", 1)
    (restarted,) = (one for one in batch.events if type(one) is BackendRestarted)
    assert (restarted.restarts, restarted.reason) == (1, "a test")
    assert {one.seconds for one in batch.events if type(one) is LoadProgress} == {5.0}


async def test_a_refused_and_a_cancelled_request_are_published_too(
    autojump_clock: MockClock,
) -> None:
    """With the code of the error, and without a lane where none had it."""
    events = Bus()
    with trio.fail_after(LIMIT), events.subscribe(AttemptServed) as subscription:
        async with alone(mock(delay=100), events=events) as (_, router):
            await asked(router, "?", model="unknown")
            with trio.move_on_after(1):
                await router.ask("?")
            await trio.sleep(1)
        batch = subscription.drain()

    served = [one for one in batch.events if type(one) is AttemptServed]
    assert len(served) == len(batch.events)
    told = [(one.outcome, one.lane, one.model) for one in served]
    assert told == [("refused", "", "unknown"), ("cancelled", "", None)]


# ---- backends that the listener opens ----


@asynccontextmanager
async def opened(
    log: list[str], name: str, *, ends: trio.Event | None = None
) -> AsyncIterator[Backend]:
    """A backend with work in the background, as an engine's supervisor has."""

    async def fail() -> None:
        if ends is not None:
            await ends.wait()
            raise BackendCrashed("its supervisor has a bug")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        log.append(f"{name} opened")
        try:
            yield saying(name, model=name)
        finally:
            log.append(f"{name} closed")
            nursery.cancel_scope.cancel()


async def test_what_the_listener_opens_it_closes_with_its_lane(autojump_clock: MockClock) -> None:
    """In any order, and what is left at the end."""
    log: list[str] = []
    with trio.fail_after(LIMIT):
        async with alone(opened(log, "a"), opened(log, "b")) as (listener, router):
            await listener.add(opened(log, "c"), name="c")
            await listener.remove(listener.lanes[0])
            assert log == ["a opened", "b opened", "c opened", "a closed"]
            await trio.sleep(1)
            assert await text_of(router, "?", model="b") == "b"
            assert await text_of(router, "?", model="c") == "c"

    assert sorted(log[4:]) == ["b closed", "c closed"]


async def test_a_backend_that_cannot_be_opened_is_no_lane(autojump_clock: MockClock) -> None:
    """The error is the caller's, and the other lanes answer on."""

    class Broken(AbstractAsyncContextManager[Backend]):
        async def __aenter__(self) -> Backend:
            raise BackendCrashed("no such file")

        async def __aexit__(self, *_: object) -> None:
            """It was never open."""

    with trio.fail_after(LIMIT):
        async with alone(saying("here")) as (listener, router):
            with pytest.raises(BackendCrashed, match="no such file"):
                await listener.add(Broken())
            assert len(listener.lanes) == 1
            assert await text_of(router, "?") == "here"


async def test_a_backend_that_comes_to_a_bad_end_takes_its_lane_along(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing else."""
    log: list[str] = []
    ends = trio.Event()
    with trio.fail_after(LIMIT):
        async with alone(saying("here"), opened(log, "bad", ends=ends)) as (listener, router):
            assert len(listener.lanes) == 2
            ends.set()
            await trio.sleep(2)
            assert [lane.backend.name for lane in listener.lanes] == ["scripted"]
            assert await text_of(router, "?") == "here"

    assert any("bad end" in record.getMessage() for record in caplog.records)
