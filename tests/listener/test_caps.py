"""What a listener does for peers of other owners: capped, said in its offers, and refused."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from punch.admission import NO_CAPS, Caps
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dialer import chat_request, open_router
from punch.exceptions import ConfigurationError, InvalidRequest, PeerRefused
from punch.network import is_this_machine, plain_ip
from punch.routing import POLICIES, STANDARD_FILTERS, Policy
from punch.testing import Swarm
from punch.testing._swarm import NAMESPACE
from punch.wire import CommandRequest, Sampling

# A dialer that looks at no cap, as one of an older version.
BLIND = attrs.evolve(
    POLICIES["completion-time"],
    filters=tuple(step for step in STANDARD_FILTERS if step.name != "caps"),
)

SMALL = Caps(max_output=10, max_seconds=20.0, max_priority=3)


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**({"decode_rate": 10.0} | script)))


def question(tokens: int | None = 10, *, priority: int = 0) -> CommandRequest:
    asked = chat_request("tell me a long story", sampling=Sampling(max_tokens=tokens))
    return attrs.evolve(asked, priority=priority)


async def test_the_caps_are_in_the_offers(autojump_clock: MockClock, swarm: Swarm) -> None:
    """A dialer need not ask in order to know."""
    await swarm.listener("a", mock(), strangers=SMALL)
    async with swarm.router() as router:
        (peer,) = router.peers
        (offer,), (lane,) = peer.capability.models, peer.capability.lanes
        assert offer.max_output == 10
        assert (lane.max_seconds, lane.max_priority) == (20.0, 3)


@pytest.mark.parametrize("policy", ["completion-time", BLIND], ids=["seeing", "blind"])
async def test_what_exceeds_a_cap_goes_to_a_peer_without(
    autojump_clock: MockClock, swarm: Swarm, policy: Policy | str
) -> None:
    """By the offer, or by the refusal where the dialer does not know of caps."""
    await swarm.listener("capped", mock(decode_rate=1000.0), strangers=SMALL)
    await swarm.listener("free", mock())
    # So that the other one is asked first.
    swarm.network.move_away(PeerId("free"), 1.0)
    async with swarm.router(policy=policy) as router:
        await trio.sleep(10.0)
        for request in (question(11), question(priority=4)):
            response = await router.ask(request)
            assert response.executor == "free"
        assert (await router.ask(question(10, priority=3))).executor == "capped"


async def test_the_caller_hears_of_the_cap_where_nobody_takes_more(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The field, its value, the cap, and what to do."""
    await swarm.listener("a", mock(), strangers=SMALL)
    async with swarm.router() as router:
        with pytest.raises(
            InvalidRequest, match=r"max_tokens is 11; at most 10 .* ask for less"
        ) as e:
            await router.ask(question(11))
        assert e.value.param == "max_tokens"
        with pytest.raises(InvalidRequest, match="priority is 4; at most 3") as e:
            await router.ask(question(priority=4))
        assert e.value.param == "priority"
        assert (await router.ask(question(10, priority=3))).status == "success"


async def test_a_dialer_that_knows_no_caps_is_refused(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """At the listener's own door, in its words."""
    await swarm.listener("a", mock(), strangers=SMALL)
    async with swarm.router(policy=BLIND) as router:
        with pytest.raises(InvalidRequest, match="makes at most 10 for you"):
            await router.ask(question(11))


async def test_an_answer_without_a_length_ends_by_the_cap_and_says_so(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """As it ends by the context of a model."""
    await swarm.listener("a", mock(), strangers=SMALL)
    async with swarm.router() as router:
        response = await router.ask(question(None))
    assert response.result is not None
    assert response.result.finish_reason == "length"
    assert response.usage.completion_tokens == 10


async def test_an_answer_that_takes_longer_than_the_cap_is_refused_and_not_cut(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Its slot is free again, and the caller does not take the half of it for the whole."""
    listener = await swarm.listener("a", mock(delay=60.0), strangers=Caps(max_seconds=5.0))
    async with swarm.router() as router:
        began = trio.current_time()
        with pytest.raises(InvalidRequest, match="longer than the 5 s"):
            await router.ask(attrs.evolve(question(), timeout=300.0))
        assert trio.current_time() - began < 10.0
        assert listener.statistics().busy == 0


async def test_the_owner_is_not_capped(autojump_clock: MockClock, swarm: Swarm) -> None:
    """Neither in its own process nor in another one of its machine."""
    await swarm.listener("here", mock(), strangers=SMALL)
    node = swarm.network.node("neighbour")
    node.ip = "127.0.0.1"
    async with open_router(node=node, bootstrap=swarm.bootstrap, namespace=NAMESPACE) as router:
        await router.wait_for_peers(lambda found: len(found) >= 1)
        (peer,) = router.peers
        assert peer.capability.models[0].max_output is None
        assert (await router.ask(question(11, priority=100))).status == "success"


@given(
    st.builds(
        Caps,
        max_output=st.none() | st.integers(1, 1 << 40),
        max_priority=st.none() | st.integers(-100, 100),
    ),
    st.none() | st.integers(1, 1 << 40),
    st.integers(-100, 100),
)
def test_exactly_what_exceeds_a_cap_is_refused(
    caps: Caps, tokens: int | None, priority: int
) -> None:
    """And nothing is changed that was asked for."""
    request = question(tokens, priority=priority)
    over = (tokens or 0) > (caps.max_output or 1 << 40) or (
        caps.max_priority is not None and priority > caps.max_priority and priority != 0
    )
    if over:
        with pytest.raises(PeerRefused) as refused:
            caps.check(request)
        assert refused.value.param in ("max_tokens", "priority")
        return
    caps.check(request)
    within = caps.within(request)
    assert within.sampling.max_tokens == (tokens or caps.max_output)
    most = 100 if caps.max_priority is None else caps.max_priority
    assert within.priority == min(priority, most)


@pytest.mark.parametrize(
    "bad", [{"max_output": 0}, {"max_seconds": 0.0}, {"max_priority": 101}, {"max_seconds": 1e10}]
)
def test_a_cap_that_makes_no_sense_is_named(bad: dict[str, float]) -> None:
    """With the value and the rule."""
    with pytest.raises(ConfigurationError, match=f"{next(iter(bad))} is .*: it must be from"):
        Caps(**bad)  # type: ignore[arg-type]  # that is the point


def test_an_address_is_of_this_machine_in_every_spelling() -> None:
    """IPv4 may come in IPv6's dress, and with a zone."""
    assert all(map(is_this_machine, ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]))
    assert not is_this_machine("192.0.2.1")
    assert plain_ip("fe80::1%eth0") == "fe80::1"
    assert Caps() == NO_CAPS
