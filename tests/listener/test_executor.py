"""The listener's side: admission, learning, draining."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
from answers import error_of, immediate_end_of, result_of, session_of, text_of
from trio.testing import MockClock

from punch.backends import Emit, Generation, Loading, MockBackend, MockScript, plausible
from punch.capability import ModelOffer
from punch.dialer import chat_request
from punch.exceptions import (
    ConfigurationError,
    GenerationFailed,
    NoPeerAvailable,
    PunchError,
    RequestConflict,
)
from punch.listener import open_executor
from punch.machine import Machine, MachineSample
from punch.testing import MemoryNetwork, ScriptedBackend, Swarm
from punch.wire import (
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Completion,
    Progress,
    Sampling,
    Timings,
    Usage,
)


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


async def test_slots_bound_what_runs_and_the_queue_what_waits(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Two run, three wait, the sixth is refused."""
    outcomes: dict[int, str] = {}
    executor = await swarm.listener("a", mock(delay=10, slots=2), queue_limit=3)
    async with swarm.router() as router, trio.open_nursery() as nursery:

        async def one(index: int) -> None:
            try:
                outcomes[index] = (await router.ask(f"{index}")).status
            except NoPeerAvailable:
                outcomes[index] = "refused"

        for index in range(6):
            nursery.start_soon(one, index)
        await trio.sleep(1)
        during = executor.statistics()

    assert (during.busy, during.queued) == (2, 3)
    assert sorted(outcomes.values()) == ["refused"] + ["success"] * 5


