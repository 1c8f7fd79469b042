"""Every end of an attempt is evidence: for whom, how much, and until when."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pytest
import trio
from answers import text_of
from trio.testing import MockClock

from punch.backends import Emit, Generation, Loading, MockBackend, MockScript, mock_words
from punch.dialer import Router, chat_request
from punch.exceptions import AnswerInterrupted, InvalidRequest, PunchError
from punch.peers import PeerRecord
from punch.routing import POLICIES
from punch.testing import Swarm
from punch.wire import CommandRequest, Completion, Sampling, Timings, Usage

FASTEST: dict[str, Any] = {"decode_rate": 1e4, "prefill_rate": 1e5}
SETTLED = attrs.evolve(POLICIES["completion-time"], near=0.0, explore=0.0)


def honest(**script: Any) -> MockBackend:
    """A backend that claims what it does."""
    rates = {"decode_rate": 40.0, "prefill_rate": 2000.0, "slots": 4}
    backend = MockBackend(MockScript(**(rates | script)))
    backend.offers = tuple(
        attrs.evolve(
            offer,
            decode_rate=backend.script.decode_rate,
            prefill_rate=backend.script.prefill_rate,
        )
        for offer in backend.offers
    )
    return backend


class Bad(MockBackend):
    """Claims to be the fastest, and does not do as it should until it is mended."""

    def __init__(self, *, known: bool = True) -> None:
        super().__init__(MockScript(decode_rate=40.0, prefill_rate=2000.0, slots=4))
        unknown: dict[str, Any] = {} if known else {"digest": None, "continues": False}
        self.offers = tuple(attrs.evolve(offer, **FASTEST, **unknown) for offer in self.offers)
        self.is_mended = False
        self.asked = 0

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        # What a dialer asks by itself is no traffic.
        self.asked += request.priority >= 0
        if self.is_mended:
            return await super().generate(request, emit)
        return await self.misbehave(request, emit)

    async def misbehave(self, request: CommandRequest, emit: Emit) -> Generation:
        raise NotImplementedError


class Mute(Bad):
    async def misbehave(self, request: CommandRequest, emit: Emit) -> Generation:
        await trio.sleep_forever()
        raise AssertionError


class Dripping(Bad):
    async def misbehave(self, request: CommandRequest, emit: Emit) -> Generation:
        words = mock_words(request)
        begun = len((request.continuation or "").split())
        for number, word in enumerate(words[begun:]):
            await trio.sleep(4.0)
            await emit(f" {word}" if begun or number else word, 1)
        return Generation(completion=Completion(), usage=Usage(), timings=Timings())


class Blaming(Bad):
    async def misbehave(self, request: CommandRequest, emit: Emit) -> Generation:
        raise InvalidRequest("it is your fault")


class Putting(Mute):
    """Is about to begin, for ever."""

    async def ready(self, loading: Loading) -> None:
        while not self.is_mended:
            loading(0.0)
            await trio.sleep(5.0)


def question(number: int, tokens: int = 10, **changes: Any) -> CommandRequest:
    request = chat_request(f"question {number}", sampling=Sampling(max_tokens=tokens))
    return attrs.evolve(request, **changes)


def record_of(router: Router, name: str) -> PeerRecord:
    """What the dialer knows of a listener."""
    (found,) = (peer for peer in router.peers if peer.peer_id == name)
    return found


KINDS = {"mute": Mute, "dripping": Dripping, "blaming": Blaming, "loading": Putting}


# Each takes seconds: every kind and every time-out is among the quick ones.
QUICK = {("mute", 6.0), ("dripping", 15.0), ("blaming", None), ("loading", 15.0)}


@pytest.mark.parametrize(
    ("kind", "timeout"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(KINDS, (6.0, 15.0, None))
    ],
)
async def test_a_bad_peer_costs_little_gets_little_and_is_found_well_again(
    kind: str, timeout: float | None, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Every request is answered in time, few of them late; and a minute after it is found well."""
    bad = KINDS[kind]()
    await swarm.listener("bad", bad)
    for name in "xy":
        await swarm.listener(name, honest())
    late = 0
    async with swarm.router() as router:

        async def ask(number: int) -> str | None:
            began = trio.current_time()
            response = await router.ask(question(number, timeout=timeout))
            nonlocal late
            late += trio.current_time() - began > 2.5
            assert text_of(response) == " ".join(mock_words(question(number)))
            return response.executor

        for number in range(120):
            await ask(number)
            await trio.sleep(0.5)
        assert late <= 12
        before = bad.asked
        for number in range(120, 320):
            await ask(number)
            await trio.sleep(0.5)
        assert bad.asked - before <= max(4, 10 - before + 4)
        bad.is_mended = True
        began = trio.current_time()
        number = 320
        while await ask(number) != "bad":
            number += 1
            await trio.sleep(0.25)
            assert trio.current_time() - began < 60.0


async def test_who_gives_up_early_says_nothing_of_the_peer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Before it could have been expected to answer."""
    await swarm.listener("slow", honest(decode_rate=2.0, delay=1.0, prefill_rate=10.0))
    async with swarm.router() as router:
        for number in range(10):
            with pytest.raises(PunchError):
                await router.ask(question(number, timeout=1.2))
        assert record_of(router, "slow").failures == 0
        assert record_of(router, "slow").fault_share == 0.0


async def test_who_gives_up_late_says_something(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Twice in a row is a fault, though nobody else could have done it."""
    await swarm.listener("bad", Mute())
    async with swarm.router() as router:
        for number in range(2):
            assert record_of(router, "bad").failures == 0
            with pytest.raises(PunchError):
                await router.ask(question(number, timeout=10.0))
        assert record_of(router, "bad").failures == 1


