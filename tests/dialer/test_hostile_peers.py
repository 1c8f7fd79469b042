"""Peers that lie, dawdle, babble or vanish, and a dialer that is none the worse for it."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from answers import result_of, text_of
from trio.testing import MockClock

from punch.backends import Emit, Generation, Loading, MockBackend, MockScript, mock_words
from punch.capability import PeerId
from punch.decision_log import open_decision_log
from punch.dialer import Answer, Hedge, Router, chat_request
from punch.dialer import _runs as limits
from punch.events import Bus
from punch.exceptions import (
    AnswerInterrupted,
    ContextTooLong,
    DeadlineExceeded,
    GenerationFailed,
    PunchError,
)
from punch.peers import PeerRecord
from punch.routing import POLICIES
from punch.testing import Swarm, open_swarm
from punch.wire import CommandRequest, CommandResponse, Completion, Sampling, Timings, Usage

LIMIT = 3600
TOKENS = 12

# No lot and no exploring: the best is asked, or who says that it is.
SETTLED = attrs.evolve(POLICIES["completion-time"], near=0.0, explore=0.0)
# The same, but nobody is trusted with all there is before it was measured.
WARY = attrs.evolve(SETTLED, explore=1e-9)
FASTEST = {"decode_rate": 1e4, "prefill_rate": 1e5}
SLOWEST = {"decode_rate": 1.0, "prefill_rate": 10.0}


def claiming(backend: MockBackend, **claims: Any) -> MockBackend:
    """*backend*, with what it says of itself."""
    backend.offers = tuple(attrs.evolve(offer, **claims) for offer in backend.offers)
    return backend


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**({"decode_rate": 10.0} | script)))


def question(text: str = "tell me", tokens: int = TOKENS, **changes: Any) -> CommandRequest:
    return attrs.evolve(chat_request(text, sampling=Sampling(max_tokens=tokens)), **changes)


def story(request: CommandRequest) -> str:
    """The unbroken answer."""
    return " ".join(mock_words(request))


async def finish(answer: Answer) -> CommandResponse:
    """Read the rest."""
    while await answer.receive() is not None:
        pass
    return answer.response


def answerer(swarm: Swarm) -> str:
    """The one listener that is busy."""
    (name,) = (name for name, found in swarm.listeners.items() if found.statistics().busy)
    return name


def who(router: Router, name: str) -> PeerRecord:
    """What the dialer knows of a listener."""
    (found,) = (peer for peer in router.peers if peer.peer_id == name)
    return found


async def meet(swarm: Swarm, router: Router, name: str, backend: MockBackend) -> None:
    """A listener joins, and the router knows it."""
    await swarm.listener(name, backend)
    await router.wait_for_peers(lambda peers: any(peer.peer_id == name for peer in peers))


class Failing(MockBackend):
    """Fails at once, with *error*."""

    def __init__(self, error: PunchError) -> None:
        super().__init__(MockScript())
        self.error = error

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        raise self.error


# ---- those that are slow ----


class Silent(MockBackend):
    """Says nothing until the answer is whole."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        await trio.sleep(40.0)
        return await super().generate(request, emit)


