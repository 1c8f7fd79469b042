"""Peers with several lanes, as a dialer meets them: each lane is chosen, fails and rests alone."""

from __future__ import annotations

import attrs
import pytest
from answers import provenance_of
from trio.testing import MockClock

from punch.backends import Backend, Emit, Generation, MockBackend, MockScript
from punch.dialer import chat_request
from punch.exceptions import GenerationFailed, NoPeerAvailable
from punch.testing import Swarm
from punch.wire import CommandRequest


class Real(MockBackend):
    """A mock that says it is none, with a model of a name of its own."""

    def __init__(self, name: str = "model", *, fails: bool = False) -> None:
        super().__init__(MockScript(decode_rate=100.0))
        self.simulated = False
        self.name = "engine"
        self.fails = fails
        self.asked = 0
        self.offers = tuple(attrs.evolve(offer, name=name) for offer in self.offers)

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        self.asked += 1
        if self.fails:
            raise GenerationFailed("no")
        return await super().generate(request, emit)


async def test_a_lane_that_fails_leaves_the_others_of_its_peer(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The next lane is asked, of the same peer if there is none elsewhere; the log says which."""
    bad, good = Real(fails=True), Real()
    await swarm.listener("a", [bad, good])
    async with swarm.router() as router:
        for _ in range(4):
            response = await router.ask(chat_request("hello", model="model"))
            assert response.executor == "a"
        (peer,) = router.peers

    assert good.asked == 4
    assert bad.asked >= 1
    (key,) = peer.breakers
    assert key is not None
    assert len(peer.capability.lanes) == len(peer.lanes) == 2
    assert {own.in_flight for own in peer.lanes.values()} == {0}


async def test_a_mock_beside_a_model_answers_only_for_itself(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Not when nothing is asked for by name, and not in the place of a real one that failed."""
    mock = MockBackend(MockScript())
    real = Real("mock", fails=True)
    await swarm.listener("a", [mock, real])
    await swarm.listener("b", MockBackend(MockScript()))
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask("hello")
        with pytest.raises(NoPeerAvailable):
            await router.ask(chat_request("hello", model="mock"))

    assert "a real one was asked, and none is made up" in str(caught.value)


async def test_a_mock_is_chosen_by_its_name_where_no_real_one_has_it(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """And the answer says what it is."""
    backends: list[Backend] = [MockBackend(MockScript()), Real()]
    await swarm.listener("a", backends)
    async with swarm.router() as router:
        named = await router.ask(chat_request("hello", model="mock"))
        free = await router.ask("hello")

    made_up = provenance_of(named)
    assert (made_up.kind, made_up.model) == ("simulated", "mock")
    assert provenance_of(free).model == "model"
