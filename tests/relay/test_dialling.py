"""How a node dials a peer that relays lead to, and the relays themselves."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from punch.capability import PeerId
from punch.exceptions import PeerUnreachable
from punch.libp2p._connections import Connections
from punch.network import Address

HUB = PeerId("12D3KooWGYqKxZBhTRg1mKCkJhm8U3Rc6jUDdVyc7MJgAywKosw2")
HIDDEN = PeerId("12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3")
HERE = "/ip4/203.0.113.3/tcp/51820"
EVIL = "/ip4/198.51.100.66/tcp/9"
CIRCUIT = f"{HERE}/p2p/{HUB}/p2p-circuit"


class Opened:
    """A connection that is open."""

    is_closed = False

    @property
    def muxed_conn(self) -> Opened:
        return self


class Dials:
    """Dials that answer, hang or fail by their address, and a swarm without connections."""

    def __init__(self, nursery: trio.Nursery, **whys: str) -> None:
        self.whys = whys
        self.hang: set[str] = set()
        self.dialled: list[str] = []
        given: Any = self
        self.connections = Connections(
            given, dialer=given, transports=frozenset({"tcp"}), nursery=nursery
        )

    def get_connections(self, peer_id: Any = None) -> list[Opened]:
        return []

    async def dial(self, address: Address, peer_id: PeerId) -> Opened:
        self.dialled.append(str(address))
        if str(address) in self.hang:
            await trio.sleep(5)
            raise PeerUnreachable("no answer", why="no_answer")
        why = self.whys.get("relay" if address.relay else "direct")
        if why is not None:
            raise PeerUnreachable("it failed", why=why)
        return Opened()


async def test_an_address_that_others_give_of_a_relay_holds_up_nobody_who_dials_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Neither for itself, nor by what another listener says of where the relay is."""
    dials = Dials(nursery)
    dials.hang.add(EVIL)

    async def hostile() -> None:
        with pytest.raises(PeerUnreachable):
            await dials.connections.connect(HUB, (EVIL,), as_relay=True)

    nursery.start_soon(hostile)
    await trio.sleep(0.1)
    with trio.fail_after(1):
        await dials.connections.connect(HUB, (HERE,))
        await dials.connections.connect(HUB, (HERE,), as_relay=True)
    await trio.sleep(10)
    assert not dials.connections._dials


async def test_a_peer_is_not_dialled_through_itself(nursery: trio.Nursery) -> None:
    """Such a dial would wait for itself until its time is over."""
    dials = Dials(nursery)
    with pytest.raises(PeerUnreachable, match="through itself"):
        await dials.connections.connect(HUB, (CIRCUIT,))
    assert dials.dialled == []


@pytest.mark.parametrize(
    ("addresses", "word"),
    [((EVIL, CIRCUIT), "no_answer"), ((CIRCUIT, EVIL), "no_answer"), ((CIRCUIT,), "no_relay")],
)
async def test_the_word_for_why_a_peer_is_not_reached_is_that_of_its_own_address(
    addresses: tuple[str, ...], word: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Though the relay fails long before a firewall is found out."""
    dials = Dials(nursery, relay="no_relay")
    dials.hang.add(EVIL)
    with pytest.raises(PeerUnreachable) as caught:
        await dials.connections.connect(HIDDEN, addresses)
    assert caught.value.why == word
