"""The dialer's loop, over a network in memory and in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from answers import provenance_of, text_of
from trio.testing import MockClock

from punch.backends import Emit, Generation, Loading, MockBackend, MockScript, mock_words
from punch.capability import ModelOffer
from punch.dialer import Answer, Router, chat_request, new_request_id
from punch.exceptions import (
    ContextTooLong,
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    NoPeerAvailable,
    NoRealPeer,
    UnknownModel,
)
from punch.routing import POLICIES, STANDARD_FILTERS, Policy, RoundRobin
from punch.session import ServerCall
from punch.testing import ScriptedBackend, Swarm, open_swarm
from punch.wire import CommandRequest, CommandResponse, Completion, Sampling, Timings, Usage

LIMIT = 3600

(TRIED,) = (step for step in STANDARD_FILTERS if step.name == "tried")


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


def words(request: CommandRequest) -> str:
    return " ".join(mock_words(request))


async def test_the_answer_is_the_backends_and_keeps_its_request_id(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Text, usage, provenance and id arrive as the listener gave them."""
    request = chat_request("hello", request_id="mine-1", sampling=Sampling(max_tokens=5))
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        response = await router.ask(request)

    assert response.request_id == "mine-1"
    assert response.status == "success"
    assert response.result == Completion(text=words(request), finish_reason="length")
    assert response.usage == Usage(prompt_tokens=1, completion_tokens=5)
    assert response.executor == "a"
    provenance = provenance_of(response)
    assert (provenance.kind, provenance.backend) == ("simulated", "mock")