async def test_an_honest_slow_peer_is_left_in_peace(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Two tokens a second and a long prompt, as it said; a quick one beside it is busy."""
    await swarm.listener("slow", honest(decode_rate=2.0, prefill_rate=20.0, slots=1))
    async with swarm.router() as router:
        for number in range(4):
            request = chat_request("word " * 400, max_tokens=30, system=f"{number}")
            response = await router.ask(request)
            assert response.attempts == ()
        await swarm.listener("other", honest(decode_rate=2.5, prefill_rate=25.0, slots=1))
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        for number in range(6):
            request = chat_request("word " * 400, max_tokens=30, system=f"{number}")
            response = await router.ask(request)
            assert (response.attempts, len(response.segments)) == ((), 1)
        assert [peer.fault_share for peer in router.peers] == [0.0, 0.0]


class Thinking(MockBackend):
    """Makes tokens for twenty seconds before the first that has a text."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        for _ in range(200):
            await trio.sleep(0.1)
            await emit("", 1)
        return await super().generate(request, emit)


async def test_models_that_think_are_not_held_to_be_stuck(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Their listeners say that tokens are made."""
    for name in "ab":
        await swarm.listener(name, Thinking(MockScript(decode_rate=40.0)))
    async with swarm.router() as router:
        for number in range(6):
            assert (await router.ask(question(number))).attempts == ()
        assert [peer.failures for peer in router.peers] == [0, 0]


async def test_a_queue_is_no_silence(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Many requests at two slow listeners: all are answered, none is blamed."""
    for name in "ab":
        await swarm.listener(name, honest(decode_rate=2.0, slots=1))
    async with swarm.router() as router:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(router.ask, question(number, tokens=20, timeout=250.0))
        assert [peer.failures for peer in router.peers] == [0, 0]


async def test_an_answer_that_drips_moves_to_a_peer_that_can_continue_it(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Whole, once, and long before the caller's time is up."""
    await swarm.listener("bad", Dripping())
    async with swarm.router(policy=SETTLED) as router:
        async with router.answer(question(1, tokens=40)) as answer:
            await answer.receive()
            await swarm.listener("good", honest())
            await router.wait_for_peers(lambda peers: len(peers) == 2)
            began = trio.current_time()
            while await answer.receive() is not None:
                pass
            took = trio.current_time() - began
    assert answer.text == " ".join(mock_words(question(1, tokens=40)))
    assert [segment.peer_id for segment in answer.segments] == ["bad", "good"]
    assert took < 15.0


async def test_a_dripping_answer_that_nobody_can_continue_does_not_hang_to_the_deadline(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its caller is told how much there is, and may ask the other peer."""
    await swarm.listener("bad", Dripping(known=False))
    async with swarm.router(policy=SETTLED) as router:
        async with router.answer(question(1, tokens=200)) as answer:
            await answer.receive()
            await swarm.listener("good", honest())
            await router.wait_for_peers(lambda peers: len(peers) == 2)
            began = trio.current_time()
            with pytest.raises(AnswerInterrupted):
                while await answer.receive() is not None:
                    pass
            assert trio.current_time() - began < 60.0
        assert (await router.ask(question(2))).executor == "good"


async def test_the_only_peer_may_drip(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Giving it up would bring nothing."""
    await swarm.listener("only", Dripping())
    async with swarm.router() as router:
        response = await router.ask(question(1, tokens=10))
    assert (response.attempts, len(response.segments)) == ((), 1)


class Reading(MockBackend):
    """Reads the prompts of others before it continues an answer, as llama-server does."""

    def __init__(self) -> None:
        super().__init__(
            MockScript(decode_rate=40.0, prefill_rate=2000.0, slots=4, context_tokens=65_536)
        )
        self.offers = honest(context_tokens=65_536).offers
        self._reads_until = 0.0

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        if len(request.messages[0].content) > 1000:
            # Half a second of its time for each thousand tokens of the prompt.
            self._reads_until = trio.current_time() + len(request.messages[0].content) / 7000.0
            await trio.sleep_until(self._reads_until)
            return await super().generate(request, emit)

        async def late(text: str, tokens: int) -> None:
            await emit(text, tokens)
            # Between two prompts a token is made: it is never silent for long.
            await trio.sleep(min(3.0, max(0.0, self._reads_until - trio.current_time())))

        return await super().generate(request, late)


async def test_a_peer_that_reads_the_prompts_of_others_is_not_behind(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its answer stays where it is, and nothing wrong is learned of its speed."""
    await swarm.listener("reading", Reading())
    async with swarm.router(policy=SETTLED) as router:
        async with trio.open_nursery() as nursery:
            async with router.answer(question(1, tokens=40, timeout=60.0)) as answer:
                await answer.receive()
                long = attrs.evolve(chat_request("word " * 28_000), timeout=60.0)
                nursery.start_soon(router.ask, long)
                await trio.sleep(1.0)
                await swarm.listener("idle", honest())
                await router.wait_for_peers(lambda peers: len(peers) == 2)
                while await answer.receive() is not None:
                    pass
        assert record_of(router, "reading").fault_share == 0.0
    assert [segment.peer_id for segment in answer.segments] == ["reading"]
