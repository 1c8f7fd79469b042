"""A simulated answer takes no real one's place, and who gets one is told."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import ModelOffer
from punch.cli import warn_of_simulation
from punch.dialer import chat_request
from punch.exceptions import GenerationFailed, NoPeerAvailable
from punch.testing import ScriptedBackend, Swarm
from punch.wire import CommandRequest, Completion, Provenance, Timings, Usage


def real(name: str = "llama", *, seconds: float = 0.1, slots: int = 1) -> ScriptedBackend:
    """A backend that says that it is real."""

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        if request.messages[-1].content == "fail":
            raise GenerationFailed("no")
        await trio.sleep(seconds)
        await emit("real", 1)
        return Generation(completion=Completion(text="real"), usage=Usage(), timings=Timings())

    offers = (ModelOffer(name=name, decode_rate=5.0, prefill_rate=50.0),)
    return ScriptedBackend(play, simulated=False, slots=slots, offers=offers)


def mock(name: str = "mock") -> MockBackend:
    """The default backend of a listener, which is far quicker."""
    return MockBackend(MockScript(model=name, decode_rate=1000.0))


@pytest.mark.parametrize("model", [None, "llama"])
async def test_all_answers_are_real_where_a_real_peer_is(
    model: str | None, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """With any model, and with one that both have; one at a time, and all at once."""
    await swarm.listener("real", real())
    await swarm.listener("mock", mock(model or "mock"))
    kinds: Counter[str] = Counter()
    async with swarm.router() as router:

        async def ask(number: int) -> None:
            request = chat_request(f"{number}", model=model)
            answer = await router.ask(request)
            assert answer.provenance is not None
            kinds[answer.provenance.kind] += 1

        for number in range(8):
            await ask(number)
        async with trio.open_nursery() as nursery:
            for number in range(8, 16):
                nursery.start_soon(ask, number)
        assert kinds == {"real": 16}
        named = await router.ask(chat_request("x", model="mock" if model is None else None))
        assert named.provenance is not None
        assert named.provenance.kind == ("simulated" if model is None else "real")


async def test_nothing_is_made_up_in_place_of_a_real_peer_that_fails(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Neither for the request that failed nor for the next ones, while it is left alone."""
    await swarm.listener("real", real())
    await swarm.listener("mock", mock())
    async with swarm.router() as router:
        for _ in range(5):
            with pytest.raises(NoPeerAvailable):
                await router.ask("fail")
        assert (await router.ask("well?")).text == "real"


async def test_a_dialer_says_once_that_answers_are_simulated(
    autojump_clock: MockClock, swarm: Swarm, caplog: pytest.LogCaptureFixture
) -> None:
    """In its log; each answer says it as well."""
    await swarm.listener("mock", mock())
    with caplog.at_level(logging.WARNING, logger="punch"):
        async with swarm.router() as router:
            for number in range(3):
                response = await router.ask(chat_request(f"{number}"))
                assert response.provenance is not None
                assert response.provenance.kind == "simulated"
    told = [one for one in caplog.records if "an answer is simulated" in str(one.msg)]
    assert len(told) == 1


def test_a_person_is_told_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """And is left in peace where the answer is real."""
    warn_of_simulation(Provenance(kind="simulated", backend="mock"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("warning: this answer is simulated (backend mock)")
    warn_of_simulation(Provenance(kind="real", backend="llama_cpp"))
    warn_of_simulation(None)
    assert capsys.readouterr().err == ""