@pytest.mark.parametrize("stream", [True, False])
async def test_streamed_or_not_the_text_is_the_same(
    stream: bool, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A stream only changes when the text arrives."""
    request = chat_request("hello", stream=stream)
    await swarm.listener("a", mock(decode_rate=10))
    async with swarm.router() as router, router.answer(request) as answer:
        parts = [text async for text in answer]

    assert "".join(parts) == words(request) == text_of(answer.response)
    assert len(parts) == (len(mock_words(request)) if stream else 1)


async def test_a_long_answer_and_a_slow_reader_stay_within_the_window(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The listener waits for a reader who is behind, and nothing is lost."""
    piece = "ä" * 5000
    pieces = 40
    given: list[int] = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for index in range(pieces):
            await emit(piece, 1)
            given.append(index)
        return Generation(
            completion=Completion(text=piece * pieces), usage=Usage(), timings=Timings()
        )

    await swarm.listener("a", ScriptedBackend(play))
    async with swarm.router() as router, router.answer(chat_request("x")) as answer:
        await answer.receive()
        await trio.sleep(2)
        ahead = len(given)
        async for _ in answer:
            await trio.sleep(0.01)

    assert ahead <= 64 * 1024 // len(piece.encode()) + 1
    assert answer.text == piece * pieces


async def test_what_is_there_is_taken_without_waiting_and_nothing_else_is(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whoever writes a text on takes with one write all that has come, however slow the rest is."""
    pauses = trio.Event()

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        for text in ("a", "b", "c"):
            await emit(text, 1)
        await pauses.wait()
        await emit("d", 1)
        return Generation(completion=Completion(text="abcd"), usage=Usage(), timings=Timings())

    await swarm.listener("a", ScriptedBackend(play))
    async with swarm.router() as router:
        async with router.answer(chat_request("x")) as answer:
            with pytest.raises(trio.WouldBlock):
                answer.receive_nowait()
            first = await answer.receive()
            await trio.sleep(1)
            there = [answer.receive_nowait() for _ in range(2)]
            with pytest.raises(trio.WouldBlock):
                answer.receive_nowait()
            pauses.set()
            rest = [text async for text in answer]
            after = answer.receive_nowait()
        async with router.answer(chat_request("x")) as left:
            await left.receive()
        with pytest.raises(RuntimeError, match="async with"):
            left.receive_nowait()

    assert (first, there, rest, after) == ("a", ["b", "c"], ["d"], None)


async def test_the_faster_peer_is_asked_once_both_are_measured(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """After three answers each, the measured decode rate decides."""
    await swarm.listener("slow", mock(decode_rate=5))
    await swarm.listener("fast", mock(decode_rate=50))
    async with swarm.router(policy="round-robin") as router:
        for _ in range(8):
            await router.ask("teach me")
        router.policy = POLICIES["completion-time"]
        chosen = {(await router.ask("and now?")).executor for _ in range(5)}

    assert chosen == {"fast"}


async def test_load_moves_the_choice(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Four long answers on the faster peer send the fifth to the other one."""
    await swarm.listener("slow", mock(decode_rate=20, slots=1))
    await swarm.listener("fast", mock(decode_rate=30, slots=1))
    async with swarm.router(policy="round-robin") as router:
        for _ in range(8):
            await router.ask("teach me")
        router.policy = POLICIES["completion-time"]
        busy = chat_request("long", sampling=Sampling(max_tokens=3000))
        async with router.answer(busy) as first:
            await first.receive()
            second = await router.ask("short")

    assert first.decisions[0].chosen_peer == "fast"
    assert second.executor == "slow"


async def test_a_peer_that_dies_before_its_first_token_is_replaced(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The next best peer answers, and the caller learns what happened."""
    async with trio.open_nursery() as nursery:
        await swarm.listener("a", mock(delay=3))
        await swarm.listener("b", mock(delay=3))
        async with swarm.router() as router:
            answer = router.answer(chat_request("hello"))
            nursery.start_soon(_read, answer)
            await trio.sleep(1)
            victim = answer.decisions[0].chosen_peer
            assert victim is not None
            swarm.kill(victim)
            await trio.sleep(10)

    survivor = {"a": "b", "b": "a"}[victim]
    assert answer.response.executor == survivor
    assert [(a["peer_id"], a["error"]) for a in answer.response.attempts] == [
        (victim, "unreachable")
    ]


async def _read(answer: Answer) -> None:
    async with answer:
        async for _ in answer:
            pass


async def test_a_silent_peer_is_gone_within_five_seconds(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A stopped process keeps its connection; its missing heartbeat gives it away."""
    async with trio.open_nursery() as nursery:
        await swarm.listener("a", mock(delay=3))
        await swarm.listener("b", mock(delay=3))
        async with swarm.router() as router:
            answer = router.answer(chat_request("hello"))
            nursery.start_soon(_read, answer)
            await trio.sleep(1)
            victim = answer.decisions[0].chosen_peer
            assert victim is not None
            swarm.network.stall(victim)
            stalled_at = trio.current_time()
            while not answer.attempts:
                await trio.sleep(0.1)
            noticed = trio.current_time() - stalled_at
            await trio.sleep(10)

    assert noticed <= 5.1
    assert answer.response.executor != victim


async def test_no_peer_is_asked_twice_and_the_error_has_them_all(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Every listener fails; each is tried once, and named with its reason."""
    asked: list[str] = []

    def failing(name: str) -> ScriptedBackend:
        async def play(request: CommandRequest, emit: Emit) -> Generation:
            asked.append(name)
            raise GenerationFailed(f"{name} is out of order")

        return ScriptedBackend(play)

    for name in "abc":
        await swarm.listener(name, failing(name))
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask("hello")

    assert sorted(asked) == ["a", "b", "c"]
    assert {peer: "out of order" in why for peer, why in caught.value.reasons.items()} == {
        "a": True,
        "b": True,
        "c": True,
    }


async def test_a_full_peer_refuses_and_the_next_one_answers(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A refusal is not a fault: the peer is not left alone afterwards."""
    # Without the filter for slots a full peer is asked all the same, and says so itself.
    blind = Policy(name="blind", scorer=RoundRobin(), filters=(TRIED,), near=0)
    async with trio.open_nursery() as nursery:
        await swarm.listener("a-full", mock(delay=60, slots=1), queue_limit=0)
        async with swarm.router() as first:
            nursery.start_soon(_read, first.answer(chat_request("block it")))
            await trio.sleep(1)
            await swarm.listener("b-free", mock())
            async with swarm.router("other", policy=blind) as second:
                response = await second.ask("hello")
                failures = [peer.failures for peer in second.peers]
            nursery.cancel_scope.cancel()

    assert [a["error"] for a in response.attempts] == ["refused"]
    assert response.executor == "b-free"
    assert failures == [0, 0]


async def test_a_client_fault_costs_one_try_more_and_blames_nobody(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A second peer says the same, a third is not asked, and none is left alone."""
    asked = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        asked.append(request.request_id)
        raise ContextTooLong("the prompt has 9000 tokens; the context 4096")

    await swarm.listener("a", ScriptedBackend(play))
    await swarm.listener("b", ScriptedBackend(play))
    await swarm.listener("c", ScriptedBackend(play))
    async with swarm.router() as router:
        with pytest.raises(ContextTooLong, match="9000 tokens; the context 4096"):
            await router.ask("hello")
        failures = [peer.failures for peer in router.peers]

    assert len(asked) == 2
    assert failures == [0, 0, 0]


async def test_an_unknown_model_names_the_models_on_offer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The error helps: it says what could have been asked for."""
    await swarm.listener("a", mock(model="alpha"))
    await swarm.listener("b", mock(model="beta"))
    async with swarm.router() as router:
        with pytest.raises(UnknownModel, match="'gamma'; on offer: alpha, beta"):
            await router.ask(chat_request("hello", model="gamma"))


async def test_nobody_there_is_said_after_a_moment(autojump_clock: MockClock, swarm: Swarm) -> None:
    """A namespace without listeners is not waited for until the deadline."""
    async with swarm.router() as router:
        began = trio.current_time()
        with pytest.raises(NoPeerAvailable, match="no listener is known"):
            await router.ask("hello")

    assert trio.current_time() - began <= 6


async def test_a_listener_that_comes_within_the_moment_is_asked(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Starting the listener and the dialer at the same time is enough."""
    async with swarm.router() as router:
        async with trio.open_nursery() as nursery:
            answer = router.answer(chat_request("hello"))
            nursery.start_soon(_read, answer)
            await trio.sleep(2)
            await swarm.listener("late", mock())

    assert answer.response.executor == "late"


async def test_the_deadline_is_kept(autojump_clock: MockClock, swarm: Swarm) -> None:
    """The caller gets an error when its time is up, not when the peer is done."""
    executor = await swarm.listener("a", mock(delay=100))
    async with swarm.router() as router:
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded):
            await router.ask(chat_request("hello", timeout=2.5))
        took = trio.current_time() - began
        await trio.sleep(1)
        busy = executor.statistics().busy

    assert took == pytest.approx(2.5, abs=0.2)
    assert busy == 0


async def test_leaving_early_frees_the_slot(autojump_clock: MockClock) -> None:
    """A cancel reaches the backend within the promised tenth of a second."""
    with trio.fail_after(LIMIT):
        async with open_swarm(delay=0.01) as swarm:
            executor = await swarm.listener("a", mock(decode_rate=10))
            async with swarm.router() as router:
                async with router.answer(chat_request("hello")) as answer:
                    await answer.receive()
                    busy = executor.statistics().busy
                await trio.sleep(0.1)
                after = executor.statistics()

    assert busy == 1
    assert (after.busy, after.cancelled) == (0, 1)


async def test_strict_is_enforced_by_the_filter(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Simulating peers are not even asked, and each is named."""
    executor = await swarm.listener("a", mock())
    async with swarm.router(strict=True) as router:
        with pytest.raises(NoRealPeer, match="a: simulates"):
            await router.ask("hello")

    assert executor.statistics().refused == 0


async def test_strict_is_enforced_by_the_executor(autojump_clock: MockClock, swarm: Swarm) -> None:
    """A dialer without filters asks the mock, which refuses on its own."""
    blind = Policy(name="blind", scorer=RoundRobin(), filters=(TRIED,))
    executor = await swarm.listener("a", mock())
    async with swarm.router(strict=True, policy=blind) as router:
        with pytest.raises(NoRealPeer, match="backend mock simulates"):
            await router.ask("hello")

    assert executor.statistics().refused == 1


class TwoFaced(ScriptedBackend):
    """Claims to be real until it is asked."""

    def __init__(self, claims: list[bool], **others: Any) -> None:
        super().__init__(simulated=True, **others)
        self._claims = claims

    @property
    def simulated(self) -> bool:
        return self._claims[0]

    @simulated.setter
    def simulated(self, value: bool) -> None:
        pass


async def test_strict_is_enforced_by_the_dialer(autojump_clock: MockClock, swarm: Swarm) -> None:
    """An executor that lets a strict request pass is caught before any of its text is taken."""
    claims = [False]

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        await emit("made up", 1)
        return Generation(completion=Completion(text="made up"), usage=Usage(), timings=Timings())

    class Careless(TwoFaced):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            return await play(request, emit)

        async def ready(self, loading: Loading) -> None:
            # Between the check of strict mode and the provenance: now it shows its face.
            claims[0] = True

    backend = Careless(claims)
    claims[0] = False
    await swarm.listener("a", backend)
    blind = Policy(name="blind", scorer=RoundRobin(), filters=(TRIED,))
    async with swarm.router(strict=True, policy=blind) as router:
        claims[0] = False
        async with router.answer(chat_request("hello")) as answer:
            with pytest.raises(NoRealPeer, match="answers with simulated inference"):
                await answer.receive()

    assert answer.text == ""


async def test_a_mock_that_calls_itself_real_is_caught_by_its_name(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """`real` from a backend called mock is a forgery, strict or not."""
    await swarm.listener("a", ScriptedBackend(simulated=False, name="mock"))
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable, match="calls the answer of a mock real"):
            await router.ask("hello")


async def test_another_model_than_asked_for_is_not_accepted(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """With a digest in the request, only that very file may answer."""
    wanted = "ab" * 32
    offer = ModelOffer(name="m", digest=wanted)
    await swarm.listener("a", ScriptedBackend(simulated=False, offers=(offer,)))
    async with swarm.router() as router:
        request = chat_request("hi")
        right = await router.ask(
            CommandRequest(request_id="1", messages=request.messages, model_digest=wanted)
        )
        with pytest.raises(UnknownModel, match="on offer: m"):
            await router.ask(
                CommandRequest(request_id="2", messages=request.messages, model_digest="cd" * 32)
            )

    assert provenance_of(right).model_digest == wanted


async def test_a_bad_request_never_leaves_the_dialer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The rule it breaks is named, and nobody is asked."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        with pytest.raises(InvalidRequest, match="temperature is -1"):
            await router.ask(chat_request("hi", sampling=Sampling(temperature=-1)))


async def test_a_hundred_at_once_each_get_their_own_answer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Requests share one session and never one another's text."""
    answers: dict[str, str] = {}

    async def one(router: Router, text: str) -> None:
        answers[text] = text_of(await router.ask(text))

    await swarm.listener("a", mock(decode_rate=100, slots=8), queue_limit=200)
    async with swarm.router() as router, trio.open_nursery() as nursery:
        for index in range(100):
            nursery.start_soon(one, router, f"question {index}")

    assert answers == {text: words(chat_request(text)) for text in answers}
    assert len(answers) == 100


async def test_a_restarted_listener_is_found_again(autojump_clock: MockClock, swarm: Swarm) -> None:
    """The same identity with a newer incarnation takes its old place."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        await router.ask("one")
        swarm.kill("a")
        await trio.sleep(1)
        gone = router.peers
        await swarm.listener("a", mock())
        await router.wait_for_peers()
        response = await router.ask("two")

    assert gone == ()
    assert response.executor == "a"


def test_request_ids_are_version_seven_uuids_and_sort_by_time() -> None:
    """RFC 9562, section 5.7: version 7, variant 2, the time first."""
    ids = [new_request_id() for _ in range(50)]

    assert all(len(i) == 36 and i[14] == "7" and i[19] in "89ab" for i in ids)
    assert [i[:13] for i in ids] == sorted(i[:13] for i in ids)
    assert len(set(ids)) == 50


# ---- peers that mean harm ----


async def test_an_answer_is_received_inside_its_context_only(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Nothing would cancel it otherwise, and its slot would be taken for ever."""
    executor = await swarm.listener("a", mock(decode_rate=10, slots=1))
    async with swarm.router() as router:
        with pytest.raises(RuntimeError, match="async with"):
            async for _ in router.answer(chat_request("hello")):
                break
        busy = executor.statistics().busy

    assert busy == 0


async def test_an_answer_that_failed_stays_failed(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Asking for more of it gives the same error again."""
    await swarm.listener("a", mock(decode_rate=1))
    async with (
        swarm.router() as router,
        router.answer(chat_request("hello", timeout=2.5)) as answer,
    ):
        with pytest.raises(DeadlineExceeded) as first:
            while await answer.receive() is not None:
                pass
        with pytest.raises(DeadlineExceeded) as second:
            await answer.receive()

    assert first.value is second.value


async def lying(
    swarm: Swarm,
    name: str,
    lie: Callable[[CommandResponse], CommandResponse],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A listener whose responses are what *lie* makes of them."""
    executor = (await swarm.listener(name, ScriptedBackend()))._executor
    honest = executor.serve_call

    def serve_call(call: ServerCall) -> None:
        respond = call.respond
        monkeypatch.setattr(call, "respond", lambda response: respond(lie(response)))
        honest(call)

    monkeypatch.setattr(executor, "serve_call", serve_call)


async def test_a_peer_does_not_decide_that_our_time_is_over(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeout` long before the deadline is a fault of the peer, and the next one is asked."""
    await lying(
        swarm, "liar", lambda r: attrs.evolve(r, status="timeout", result=None), monkeypatch
    )
    async with swarm.router() as router:
        await swarm.listener("honest", ScriptedBackend())
        await router.wait_for_peers(lambda found: len(found) == 2)
        answers = {
            (await router.ask(chat_request("hello", stream=False))).executor for _ in range(10)
        }

    assert answers == {"honest"}


async def test_another_model_than_the_one_on_offer_is_not_accepted(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provenance that contradicts the advert of the same peer is a lie."""

    def lie(response: CommandResponse) -> CommandResponse:
        if response.provenance is None:
            return response
        return attrs.evolve(
            response, provenance=attrs.evolve(response.provenance, model="something else")
        )

    await lying(swarm, "liar", lie, monkeypatch)
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable, match="not agreed on"):
            await router.ask(chat_request("hello", stream=False))


async def test_a_backend_with_a_bug_fails_its_answer_and_nothing_else(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Other answers on the same session go on, and the next peer is asked."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        if request.messages[-1].content == "bad":
            raise KeyError("a bug")
        await trio.sleep(5)
        await emit("fine", 1)
        return Generation(completion=Completion(text="fine"), usage=Usage(), timings=Timings())

    async with trio.open_nursery() as nursery:
        await swarm.listener("a", ScriptedBackend(play))
        async with swarm.router() as router:
            good = router.answer(chat_request("good"))
            nursery.start_soon(_read, good)
            await trio.sleep(1)
            with pytest.raises(NoPeerAvailable, match="a bug"):
                await router.ask("bad")
            await trio.sleep(10)

    assert text_of(good.response) == "fine"


async def test_an_answer_that_cannot_travel_is_an_error_and_not_the_end(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A result longer than a frame fails alone."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        text = "x" * (9 << 20 if request.messages[-1].content == "long" else 5)
        return Generation(completion=Completion(text=text), usage=Usage(), timings=Timings())

    await swarm.listener("a", ScriptedBackend(play))
    async with swarm.router() as router:
        with pytest.raises(InvalidRequest, match="cannot travel"):
            await router.ask(chat_request("long", stream=False))
        after = await router.ask(chat_request("short", stream=False))

    assert text_of(after) == "xxxxx"


async def test_a_reader_who_stops_reading_loses_its_slot(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Half a minute is enough, however alive its heart is."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        while True:
            await emit("x" * 10_000, 1)

    executor = await swarm.listener("a", ScriptedBackend(play, slots=1))
    async with swarm.router() as router, router.answer(chat_request("hi")) as answer:
        await answer.receive()
        before = executor.statistics().busy
        await trio.sleep(40)
        after = executor.statistics().busy

    assert (before, after) == (1, 0)
