"""Who has a model whole, and that a split which is slower is not made unasked."""

from __future__ import annotations

from typing import Any

import pytest
from layouts import SMOL
from trio.testing import MockClock

from punch.backends import Emit, Generation
from punch.capability import Capability, Lane, Load, ModelOffer, PeerId
from punch.cli.splits._lenders import _Planner
from punch.cli.splits._solos import find_solos, solos_among
from punch.peers import PeerRecord
from punch.placement import Device, Lessons, Link, Mix, Plan, Refused, Solo, Wants
from punch.testing import ScriptedBackend, Swarm
from punch.wire import CommandRequest

MIX = Mix(prompt_tokens=512, answer_tokens=128)
WANTED = ModelOffer(name="llama", digest="a" * 64)
ME = PeerId("me")
BOTH: dict[str, Any] = {"prefill_rate": 100.0, "decode_rate": 20.0}
DEVICES = [
    Device(
        id=name,
        holder=name,
        memory=8 * 10**9,
        bandwidth=1e9,
        compute=1e10,
        link=Link(rtt=0.01, rate=1e8),
    )
    for name in ("a", "b")
]


def peer(
    name: str = "attic",
    *,
    lane: dict[str, Any] | None = None,
    rtt: float | None = 0.5,
    **offer: Any,
) -> PeerRecord:
    """A listener that has the model, as *offer* changes it."""
    fields: dict[str, Any] = {"name": "llama", "lane": "l"}
    of_lane: dict[str, Any] = {"id": "l", "backend": "b", "simulated": False}
    return PeerRecord(
        peer_id=PeerId(name),
        capability=Capability(
            machine_name=name,
            models=(ModelOffer(**(fields | BOTH | offer)),),
            lanes=(Lane(**(of_lane | (lane or {}))),),
        ),
        incarnation=1,
        sequence=1,
        seen_at=0.0,
        rtt=rtt,
    )


def found(*peers: PeerRecord) -> tuple[Solo, ...]:
    return solos_among(peers, WANTED, MIX, but=ME)


def test_a_peer_with_the_model_is_as_fast_as_it_says() -> None:
    """Its way and its loading are waited for; it is called as it is elsewhere."""
    (solo,) = found(peer(load_seconds=3.0, lane={"load": Load(slots=2)}))
    assert (solo.peer, solo.wait, solo.slots) == ("attic attic", 3.5, 2)
    assert solo.seconds(MIX) == pytest.approx(3.5 + 5.12 + 6.4)
    assert len(found(peer(name="x"), peer(name="y", digest=WANTED.digest, rtt=None))) == 2


@pytest.mark.parametrize(
    "other",
    [
        peer("me"),
        peer(split=True),
        peer(lane={"simulated": True}),
        peer(lane={"state": "resting"}),
        peer(lane={"closed_for": 60.0}),
        peer(lane={"load": Load(draining=True)}),
        peer(name="attic", digest="b" * 64),
        peer(context_tokens=639),
        peer(decode_rate=None),
        peer(prefill_rate=None),
    ],
)
def test_who_could_not_serve_is_none(other: PeerRecord) -> None:
    """Nor one whose speed nobody knows, since a split could not be held against it."""
    assert found(other) == ()


def test_a_split_that_a_peer_would_beat_is_not_made_and_one_that_runs_goes_on() -> None:
    """Both times are said, and how to have it all the same."""
    wants, fast = Wants(), Solo(peer="attic", decode_rate=500.0, prefill_rate=9000.0)
    refused = _Planner(SMOL, wants, Lessons(SMOL, wants), [fast])(DEVICES)
    assert isinstance(refused, Refused)
    assert refused.word == "solo_is_faster"
    assert "attic alone" in refused.reason
    assert refused.reason.endswith("with --force it is split all the same")

    slow = Solo(peer="attic", decode_rate=1.0, prefill_rate=1.0)
    planner = _Planner(SMOL, wants, Lessons(SMOL, wants), [slow])
    assert isinstance(planner(DEVICES), Plan)
    planner._solos = [fast]
    assert isinstance(planner(DEVICES), Plan)


async def never(request: CommandRequest, emit: Emit) -> Generation:
    raise AssertionError("nobody asks")


async def test_they_are_found_in_the_namespace(swarm: Swarm, autojump_clock: MockClock) -> None:
    """Whoever has joined by now; where nobody has it whole, nobody is waited for."""
    del autojump_clock
    me = await swarm.listener("me")
    assert await find_solos(me, WANTED, MIX) == ()
    offer = ModelOffer(name="llama", **BOTH)
    await swarm.listener("attic", ScriptedBackend(never, offers=(offer,), simulated=False))
    await swarm.listener("made-up", ScriptedBackend(never, offers=(offer,), simulated=True))
    (solo,) = await find_solos(me, WANTED, MIX)
    assert (solo.decode_rate, solo.prefill_rate) == (20.0, 100.0)
