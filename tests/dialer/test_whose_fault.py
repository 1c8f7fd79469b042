"""A peer's word that a request is at fault is one word, and its limits are its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest
import trio
from answers import text_of
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript, mock_words
from punch.dialer import Router, chat_request
from punch.exceptions import (
    ContextTooLong,
    GenerationFailed,
    InvalidRequest,
    NoPeerAvailable,
    OfferUnavailable,
    PeerRefused,
    PeerUnable,
    PunchError,
    RequestCancelled,
    RequestConflict,
    RequestError,
)
from punch.peers import PeerRecord
from punch.routing import POLICIES
from punch.testing import Swarm, open_swarm
from punch.wire import CommandRequest, Completion, Sampling, Timings, Usage

FASTEST: dict[str, Any] = {"decode_rate": 1e4, "prefill_rate": 1e5}

# No lot and no exploring: the best is asked, or who says that it is.
SETTLED = attrs.evolve(POLICIES["completion-time"], near=0.0, explore=0.0)


def mock(**script: Any) -> MockBackend:
    """An honest listener's backend, which claims what it does: forty tokens a second."""
    rates = {"decode_rate": 40.0, "prefill_rate": 2000.0, "slots": 4}
    return honest(MockBackend(MockScript(**(rates | script))))


def honest(backend: MockBackend) -> MockBackend:
    """*backend*, claiming the rates that it has."""
    script = backend.script
    backend.offers = tuple(
        attrs.evolve(offer, decode_rate=script.decode_rate, prefill_rate=script.prefill_rate)
        for offer in backend.offers
    )
    return backend


class Saying(MockBackend):
    """Says *error* to everything, at once, and claims to be the fastest, until it is mended."""

    def __init__(self, error: PunchError, **script: Any) -> None:
        super().__init__(MockScript(**({"decode_rate": 40.0} | script)))
        self.offers = tuple(attrs.evolve(offer, **FASTEST) for offer in self.offers)
        self.error: PunchError | None = error
        self.asked = 0

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return await super().generate(request, emit)


def question(number: int, tokens: int = 10, **changes: Any) -> CommandRequest:
    request = chat_request(f"question {number}", sampling=Sampling(max_tokens=tokens))
    return attrs.evolve(request, **changes)


def record_of(router: Router, name: str) -> PeerRecord:
    """What the dialer knows of a listener."""
    (found,) = (peer for peer in router.peers if peer.peer_id == name)
    return found


OBJECTIONS: list[PunchError] = [
    InvalidRequest("temperature is 3; it must be at most 2", param="temperature"),
    ContextTooLong("the prompt has 3 tokens and the context is 2"),
    RequestConflict("this id was used for another request"),
    RequestCancelled("cancelled"),
    PeerUnable("the body is too large", param="messages"),
    PeerRefused("not for you"),
    OfferUnavailable("no such offer"),
    GenerationFailed("no"),
]


