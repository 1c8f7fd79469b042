"""A machine's name in what the command line show, and in nothing that decides."""

from __future__ import annotations

import attrs
import decision_logs as made
import pytest
from trio.testing import MockClock

from punch.capability import Capability
from punch.cli.commands._peers import as_data, table
from punch.exceptions import ConfigurationError
from punch.listener import open_listener
from punch.peers import PeerRecord, short_id
from punch.wire import Advert, decode, encode


def named(peer: PeerRecord, name: str | None) -> PeerRecord:
    """*peer* with a name."""
    return attrs.evolve(peer, capability=attrs.evolve(peer.capability, machine_name=name))


def test_peers_are_listed_by_name_and_told_apart() -> None:
    """The identity is in what programs read."""
    first, second, *_ = made.PEERS
    shown = table([named(first, "kitchen"), named(second, None)], 0.0)
    assert "kitchen" in shown
    assert short_id(first.peer_id) not in shown
    same = table([named(first, "kitchen"), named(second, "Kitchen")], 0.0)
    assert f"kitchen {short_id(first.peer_id)}" in same
    data = as_data(named(first, "kitchen"), 0.0)
    assert (data["peer_id"], data["name"]) == (first.peer_id, "kitchen")


def test_peers_of_minor_0_are_told_no_name() -> None:
    """Others are."""
    claim = Capability.of_one_lane(backend="mock", simulated=True, machine_name="kitchen", lane="a")
    advert = Advert(capability=claim, incarnation=1, sequence=1, age=0.0)
    assert b"kitchen" not in encode(advert, minor=0)
    told = decode(encode(advert, minor=1)[4:])
    assert isinstance(told, Advert)
    assert told.capability.machine_name == "kitchen"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65, "..abcdefgh"])
async def test_a_library_refuses_what_cannot_be_a_name(
    name: str, autojump_clock: MockClock
) -> None:
    """With the value and the rule."""
    with pytest.raises(ConfigurationError, match="name is"):
        async with open_listener([], bootstrap=None, name=name):
            pass