async def test_a_higher_priority_goes_first(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Waiting requests are served by priority, then by arrival."""
    order: list[str] = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        order.append(request.request_id)
        await trio.sleep(1)
        return Generation(completion=Completion(), usage=Usage(), timings=Timings())

    await swarm.listener("a", ScriptedBackend(play, slots=1))
    async with swarm.router() as router, trio.open_nursery() as nursery:
        for request_id, priority in (("first", 0), ("low", -1), ("usual", 0), ("high", 9)):
            request = CommandRequest(
                request_id=request_id,
                messages=(ChatMessage(role="user", content="x"),),
                priority=priority,
            )
            nursery.start_soon(router.ask, request)
            await trio.sleep(0.1)

    assert order == ["first", "high", "usual", "low"]


async def test_a_cancelled_request_leaves_the_queue(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its place is free at once, and it never reaches the backend."""
    executor = await swarm.listener("a", mock(delay=10, slots=1))
    async with swarm.router() as router, trio.open_nursery() as nursery:
        nursery.start_soon(router.ask, "runs")
        await trio.sleep(1)
        with trio.move_on_after(1):
            await router.ask("waits")
        await trio.sleep(0.1)
        during = executor.statistics()

    assert (during.busy, during.queued, during.cancelled) == (1, 0, 1)
    assert executor.statistics().served == 1


async def test_draining_finishes_what_runs_and_refuses_what_comes(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A listener that shuts down keeps its promises and makes no new ones."""
    executor = await swarm.listener("a", mock(delay=5))
    async with swarm.router() as router, trio.open_nursery() as nursery:
        answer = router.answer(chat_request("hello"))

        async def read() -> None:
            async with answer:
                async for _ in answer:
                    pass

        nursery.start_soon(read)
        await trio.sleep(1)
        nursery.start_soon(executor.drain)
        await trio.sleep(1)
        with pytest.raises(NoPeerAvailable, match="shutting down"):
            await router.ask("too late")

    assert answer.response.status == "success"


async def test_measured_rates_are_advertised(autojump_clock: MockClock, swarm: Swarm) -> None:
    """What the backend timed is what dialers are told."""
    executor = await swarm.listener("a", mock(decode_rate=25, prefill_rate=100))
    before = executor.capability().models[0].decode_rate
    async with swarm.router() as router:
        await router.ask("one two three four five six seven eight")
        await trio.sleep(2)
        (peer,) = router.peers
        offer = peer.capability.models[0]

    assert before is None
    assert offer.decode_rate == pytest.approx(25, rel=0.05)
    assert offer.prefill_rate == pytest.approx(100, rel=0.05)


class Real(MockBackend):
    """One that is timed."""

    simulated = False


async def test_calibration_times_the_backend_before_the_first_advert(
    autojump_clock: MockClock,
) -> None:
    """A dialer's first decision already rests on a measurement."""
    async with trio.open_nursery() as nursery:
        node = MemoryNetwork(nursery).node("a")
        async with open_executor(
            node, Real(MockScript(decode_rate=40, prefill_rate=400)), namespace="n", incarnation=1
        ) as executor:
            offer = executor.capability().models[0]

    assert offer.decode_rate == pytest.approx(40, rel=0.05)
    assert offer.prefill_rate == pytest.approx(400, rel=0.05)


async def test_a_backend_that_cannot_answer_its_calibration_does_not_start(
    autojump_clock: MockClock,
) -> None:
    """Better no listener than one that fails every request."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        raise GenerationFailed("no weights")

    async with trio.open_nursery() as nursery:
        node = MemoryNetwork(nursery).node("a")
        with pytest.raises(GenerationFailed, match="no weights"):
            async with open_executor(
                node, ScriptedBackend(play, simulated=False), namespace="n", incarnation=1
            ):
                pass


async def test_a_negative_queue_is_refused() -> None:
    """The value and the rule are named."""
    async with trio.open_nursery() as nursery:
        node = MemoryNetwork(nursery).node("a")
        with pytest.raises(ConfigurationError, match="limit is -1; it must be 0 or more"):
            async with open_executor(node, mock(), namespace="n", incarnation=1, queue_limit=-1):
                pass


async def test_the_machine_is_measured_once_a_second(autojump_clock: MockClock) -> None:
    """However often the load changes."""

    class Counted(Machine):
        def __init__(self) -> None:
            self.samples = 0

        def sample(self) -> MachineSample:
            self.samples += 1
            return MachineSample(cpu_count=self.samples)

    machine = Counted()
    async with trio.open_nursery() as nursery:
        node = MemoryNetwork(nursery).node("a")
        async with open_executor(
            node, mock(), namespace="n", incarnation=1, machine=machine
        ) as executor:
            counts = []
            for _ in range(8):
                counts.append(executor.capability().cpu_count)
                await trio.sleep(0.25)

    assert counts == [1, 1, 1, 1, 2, 2, 2, 2]


async def test_ping_and_capabilities_need_no_slot(autojump_clock: MockClock, swarm: Swarm) -> None:
    """A full listener still says what it is."""
    await swarm.listener("a", mock(delay=50, slots=1), queue_limit=1)
    async with swarm.router() as router, trio.open_nursery() as nursery:
        nursery.start_soon(router.ask, "busy")
        await trio.sleep(1)
        session = session_of(router, "a")
        told = await immediate_end_of(
            session.ask(CommandRequest(request_id="c", command="capabilities"))
        )
        pong = await immediate_end_of(session.ask(CommandRequest(request_id="p", command="ping")))
        nursery.cancel_scope.cancel()

    assert told.capability is not None
    assert told.capability.backend == "mock"
    assert told.capability.load.busy == 1
    assert pong.status == "success"


async def test_the_same_request_twice_at_once_is_made_once(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Both callers get the one answer; another request with its id is a conflict."""
    texts = []
    executor = await swarm.listener("a", mock(delay=5))
    async with swarm.router() as router:
        request = chat_request("one", request_id="same")

        async def ask() -> None:
            texts.append(text_of(await router.ask(request)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            nursery.start_soon(ask)
            await trio.sleep(1)
            with pytest.raises(RequestConflict, match="'same'"):
                await router.ask(chat_request("two", request_id="same"))
    served = executor.statistics().served

    assert len(texts) == 2
    assert texts[0] == texts[1]
    assert served == 1


async def test_a_mock_answer_is_a_pure_function_of_the_request(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Two mocks agree, and a stop ends the answer before it."""
    request = chat_request("hello", sampling=Sampling(max_tokens=20, seed=7))
    await swarm.listener("a", mock())
    await swarm.listener("b", mock(decode_rate=100))
    async with swarm.router(policy="round-robin") as router:
        texts = [text_of(await router.ask(request)) for _ in range(4)]
        word = texts[0].split()[7]
        stopped = await router.ask(
            chat_request("hello", sampling=Sampling(max_tokens=20, seed=7, stop=(f" {word}",)))
        )

    assert len(set(texts)) == 1
    assert text_of(stopped) == texts[0][: texts[0].index(f" {word}")]
    assert result_of(stopped).finish_reason == "stop"


async def test_the_load_counts_prompts_and_answers_still_to_be_made(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Of the request that was begun, and of the one that waits."""
    loads = []
    script = mock(prefill_rate=1, decode_rate=1, slots=1)
    executor = await swarm.listener("a", script)
    async with swarm.router() as router, trio.open_nursery() as nursery:
        limited = Sampling(max_tokens=20)
        for text in ("one two three four five", "six"):
            nursery.start_soon(router.ask, chat_request(text, sampling=limited))
            await trio.sleep(1)
        loads.append(executor.capability().load)
        await trio.sleep(10.5)
        loads.append(executor.capability().load)
        nursery.cancel_scope.cancel()
    await trio.sleep(1)
    loads.append(executor.capability().load)

    prompts = [load.queued_prompt_tokens for load in loads]
    assert prompts == [7 + 1, 1, 0]
    # 20 each; of the first, seven are made after twelve and a half seconds.
    assert [load.output_tokens_left for load in loads] == [40, 33, 0]


async def test_the_mean_batch_is_reported(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Alone for one half of the time and two for the other is one and a half."""
    batches = []
    await swarm.listener("a", mock(decode_rate=10, slots=2))
    async with swarm.router() as router, trio.open_nursery() as nursery:

        async def ask(tokens: int) -> None:
            sampling = Sampling(max_tokens=tokens)
            response = await router.ask(chat_request("go", sampling=sampling))
            batches.append(response.timings.batch)

        nursery.start_soon(ask, 10)
        nursery.start_soon(ask, 20)

    assert batches == [pytest.approx(2.0), pytest.approx(1.5)]


async def test_a_slowdown_that_was_measured_is_advertised(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """So that a dialer that never asked knows it too."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        await trio.sleep(1)
        timings = Timings(prefill=0.1, decode=1.0)
        usage = Usage(prompt_tokens=20, completion_tokens=20)
        return Generation(completion=Completion(), usage=usage, timings=timings)

    executor = await swarm.listener("a", ScriptedBackend(play, slots=2))
    before = executor.capability().models[0].slowdown
    async with swarm.router() as router, trio.open_nursery() as nursery:
        for text in ("one", "two"):
            nursery.start_soon(router.ask, text)
    after = executor.capability().models[0].slowdown

    assert before is None
    assert after is not None


async def test_a_loading_backend_is_waited_for_and_said_to_be(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The dialer hears how long before it hears that the backend works on it."""

    class Reloading(MockBackend):
        async def ready(self, loading: Loading) -> None:
            for seconds in (10.0, 5.0):
                loading(seconds)
                await trio.sleep(5)

    heard = []
    await swarm.listener("a", Reloading(MockScript()))
    async with swarm.router() as router:
        call = session_of(router, "a").ask(chat_request("hi"))
        while not isinstance(part := await call.receive(), CommandResponse):
            heard.append(part)

    kinds = [type(part).__name__ for part in heard[:3]]
    assert kinds == ["Progress", "Progress", "Started"]
    told = [(part.state, part.seconds) for part in heard if isinstance(part, Progress)]
    assert told[:2] == [("loading", 10.0), ("loading", 5.0)]
    assert part.timings.queue == pytest.approx(10.0)


async def test_a_deadline_behind_a_long_queue_is_refused_at_once(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The listener knows how long its answers take, and says when to ask again."""
    await swarm.listener("a", mock(delay=10, slots=1))
    async with swarm.router() as router, trio.open_nursery() as nursery:
        await router.ask("so long")
        nursery.start_soon(router.ask, "first")
        await trio.sleep(0.1)
        nursery.start_soon(router.ask, "second")
        await trio.sleep(0.1)
        began = trio.current_time()
        session = session_of(router, "a")
        response = await immediate_end_of(session.ask(chat_request("third", timeout=15.0)))
        took = trio.current_time() - began

    assert response.status == "refused"
    assert error_of(response).retry_after == pytest.approx(5.0, abs=0.1)
    assert took < 0.01


async def test_an_embedding_teaches_how_long_a_slot_is_held(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The second one cannot be done in time behind the first, and is told so at once."""

    class Slow(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            await trio.sleep(10)
            return await super().generate(request, emit)

    request = CommandRequest(request_id="0", command="embed", inputs=("a",))
    await swarm.listener("a", Slow(MockScript(slots=1)))
    async with swarm.router() as router, trio.open_nursery() as nursery:
        await router.ask(request)
        nursery.start_soon(router.ask, attrs.evolve(request, request_id="1"))
        await trio.sleep(0.1)
        session = session_of(router, "a")
        hurried = attrs.evolve(request, request_id="2", timeout=5.0)
        response = await immediate_end_of(session.ask(hurried))
    assert response.status == "refused"
    assert "no answer within 5.0 s" in error_of(response).message


@pytest.mark.parametrize("kind", [GenerationFailed, ValueError])
async def test_what_a_backend_quotes_is_not_logged(
    kind: Any, autojump_clock: MockClock, swarm: Swarm, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of the prompt nor of the answer; what else it says is."""
    prompt, answer = "a secret that is nobody's business", "this much, in confidence"

    async def quote(request: CommandRequest, emit: Emit) -> Generation:
        await emit(answer, 6)
        raise kind(f"bad: {request.messages[0].content!r}, {answer}")

    await swarm.listener("a", ScriptedBackend(quote))
    async with swarm.router() as router:
        with pytest.raises(PunchError):
            await router.ask(prompt)
    said = [r.getMessage() for r in caplog.records if r.name == "punch.listener._outcomes"]
    assert len(said) == 1
    assert "bad: " in said[0]
    assert "secret" not in said[0]
    assert "confidence" not in said[0]


HUGE = 1 << 53


def generation(count: int | None, seconds: float | None) -> Generation:
    """One of which a backend says so."""
    return Generation(
        completion=Completion(),
        usage=Usage(prompt_tokens=count, completion_tokens=count, cached_tokens=count),
        timings=Timings(prefill=seconds, decode=seconds),
    )


def test_counts_are_those_that_an_answer_can_have() -> None:
    """Bounded by what was asked for, by the context, and by what there is of the prompt."""
    asked = chat_request("hello", sampling=Sampling(max_tokens=20))
    offer = ModelOffer(name="m", context_tokens=4096)
    usage = plausible(generation(HUGE, None), asked, offer).usage
    assert usage == Usage(prompt_tokens=4096, completion_tokens=20, cached_tokens=4096)
    usage = plausible(generation(HUGE, None), chat_request("hello"), ModelOffer(name="m")).usage
    assert usage == Usage(prompt_tokens=1 << 20, completion_tokens=1 << 20, cached_tokens=1 << 20)
    assert plausible(generation(-1, None), asked, offer).usage == Usage(
        prompt_tokens=0, completion_tokens=0, cached_tokens=0
    )
    several = CommandRequest(request_id="r", command="embed", inputs=("a",) * 3)
    assert plausible(generation(HUGE, None), several, offer).usage.prompt_tokens == 3 * 4096
    cached = attrs.evolve(generation(7, 1.0), usage=Usage(prompt_tokens=7, cached_tokens=9))
    assert plausible(cached, asked, offer).usage.cached_tokens == 7
    honest = generation(7, 1.5)
    assert plausible(honest, asked, offer) == honest


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 1e9])
def test_times_that_are_no_times_are_left_out(seconds: Any) -> None:
    """Better none than one that would stay in every average."""
    asked, offer = chat_request("hello"), ModelOffer(name="m")
    assert plausible(generation(7, seconds), asked, offer).timings == Timings()


async def test_a_backend_that_counts_nonsense_spoils_nothing(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Neither the response nor the length that dialers are told of."""

    class Miscounting(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            made = await super().generate(request, emit)
            return attrs.evolve(made, usage=generation(HUGE, None).usage)

    executor = await swarm.listener("a", Miscounting(MockScript(decode_rate=10.0)))
    async with swarm.router() as router:
        response = await router.ask(chat_request("hi"))
        short = await router.ask(chat_request("hi", sampling=Sampling(max_tokens=2)))
    offer = executor.capability().models[0]
    assert short.usage.completion_tokens == 2
    assert response.usage.completion_tokens == offer.context_tokens
    # The one that its limit has cut says nothing of usual lengths.
    assert offer.usual_tokens == offer.context_tokens
