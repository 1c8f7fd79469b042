"""What a caller wishes of the choice is done as far as it can be, and told to no peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from trio.testing import MockClock

from punch import (
    Hints,
    InvalidRequest,
    NoPeerAvailable,
    Router,
    chat_request,
    open_router,
)
from punch.backends import Emit, Generation, MockBackend, MockScript
from punch.capability import Capability, Lane, ModelOffer, PeerId
from punch.peers import PeerRecord
from punch.routing import POLICIES, RouteRequest
from punch.routing.names import NO_WISHES, Wishes, wishes_of
from punch.testing import ScriptedBackend, Swarm, open_swarm
from punch.wire import MAX_HINTS, NO_HINTS, CommandRequest, Request, decode, encode


def mock(**script: Any) -> MockBackend:
    return MockBackend(MockScript(**script))


async def answered_by(router: Router, asked: int = 8, **hints: Any) -> set[str]:
    """The peers that answer so many requests."""
    found: Counter[str] = Counter()
    for _ in range(asked):
        response = await router.ask("hi", max_tokens=1, hints=Hints(**hints))
        found[str(response.executor)] += 1
    return set(found)


async def three(swarm: Swarm) -> list[str]:
    """The identities of three listeners, of which the first is much the slowest."""
    ids = []
    for name, rate in (("a", 1.0), ("b", 1000.0), ("c", 1000.0)):
        listener = await swarm.listener(name, mock(decode_rate=rate))
        ids.append(str(listener.peer_id))
    return ids


async def test_a_preferred_peer_is_asked_also_if_it_is_slower(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """And another where that is not there."""
    slow, _, _ = await three(swarm)
    async with swarm.router() as router:
        assert await answered_by(router, prefer=(slow,)) == {slow}
        assert len(await answered_by(router, asked=20, prefer=("nobody",))) > 1


async def test_an_avoided_peer_is_asked_only_where_no_other_is(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """As the last one."""
    slow, quick, other = await three(swarm)
    async with swarm.router() as router:
        assert await answered_by(router, avoid=(quick,)) <= {slow, other}
        assert await answered_by(router, avoid=(quick, other)) == {slow}
        assert await answered_by(router, avoid=(slow, quick, other)) <= {slow, quick, other}


async def test_no_other_peer_is_asked_than_those_that_it_is_limited_to(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """With a reason for each of the others."""
    slow, quick, _ = await three(swarm)
    async with swarm.router() as router:
        assert await answered_by(router, only=(slow,)) == {slow}
        assert await answered_by(router, only=(slow, quick)) <= {slow, quick}
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask("hi", hints=Hints(only=("nobody",)))
        decision = (await router.ask("hi", max_tokens=1, hints=Hints(only=(slow,)))).decision
    assert set(caught.value.reasons.values()) == {
        "is none of the peers that the request is limited to"
    }
    assert decision is not None
    removed = [each for each in decision["candidates"] if "removed_by" in each]
    assert [each["removed_by"] for each in removed] == ["only", "only"]


async def test_a_simulated_peer_that_is_meant_is_asked(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """Where a real one is, it is by name only."""
    real = ScriptedBackend(simulated=False, offers=(ModelOffer(name="mock"),))
    await swarm.listener("real", real)
    made_up = str((await swarm.listener("made up", mock())).peer_id)
    async with swarm.router() as router:
        assert await answered_by(router, only=(made_up,)) == {made_up}
        assert made_up not in await answered_by(router, prefer=(made_up,))


async def test_own_is_this_machine_in_an_open_namespace(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """A listener of the same process is; those of a network of others are not."""
    other = await swarm.listener("other", mock())
    async with swarm.router() as router:
        with pytest.raises(NoPeerAvailable) as caught:
            await router.ask("hi", hints=Hints(privacy="own"))
    assert caught.value.reasons == {
        other.peer_id: "is of another owner; the request is for peers of its own only"
    }


async def test_a_split_model_reads_nothing_that_is_to_be_read_by_one_machine(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """By what its offer says."""
    split = ScriptedBackend(offers=(ModelOffer(name="big", split=True),))
    whole = ScriptedBackend(offers=(ModelOffer(name="big"),))
    apart = str((await swarm.listener("split", split)).peer_id)
    async with swarm.router() as router:
        assert await answered_by(router) == {apart}
        with pytest.raises(NoPeerAvailable, match="over several machines"):
            await router.ask("hi", hints=Hints(privacy="whole"))
        one = str((await swarm.listener("whole", whole)).peer_id)
        await router.wait_for_peers(lambda found: len(found) == 2)
        assert await answered_by(router, privacy="whole") == {one}


async def test_no_peer_hears_of_a_hint(swarm: Swarm, autojump_clock: MockClock) -> None:
    """Nor do they make two requests different ones."""
    heard: list[CommandRequest] = []

    async def play(request: CommandRequest, emit: Emit) -> Generation:
        heard.append(request)
        return await ScriptedBackend().generate(request, emit)

    listener = await swarm.listener("a", ScriptedBackend(play))
    hints = Hints(prefer=("x",), avoid=("y",), only=(str(listener.peer_id),))
    async with swarm.router() as router:
        request = chat_request("hi", request_id="r", hints=hints)
        first = await router.ask(request)
        again = await router.ask(attrs.evolve(request, hints=NO_HINTS))
    assert [each.hints for each in heard] == [NO_HINTS]
    assert first.request_id == again.request_id
    assert request.fingerprint == attrs.evolve(request, hints=NO_HINTS).fingerprint
    frame = encode(Request(request=request))
    assert decode(frame[4:]) == Request(request=attrs.evolve(request, hints=NO_HINTS))


@pytest.mark.parametrize(
    ("hints", "param"),
    [
        (Hints(prefer=("",)), "prefer[0]"),
        (Hints(avoid=("a", "b\n")), "avoid[1]"),
        (Hints(only=("x" * 129,)), "only[0]"),
        (Hints(only=("x",) * (MAX_HINTS + 1)), "only"),
        (Hints(privacy="secret"), "privacy"),  # type: ignore[arg-type]  # that is what is tested
    ],
)
async def test_hints_have_limits(
    hints: Hints, param: str, swarm: Swarm, autojump_clock: MockClock
) -> None:
    """And are refused by name."""
    async with swarm.router() as router:
        with pytest.raises(InvalidRequest) as caught:
            await router.ask("hi", hints=hints)
    assert caught.value.param == param


# ---- which peer is meant ----


def record(peer_id: str, machine: str | None = None) -> PeerRecord:
    """A peer of this name."""
    lane = Lane(backend="b", simulated=False)
    return PeerRecord(
        peer_id=PeerId(peer_id),
        capability=Capability(lanes=(lane,), models=(ModelOffer(name="m"),), machine_name=machine),
        incarnation=1,
        sequence=1,
        seen_at=0.0,
    )


PEERS = (record("12Dabc", "desk"), record("12Dxbc", "Desk"), record("12Dxyz"))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (["12Dabc"], {"12Dabc"}),
        (["abc", "xyz"], {"12Dabc", "12Dxyz"}),
        (["DESK"], {"12Dabc", "12Dxbc"}),
        (["nobody"], set()),
    ],
)
def test_a_peer_is_named_by_identity_by_an_end_of_it_or_by_its_machine(
    said: Sequence[str], meant: set[str]
) -> None:
    """A machine may have several peers."""
    found = wishes_of(Hints(only=tuple(said), prefer=tuple(said)), PEERS)
    assert found == Wishes(only=frozenset(meant), prefer=frozenset(meant))
    assert wishes_of(NO_HINTS, PEERS) is NO_WISHES


def test_an_end_of_several_identities_is_refused_with_them() -> None:
    """No peer gets what was meant for another."""
    with pytest.raises(InvalidRequest, match="the end of 2 peers: 12Dabc, 12Dxbc") as caught:
        wishes_of(Hints(only=("xyz", "bc")), PEERS)
    assert caught.value.param == "only[1]"


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_every_policy_does_what_is_wished(policy: Any) -> None:
    """By filters, which all of them start with."""
    from random import Random

    wishes = Wishes(only=frozenset({"12Dabc", "12Dxyz"}), avoid=frozenset({"12Dabc"}))
    decision = policy.decide(RouteRequest(wishes=wishes), PEERS, now=0.0, rng=Random(0))
    assert [one.peer_id for one in decision.order] == ["12Dxyz"]
    assert {by.name for _, by in decision.removed} == {"only", "avoid"}


async def test_the_listener_of_the_same_process_is_own(autojump_clock: MockClock) -> None:
    """It is on this machine for certain."""
    async with open_swarm() as swarm:
        own = await swarm.listener("own", mock())
        await swarm.listener("other", mock())
        async with open_router(listener=own) as router:
            await router.wait_for_peers(lambda found: len(found) == 2)
            assert await answered_by(router, privacy="own") == {str(own.peer_id)}