# Of each kind of fault one; a hundred requests take most of a second.
QUICK = (InvalidRequest, PeerUnable, PeerRefused, GenerationFailed)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(error, id=error.code, marks=() if type(error) in QUICK else pytest.mark.slow)
        for error in OBJECTIONS
    ],
)
async def test_a_peer_that_turns_everything_away_fails_no_request(
    error: PunchError, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Beside two honest ones every request is answered, with one try more for a while."""
    bad = Saying(error)
    await swarm.listener("bad", bad)
    for name in "xy":
        await swarm.listener(name, mock())
    tried: list[int] = []
    async with swarm.router() as router:
        for number in range(100):
            response = await router.ask(question(number))
            assert response.status == "success"
            tried.append(sum(one["peer_id"] == "bad" for one in response.attempts))
            await trio.sleep(0.5)
    assert max(tried) == 1
    assert bad.asked <= 20


@pytest.mark.parametrize("error", OBJECTIONS[:3], ids=lambda error: error.code)
async def test_where_only_one_peer_is_its_words_are_what_the_caller_hears(
    error: RequestError, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its very words, its code and the field."""
    await swarm.listener("only", Saying(error))
    async with swarm.router() as router:
        with pytest.raises(type(error)) as caught:
            await router.ask(question(1))
        assert record_of(router, "only").failures == 0
    assert (str(caught.value), caught.value.param) == (str(error), error.param)


async def test_what_only_a_peer_cannot_do_is_heard_as_an_invalid_request(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Nobody else is there who could."""
    await swarm.listener("only", Saying(PeerUnable("a body of 9 MB is too large", param="tools")))
    async with swarm.router() as router:
        with pytest.raises(InvalidRequest, match="9 MB") as caught:
            await router.ask(question(1))
    assert caught.value.param == "tools"


@pytest.mark.parametrize("error", OBJECTIONS[:4], ids=lambda error: error.code)
async def test_a_request_that_is_wrong_costs_one_try_more(
    error: PunchError, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Five peers say the same; two are asked, and none is held to be ill."""
    backends = {name: Saying(error) for name in "abcde"}
    for name, backend in backends.items():
        await swarm.listener(name, backend)
    async with swarm.router() as router:
        for number in range(20):
            with pytest.raises(type(error)):
                await router.ask(question(number))
        assert sum(backend.asked for backend in backends.values()) == 40
        assert [peer.failures for peer in router.peers] == [0] * 5
        assert [peer.fault_share for peer in router.peers] == [0.0] * 5


async def test_what_the_dialer_can_see_costs_no_hop(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It checks by the listeners' own table."""
    backend = Saying(InvalidRequest("no"))
    await swarm.listener("a", backend)
    async with swarm.router() as router:
        with pytest.raises(InvalidRequest, match="temperature"):
            await router.ask(question(1, sampling=Sampling(temperature=-1.0)))
    assert backend.asked == 0


async def test_a_request_that_one_backend_does_not_know_leaves_that_one_in_use(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """One in five is refused there, for a reason of its own: the others it answers."""

    class Particular(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            if request.sampling.seed == 7:
                raise InvalidRequest("seed is not known here", param="seed")
            return await super().generate(request, emit)

    particular = honest(Particular(MockScript(decode_rate=80.0, prefill_rate=2000.0)))
    await swarm.listener("particular", particular)
    await swarm.listener("x", mock())
    answered: Counter[str | None] = Counter()
    async with swarm.router() as router:
        for number in range(60):
            seed = 7 if number % 5 == 0 else None
            asked = question(number, sampling=Sampling(max_tokens=10, seed=seed))
            answered[(await router.ask(asked)).executor] += 1
        assert record_of(router, "particular").failures == 0
    assert answered["particular"] >= 40


# ---- contexts ----


def words(count: int) -> str:
    """A prompt of so many words, the tokens of a mock."""
    return "word " * count


@pytest.mark.parametrize("fast", ["small", "large"])
async def test_of_two_contexts_the_one_that_fits_is_asked(
    fast: str, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A prompt of 632 tokens, and contexts of 512 and 2048, whichever is faster."""
    rates = {fast: 80.0}
    await swarm.listener("small", mock(context_tokens=512, decode_rate=rates.get("small", 20.0)))
    await swarm.listener("large", mock(context_tokens=2048, decode_rate=rates.get("large", 20.0)))
    async with swarm.router() as router:
        for number in range(10):
            response = await router.ask(chat_request(f"{number} {words(631)}", max_tokens=5))
            assert (response.executor, response.attempts) == ("large", ())


async def test_a_prompt_that_a_small_context_refuses_does_not_stick_to_it(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """A conversation of short words, of which the estimate is far too low, goes to the other."""
    await swarm.listener("small", mock(context_tokens=512, decode_rate=80.0))
    await swarm.listener("large", mock(context_tokens=2048, decode_rate=20.0))
    text = "a " * 700
    async with swarm.router() as router:
        refused = 0
        for number in range(30):
            response = await router.ask(chat_request(text, max_tokens=4, system=f"{number}"))
            assert response.executor == "large"
            refused += len(response.attempts)
        again = [await router.ask(chat_request(text, max_tokens=4, system="0")) for _ in range(5)]
        decision = again[-1].decision
    assert refused <= 30
    assert decision is not None
    cached = {one["peer_id"]: one.get("cached_tokens") for one in decision["candidates"]}
    assert cached.get("small") in (None, 0)


async def test_an_answer_that_a_small_context_would_cut_goes_to_the_larger_one(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Though the prompt fits both, and the small one is faster."""
    await swarm.listener("small", mock(context_tokens=512, decode_rate=80.0))
    await swarm.listener("large", mock(context_tokens=2048, decode_rate=20.0))
    async with swarm.router() as router:
        wide = await router.ask(chat_request(words(200), max_tokens=400))
        narrow = await router.ask(chat_request("other " * 200, max_tokens=20))
    assert (wide.executor, narrow.executor) == ("large", "small")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("        " * 6 + "value\n", 0, id="indented"),
        pytest.param("a ", 1, id="short"),
        pytest.param("donaudampfschifffahrtsgesellschaft ", 1, id="long"),
        pytest.param("字", 0, id="script"),
    ],
)
async def test_no_estimate_refuses_a_prompt(
    text: str, tokens: int, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """However many bytes its tokens have: only what the listener counts is too long."""
    del tokens
    await swarm.listener("only", mock(context_tokens=2048))
    prompt = text * 1260
    async with swarm.router() as router:
        response = await router.ask(chat_request(prompt, max_tokens=4))
    assert text_of(response) == " ".join(mock_words(chat_request(prompt, max_tokens=4)))


@settings(max_examples=20, deadline=None)
@given(
    contexts=st.lists(st.sampled_from([64, 256, 512, 1024, 2048]), min_size=1, max_size=4),
    size=st.integers(1, 2500),
    word=st.sampled_from(["a ", "word ", "indented            ", "extraordinarily-long-word "]),
)
def test_a_prompt_is_answered_where_any_context_holds_it(
    contexts: list[int], size: int, word: str
) -> None:
    """And refused, in numbers that were counted, only where none does."""

    async def run() -> None:
        with trio.fail_after(600):
            async with open_swarm() as swarm:
                for number, tokens in enumerate(contexts):
                    await swarm.listener(f"p{number}", mock(context_tokens=tokens))
                async with swarm.router() as router:
                    request = chat_request(word * size, max_tokens=2)
                    if size <= max(contexts):
                        assert (await router.ask(request)).status == "success"
                        return
                    with pytest.raises(ContextTooLong) as caught:
                        await router.ask(request)
        numbers = f"has {size} tokens and the context is {max(contexts)} tokens"
        assert numbers in str(caught.value)

    trio.run(run, clock=MockClock(autojump_threshold=0))


async def test_a_peer_whose_context_is_a_lie_does_not_end_the_request(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """It claims the largest and says that nothing fits; a smaller one is heard too."""
    liar = Saying(ContextTooLong("the prompt has 9 tokens and the context is 8"))
    liar.offers = tuple(attrs.evolve(offer, context_tokens=1 << 20) for offer in liar.offers)
    await swarm.listener("liar", liar)
    await swarm.listener("honest", mock(context_tokens=2048))
    async with swarm.router() as router:
        for number in range(40):
            assert (await router.ask(question(number))).executor == "honest"
            await trio.sleep(0.5)
    assert liar.asked <= 12


async def test_a_refusal_beside_a_peer_that_is_down_is_no_verdict(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The caller is told that nobody could answer, and what each said."""
    await swarm.listener("a", Saying(InvalidRequest("no such field")))
    await swarm.listener("b", Saying(GenerationFailed("out of memory")))
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask(question(1))
    assert caught.value.reasons == {"a": "no such field", "b": "out of memory"}


async def test_a_continuation_that_is_called_wrong_counts_against_who_says_so(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Another peer had taken the request; the answer is finished by a third."""
    bad = Saying(InvalidRequest("no"))
    await swarm.listener("first", mock(decode_rate=10.0))
    request = question(1, tokens=20)
    async with swarm.router(policy=SETTLED) as router, router.answer(request) as answer:
        for _ in range(3):
            await answer.receive()
        await swarm.listener("bad", bad)
        await swarm.listener("last", mock(decode_rate=10.0))
        await router.wait_for_peers(lambda peers: len(peers) == 3)
        swarm.kill("first")
        while await answer.receive() is not None:
            pass
        assert record_of(router, "bad").fault_share > 0
    assert answer.text == " ".join(mock_words(request))
    assert bad.asked == 1


async def test_an_answer_without_text_is_an_answer_to_what_was_called_wrong(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Another peer took the request, though it had nothing to say."""

    class Empty(MockBackend):
        async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
            return Generation(completion=Completion(), usage=Usage(), timings=Timings())

    bad = Saying(InvalidRequest("no"))
    await swarm.listener("bad", bad)
    empty = honest(Empty(MockScript(decode_rate=1.0, prefill_rate=10.0)))
    await swarm.listener("empty", empty)
    async with swarm.router(policy=SETTLED) as router:
        response = await router.ask(question(1))
        assert response.executor == "empty"
        assert record_of(router, "bad").fault_share > 0