async def test_who_takes_the_answer_whole_waits_for_all_of_its_tokens(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Nothing can be heard before the last one: forty seconds, as was predicted."""
    for name in "ab":
        await swarm.listener(name, claiming(Silent(MockScript()), **SLOWEST))
    async with swarm.router() as router:
        response = await router.ask(question(tokens=40, stream=False))
    assert response.status == "success"
    assert response.attempts == ()


@pytest.mark.parametrize("stream", [True, False])
async def test_the_only_peer_may_take_its_time_for_the_first_word(
    stream: bool, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Giving it up would not bring another."""
    await swarm.listener("a", mock(delay=30.0))
    async with swarm.router() as router:
        response = await router.ask(question(stream=stream))
        assert not who(router, "a").breakers
    assert text_of(response) == story(question())


class Hanging(MockBackend):
    """Begins, and that is all."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        await trio.sleep_forever()


async def test_another_peer_is_asked_beside_one_that_never_says_a_first_word(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its heart beats, and its backend hangs: that counts against it, and costs six seconds."""
    await swarm.listener("a", claiming(Hanging(MockScript()), **FASTEST))
    await swarm.listener("b", claiming(mock(), **SLOWEST))
    async with swarm.router(policy=SETTLED) as router:
        began = trio.current_time()
        response = await router.ask(question())
        took = trio.current_time() - began
        assert who(router, "a").fault_share > 0
    assert (response.executor, text_of(response)) == ("b", story(question()))
    assert response.attempts == ()
    assert took == pytest.approx(6.0 + 1.2, abs=0.5)


class Putting(MockBackend):
    """Is about to begin, for ever."""

    async def ready(self, loading: Loading) -> None:
        while True:
            loading(0.0)
            await trio.sleep(5.0)


async def test_who_is_about_to_begin_for_ever_is_given_up(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A minute after it said that it needs no time at all."""
    await swarm.listener("a", claiming(Putting(MockScript()), **FASTEST))
    await swarm.listener("b", claiming(mock(), **SLOWEST))
    async with swarm.router(policy=SETTLED) as router:
        began = trio.current_time()
        response = await router.ask(question())
        took = trio.current_time() - began
    assert [attempt["peer_id"] for attempt in response.attempts] == ["a"]
    assert text_of(response) == story(question())
    assert took == pytest.approx(61.0, abs=1.0)


class Trickling(MockBackend):
    """Speaks a word now and then, always in time for the watchdog."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        while True:
            await emit("drip ", 1)
            await trio.sleep(3.0)


async def test_who_runs_requests_into_their_deadline_is_not_asked_first_for_ever(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It is far slower than it said, which counts in part, and how slow it is is learned."""
    outcomes: Counter[str | None] = Counter()
    await swarm.listener("a", claiming(Trickling(MockScript()), **FASTEST))
    await swarm.listener("b", claiming(mock(), **SLOWEST))
    async with swarm.router(policy=SETTLED) as router:
        for number in range(12):
            try:
                request = question(f"{number}", tokens=100, timeout=30.0)
                outcomes[(await router.ask(request)).executor] += 1
            except DeadlineExceeded:
                outcomes["late"] += 1
        share = who(router, "a").fault_share
    assert share > 0
    assert outcomes["late"] <= 3
    assert outcomes["b"] >= 9


async def test_a_slow_reader_is_not_the_fault_of_the_peer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It had sent everything long ago."""
    await swarm.listener("a", claiming(mock(), decode_rate=10.0, prefill_rate=100.0))
    async with swarm.router() as router:
        async with router.answer(question()) as answer:
            await answer.receive()
            await trio.sleep(60.0)
        assert who(router, "a").failures == 0


class Lying(MockBackend):
    """Says that it took a millisecond."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        generation = await super().generate(request, emit)
        return attrs.evolve(generation, timings=Timings(prefill=1e-3, decode=1e-3))


class Hoarding(Lying):
    """Says it in one piece, too, and that it had known the whole prompt."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        async def keep(text: str, tokens: int) -> None:
            """Not now."""

        generation = await super().generate(request, keep)
        usage = attrs.evolve(generation.usage, cached_tokens=generation.usage.prompt_tokens)
        assert usage.completion_tokens is not None
        await emit(generation.completion.text, usage.completion_tokens)
        return attrs.evolve(generation, usage=usage)


@pytest.mark.parametrize(
    ("liar", "stream"),
    [
        pytest.param(Lying(MockScript(decode_rate=1.0)), True, id="decode"),
        pytest.param(Lying(MockScript(decode_rate=10.0, delay=15.0)), True, id="prefill"),
        pytest.param(Lying(MockScript(decode_rate=1.0)), False, id="whole"),
        pytest.param(Hoarding(MockScript(decode_rate=1.0)), True, id="one-piece"),
    ],
)
async def test_who_lies_about_its_times_does_not_look_fast(
    liar: Any, stream: bool, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """What was seen counts where it is much longer than what was said."""
    asked: Counter[str | None] = Counter()
    prompt = "a prompt of more than a few words, so that it says something of a rate " * 4
    await swarm.listener("liar", claiming(liar, **FASTEST))
    rates = {"decode_rate": 10.0, "prefill_rate": 100.0}
    await swarm.listener("honest", claiming(mock(prefill_rate=100.0), **rates))
    async with swarm.router(policy=SETTLED) as router:
        for number in range(20):
            request = question(f"{number} {prompt}", stream=stream)
            asked[(await router.ask(request)).executor] += 1
    assert asked["liar"] <= 5


# ---- those that claim ----


async def test_a_claim_of_many_slots_is_not_worth_many_requests(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Until it was measured, a peer gets four of ours at a time."""
    await swarm.listener("known", mock(slots=64))
    async with swarm.router(policy=WARY) as router, trio.open_nursery() as nursery:
        for number in range(4):
            await router.ask(question(f"before {number}"))
        await meet(swarm, router, "new", claiming(mock(delay=9.0, slots=64), **FASTEST))
        for number in range(20):
            nursery.start_soon(router.ask, question(f"{number}"))
        await trio.sleep(0.5)
        busy = swarm.listeners["new"].statistics().busy
    assert busy == 4


class Babbling(MockBackend):
    """Says six million characters, and counts no token of it."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        for _ in range(100):
            await emit("x" * 60_000, 0)
        return Generation(completion=Completion(), usage=Usage(), timings=Timings())


async def test_more_text_than_was_asked_for_is_refused(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Twelve tokens are not sixty thousand characters; another peer answers."""
    await swarm.listener("a", claiming(Babbling(MockScript()), **FASTEST))
    await swarm.listener("b", claiming(mock(), **SLOWEST))
    async with swarm.router(policy=SETTLED) as router:
        response = await router.ask(question())
    assert text_of(response) == story(question())
    assert [attempt["peer_id"] for attempt in response.attempts] == ["a"]


async def test_an_answer_without_a_limit_has_one_all_the_same(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Four million characters."""
    await swarm.listener("a", Babbling(MockScript()))
    async with swarm.router() as router:
        with pytest.raises(AnswerInterrupted, match="characters there can be") as caught:
            await router.ask(chat_request("go on"))
    assert 0 < caught.value.characters <= 4 << 20


async def test_more_text_than_was_asked_for_is_refused_in_one_piece_too(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """As when it comes in parts."""

    class Shouting(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            completion = Completion(text="x" * 1_000_000)
            return Generation(completion=completion, usage=Usage(), timings=Timings())

    await swarm.listener("a", claiming(Shouting(MockScript()), **FASTEST))
    await swarm.listener("b", claiming(mock(), **SLOWEST))
    async with swarm.router(policy=SETTLED) as router:
        response = await router.ask(question(stream=False))
    assert text_of(response) == story(question())


class Cached(MockBackend):
    """Has found the whole prompt in its cache, what others delivered included."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        generation = await super().generate(request, emit)
        usage = attrs.evolve(generation.usage, cached_tokens=generation.usage.prompt_tokens)
        return attrs.evolve(generation, usage=usage)


async def test_no_more_of_a_prompt_is_cached_than_there_is(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """What another peer had delivered is part of neither number."""
    for name in "ab":
        await swarm.listener(name, Cached(MockScript(decode_rate=10.0)))
    async with swarm.router() as router, router.answer(question()) as answer:
        for _ in range(5):
            await answer.receive()
        swarm.kill(answerer(swarm))
        response = await finish(answer)
    assert response.usage == Usage(prompt_tokens=2, completion_tokens=TOKENS, cached_tokens=2)


class Lingering(MockBackend):
    """Has said everything, and does not say so."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        generation = await super().generate(request, emit)
        await trio.sleep(1.0)
        return generation


async def test_a_peer_that_adds_nothing_changes_no_count(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The first one died between its last word and its farewell; only the second one knew that."""
    request = chat_request("tell me")
    for name in "ab":
        await swarm.listener(name, Lingering(MockScript(decode_rate=10.0)))
    async with swarm.router() as router, router.answer(request) as answer:
        words = mock_words(request)
        for _ in words:
            await answer.receive()
        swarm.kill(answerer(swarm))
        response = await finish(answer)
    assert text_of(response) == story(request)
    assert response.usage == Usage(prompt_tokens=2, completion_tokens=len(words))
    assert sum(segment.tokens for segment in response.segments) == len(words)


async def test_a_stop_that_began_in_the_callers_own_text_ends_the_answer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Nothing of the peer's text is left, and the answer is whole."""

    class Completing(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            await emit("c and more", 3)
            usage = Usage(prompt_tokens=1, completion_tokens=3)
            completion = Completion(text="c and more")
            return Generation(completion=completion, usage=usage, timings=Timings())

    request = CommandRequest(
        request_id="r",
        command="complete",
        prompt="p",
        continuation="ab",
        sampling=Sampling(stop=("abc",)),
    )
    await swarm.listener("a", Completing(MockScript()))
    async with swarm.router() as router:
        response = await router.ask(request)
    assert (response.status, response.executor) == ("success", "a")
    assert (text_of(response), result_of(response).finish_reason) == ("", "stop")


# ---- those that cannot ----


failure = GenerationFailed("no")
failure.retry_after = 30.0
TOO_LONG = ContextTooLong("the prompt has 600 tokens and the context is 512")


async def test_a_continuation_that_is_too_long_for_one_peer_goes_to_the_next(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The caller's request was fine a moment ago."""
    request = question()
    await swarm.listener("a", mock())
    async with swarm.router(policy=SETTLED) as router, router.answer(request) as answer:
        for _ in range(4):
            await answer.receive()
        await meet(swarm, router, "small", claiming(Failing(TOO_LONG), **FASTEST))
        await meet(swarm, router, "large", claiming(mock(), **SLOWEST))
        swarm.kill("a")
        await finish(answer)
        small = who(router, "small")
    assert answer.text == story(request)
    assert [attempt.error.code for attempt in answer.attempts] == ["unreachable", "unable"]
    assert small.failures == 0


async def test_a_hedge_that_is_too_long_for_one_peer_leaves_the_other_alone(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It is answered where it was asked first."""
    await swarm.listener("large", claiming(mock(delay=3.0), **FASTEST))
    await swarm.listener("small", claiming(Failing(TOO_LONG), **SLOWEST))
    async with swarm.router(policy=SETTLED, hedge=Hedge(least=1.0)) as router:
        response = await router.ask(question())
    assert (response.status, response.executor) == ("success", "large")
    assert [attempt["error"] for attempt in response.attempts] == ["context_too_long"]


async def test_what_is_too_long_for_the_first_peer_is_too_long(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Before there is any text, and with nobody beside it, it is the caller's own fault."""
    await swarm.listener("small", Failing(TOO_LONG))
    async with swarm.router() as router:
        with pytest.raises(ContextTooLong):
            await router.ask(question())


async def test_a_fault_counts_against_the_model_that_was_asked_for(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A caller who names none goes on with one; a peer's first offer may be another."""
    backend = Failing(failure)
    (offer,) = backend.offers
    backend.offers = (attrs.evolve(offer, name="other", digest="e" * 64), offer)
    await swarm.listener("a", mock())
    async with swarm.router() as router, router.answer(question()) as answer:
        await answer.receive()
        await meet(swarm, router, "b", backend)
        swarm.kill("a")
        with pytest.raises(AnswerInterrupted):
            await finish(answer)
        assert set(who(router, "b").breakers) == {"mock/mock"}


class Pausing(MockBackend):
    """Stops to think in mid-sentence, for longer than is usual."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        async def emit_slowly(text: str, tokens: int) -> None:
            await emit(text, tokens)
            if text == f" {mock_words(request)[4]}":
                await trio.sleep(8.0)

        return await super().generate(request, emit_slowly)


async def resting(swarm: Swarm, router: Router) -> None:
    """Let the router learn that the only listener fails, and will for half a minute."""
    await swarm.listener("broken", Failing(failure))
    with pytest.raises(PunchError):
        await router.ask("does it work?")


async def test_a_live_answer_is_not_left_for_a_peer_that_is_known_to_fail(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Where every breaker is open anybody is asked, but not in the place of one who answers."""
    async with swarm.router() as router:
        await resting(swarm, router)
        await meet(swarm, router, "a", Pausing(MockScript(decode_rate=10.0)))
        response = await router.ask(question())
    assert response.attempts == ()
    assert [segment.peer_id for segment in response.segments] == ["a"]


async def test_nobody_hedges_with_a_peer_that_is_known_to_fail(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A request that is on its way has a better chance where it is."""
    async with swarm.router(hedge=Hedge(least=1.0)) as router:
        await resting(swarm, router)
        await meet(swarm, router, "a", mock(delay=5.0))
        response = await router.ask(question())
    assert (response.executor, response.attempts) == ("a", ())


# ---- those that are lost ----


async def test_a_peer_on_a_new_connection_goes_on_with_its_answer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It was the line that broke, and there is nobody else."""
    request = question(tokens=20)
    await swarm.listener("a", mock())
    async with swarm.router() as router, router.answer(request) as answer:
        for _ in range(4):
            await answer.receive()
        swarm.network.cut(lambda dialer, listener: listener == "a")
        await finish(answer)
    assert answer.text == story(request)
    assert [segment.peer_id for segment in answer.segments] == ["a", "a"]


async def test_the_death_of_one_peer_is_paid_for_once(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Forty requests were there; a budget of ten is enough for all of them."""
    outcomes: Counter[str | None] = Counter()

    async def ask(router: Router, number: int) -> None:
        try:
            outcomes[(await router.ask(question(f"{number}", tokens=1))).executor] += 1
        except PunchError as error:
            outcomes[error.code] += 1

    for name in "ab":
        await swarm.listener(name, mock(delay=5.0, slots=80))
    async with swarm.router() as router, trio.open_nursery() as nursery:
        for number in range(80):
            nursery.start_soon(ask, router, number)
        await trio.sleep(1.0)
        there = swarm.listeners["a"].statistics().busy
        swarm.kill("a")
    assert there > 30
    assert outcomes == {"b": 80}


async def test_an_id_is_free_again_though_its_peer_stalls(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It never says that it has stopped; somebody else answers."""
    await swarm.listener("a", claiming(mock(), **FASTEST))
    await swarm.listener("b", claiming(mock(), **SLOWEST))
    async with swarm.router(policy=SETTLED) as router:
        async with router.answer(question(request_id="mine")) as answer:
            await answer.receive()
            swarm.network.stall(PeerId("a"))
        response = await router.ask(question(request_id="mine"))
    assert (response.executor, text_of(response)) == ("b", story(question()))
    assert [attempt["error"] for attempt in response.attempts] == ["silent"]


async def test_the_late_end_of_an_old_session_frees_nothing_of_the_new_one(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A slow reader finds out when requests of the next session are under way."""
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        async with router.answer(question("old", continuable=False)) as old:
            await old.receive()
            swarm.network.cut(lambda dialer, listener: listener == "a")
            await trio.sleep(3.0)
            async with router.answer(question("new")) as new:
                await new.receive()
                with pytest.raises(AnswerInterrupted):
                    await finish(old)
                during = who(router, "a").in_flight
        after = who(router, "a").in_flight
    assert (during, after) == (1, 0)


# ---- those that talk ----


SECRET = "my secret medical question about somebody"


class Quoting(MockBackend):
    """Fails in the middle, and repeats what it was asked."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        words = mock_words(request)
        await emit(words[0], 1)
        await trio.sleep(0.1)
        raise GenerationFailed(f"cannot go on with {request.messages[0].content!r}")


async def ask_the_quoting(swarm: Swarm, **options: Any) -> CommandResponse:
    """Ask a peer that repeats the question in its error, and another one."""
    await swarm.listener("a", claiming(Quoting(MockScript()), **FASTEST))
    await swarm.listener("b", claiming(mock(), **SLOWEST))
    async with swarm.router(policy=SETTLED, **options) as router:
        return await router.ask(question(SECRET))


async def test_what_a_peer_quotes_is_not_logged(
    autojump_clock: MockClock, swarm: Swarm, caplog: pytest.LogCaptureFixture
) -> None:
    """Prompts are never logged unless asked for."""
    caplog.set_level(logging.INFO, logger="punch")
    response = await ask_the_quoting(swarm)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("punch.dialer")]
    assert SECRET in response.attempts[0]["reason"], "the caller may know"
    assert any("an attempt failed" in line for line in said)
    assert not [line for line in said if "secret" in line]


async def test_what_a_peer_quotes_is_not_in_the_decision_log(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Neither as the end of an attempt nor as that of a segment."""
    path = tmp_path / "log.jsonl"
    with trio.fail_after(LIMIT):
        events = Bus()
        async with open_decision_log(path, events), open_swarm() as swarm:
            response = await ask_the_quoting(swarm, events=events)
    written = "".join(file.read_text() for file in tmp_path.iterdir())
    assert SECRET in response.segments[0].reason
    assert "cannot go on with" not in written, "codes and our own words only"
    assert "backend_failed" in written
    assert "secret" not in written


# ---- what the answers of one dialer share ----


async def test_what_is_stored_holds_nothing_of_how_it_came_about(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A fault holds the frames in which it happened, and these the prompt."""
    request = question(request_id="mine")
    for name in "ab":
        await swarm.listener(name, mock())
    async with swarm.router() as router:
        async with router.answer(request) as answer:
            await answer.receive()
            swarm.kill(answerer(swarm))
            await finish(answer)
            assert len(answer.attempts) == 1
        async with router.answer(request) as again:
            assert await finish(again) is answer.response
            assert (again.text, again.attempts, again.decisions) == (answer.text, (), ())


async def test_numbers_count_in_what_is_stored(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedding has no text, and is not small."""
    monkeypatch.setattr(limits, "MAX_CHARACTERS", 10_000)
    request = CommandRequest(request_id="r", command="embed", inputs=("x",) * 64)
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        await router.ask(request)
        await router.ask(request)
    served = swarm.listeners["a"].statistics()
    assert len(router._runs) == 0
    assert served.recordings.kept == 1


@pytest.mark.parametrize(
    "order",
    [
        (300.0, 4.0),
        (4.0, 300.0),
    ],
    ids=["shorter", "longer"],
)
async def test_who_joins_an_answer_waits_as_long_as_he_said(
    order: tuple[float, ...], autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Not longer, and not as long as who asked first; no peer is to blame for either."""
    outcomes: dict[float, object] = {}

    async def ask(router: Router, timeout: float) -> None:
        began = trio.current_time()
        try:
            request = question(tokens=40, request_id="same", timeout=timeout)
            outcomes[timeout] = (await router.ask(request)).status
        except PunchError as error:
            outcomes[timeout] = (error.code, round(trio.current_time() - began, 1))

    await swarm.listener("a", mock(decode_rate=2.0))
    async with swarm.router() as router:
        async with trio.open_nursery() as nursery:
            for timeout in order:
                nursery.start_soon(ask, router, timeout)
                await trio.sleep(1.0)
        failures = who(router, "a").failures
    assert outcomes == {300.0: "success", 4.0: ("deadline", 4.0)}
    assert failures == 0
