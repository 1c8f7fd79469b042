"""What a bootstrap dials back, how often, and what it says of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from punch.bootstrap._dial_back import (
    HOST_SECONDS,
    MAX_AGAIN_SECONDS,
    MAX_HOST_DIALS,
    MIN_AGAIN_SECONDS,
    DialBack,
    places_to_dial,
)
from punch.capability import PeerId
from punch.exceptions import PeerUnreachable
from punch.network import Address, Handler, Stream
from punch.testing import ScriptedBackend, Swarm
from punch.wire import Reach, Registration

HOST = "192.0.2.7"


def registration(peer: str, *addresses: str, role: str = "listener") -> Registration:
    """What a peer says of itself."""
    return Registration(
        peer_id=PeerId(peer),
        namespace="home",
        roles=frozenset({role}),
        addresses=addresses or (f"/ip4/{HOST}/tcp/21820",),
        incarnation=1,
        sequence=0,
        lifetime=30.0,
    )


class DialingNode:
    """A node that notes what it is asked to dial."""

    peer_id = PeerId("bootstrap")
    addresses = ()
    on_link = ()
    moved = trio.Event()

    def __init__(self) -> None:
        self.dialled: list[tuple[float, str]] = []
        self.answers: dict[str, PeerId | str] = {}
        """Address to the peer that answers there, or why nobody does."""

    def handle(self, protocol: str, handler: Handler) -> None: ...

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> Stream:
        raise AssertionError("a bootstrap opens no stream")

    async def identify(self, address: str) -> PeerId:
        self.dialled.append((trio.current_time(), address))
        found = self.answers.get(address, "no_answer")
        await trio.sleep(0.1 if address in self.answers else 5.0)
        if found in {"no_answer", "refused", "not_dialled"}:
            raise PeerUnreachable("no", why=None if found == "not_dialled" else found)
        return PeerId(found)

    def sign(self, data: bytes) -> bytes:
        return b""

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        return False


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["/ip4/192.0.2.7/tcp/7/p2p/" + "1" * 46], ["/tcp/7"]),
        (["/ip4/10.0.0.5/tcp/7"], ["/tcp/7"]),
        (["/ip4/198.51.100.1/tcp/22", "/dns4/victim.example/tcp/80"], ["/tcp/22", "/tcp/80"]),
        (["/ip4/10.0.0.5/tcp/7", "/ip4/192.0.2.7/tcp/7"], ["/tcp/7"]),
        (["/ip4/10.0.0.5/tcp/7", "/ip4/10.0.0.5/udp/7/quic-v1"], ["/tcp/7", "/udp/7/quic-v1"]),
        ([f"/ip4/192.0.2.7/tcp/{port}" for port in range(1, 9)], ["/tcp/1", "/tcp/2"]),
        (["/ip4/192.0.2.7/tcp/0", "nonsense", ""], []),
    ],
)
def test_only_where_a_listener_comes_from_is_it_dialled(
    addresses: Sequence[str], expected: Sequence[str]
) -> None:
    """At its announced ports, of which two are tried; never at an address that it names."""
    places = places_to_dial(registration("a", *addresses), HOST)
    assert [str(place) for place in places] == [f"/ip4/{HOST}{each}" for each in expected]


@pytest.mark.parametrize("host", ["fe80::9", "169.254.7.7"])
def test_a_listener_that_comes_over_a_link_is_not_dialled_back(host: str) -> None:
    """Which link that was is not told, and the same address may be another machine's on another."""
    announced = ("/ip6zone/eth7/ip6/fe80::9/tcp/7", "/ip4/192.0.2.7/tcp/7")
    assert places_to_dial(registration("a", *announced), host) == ()
    (place,) = places_to_dial(registration("a", *announced), HOST)
    assert str(place) == f"/ip4/{HOST}/tcp/7"


async def test_a_verdict_is_told_when_it_changes(autojump_clock: MockClock) -> None:
    """Not reached, then reached again; a peer that renews is dialled no more often for it."""
    node, told = DialingNode(), list[Reach]()
    dial_back = DialBack(node, lambda namespace, reach: told.append(reach))
    place = f"/ip4/{HOST}/tcp/21820"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial_back.run)
        for second in range(1200):
            if second == 600:
                node.answers[place] = PeerId("a")
            dial_back.consider(registration("a"), HOST)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert [(reach.ok, reach.address, reach.why) for reach in told] == [
        (False, place, "no_answer"),
        (True, place, ""),
    ]
    times = [at for at, _ in node.dialled]
    gaps = [later - before for before, later in itertools.pairwise(times)]
    assert min(gaps) >= MIN_AGAIN_SECONDS
    assert max(gaps) <= MAX_AGAIN_SECONDS + 10


async def test_what_is_dialled_is_bounded_whoever_asks(autojump_clock: MockClock) -> None:
    """Two hundred identities of one host, whose ports change each second, for a minute."""
    node = DialingNode()
    dial_back = DialBack(node, lambda namespace, reach: None)
    seconds = 60
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial_back.run)
        for second in range(seconds):
            for number in range(200):
                port = 1 + (200 * second + number) % 65000
                place = f"/ip4/{HOST}/tcp/{port}"
                dial_back.consider(registration(f"peer-{number}", place), HOST)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    allowed = MAX_HOST_DIALS * (seconds / HOST_SECONDS + 1)
    assert len(node.dialled) <= allowed


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("a", []),
        ("somebody else", [(False, "other_peer")]),
        ("refused", [(False, "refused")]),
        ("not_dialled", []),
    ],
)
async def test_a_verdict_says_what_answered(
    autojump_clock: MockClock, answer: str, expected: list[tuple[bool, str]]
) -> None:
    """One that is well from the start is told as well; what is not dialled here says nothing."""
    node, told = DialingNode(), list[Reach]()
    node.answers[f"/ip4/{HOST}/tcp/21820"] = answer
    dial_back = DialBack(node, lambda namespace, reach: told.append(reach))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial_back.run)
        dial_back.consider(registration("a"), HOST)
        dial_back.consider(registration("b", role="dialer"), HOST)
        dial_back.consider(registration("c"), None)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert len(node.dialled) == 1
    assert [(reach.ok, reach.why) for reach in told if not reach.ok] == expected


async def test_a_listener_on_the_bootstraps_machine_proves_nothing(
    autojump_clock: MockClock,
) -> None:
    """It is reached past its firewall; that it is not even so is told."""
    node, told = DialingNode(), list[Reach]()
    node.answers["/ip4/127.0.0.1/tcp/1"] = "a"
    dial_back = DialBack(node, lambda namespace, reach: told.append(reach))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial_back.run)
        dial_back.consider(registration("a", "/ip4/127.0.0.1/tcp/1"), "127.0.0.1")
        dial_back.consider(registration("b", "/ip4/127.0.0.1/tcp/2"), "127.0.0.1")
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert [(reach.peer_id, reach.ok) for reach in told] == [("b", False)]


async def test_all_sides_are_told_of_a_firewalled_listener(
    swarm: Swarm, autojump_clock: MockClock
) -> None:
    """The listener and the dialers; and when its firewall is open, they are told that."""
    swarm.network.firewalled.add(PeerId("shut"))
    listener = await swarm.listener("shut", ScriptedBackend())
    async with swarm.router(peers=0) as router:
        await trio.sleep(60)
        assert [peer.peer_id for peer in router.peers] == []
        assert "no answer" in router.unreachable[listener.peer_id]
        assert "the bootstrap could not reach it" in router.unreachable[listener.peer_id]
        said = listener.directory.own_reach
        assert said is not None
        assert (said.ok, said.why) == (False, "no_answer")

        swarm.network.firewalled.clear()
        await trio.sleep(60 + MAX_AGAIN_SECONDS)
        (peer,) = router.peers
        assert (peer.peer_id, peer.reachable) == (listener.peer_id, True)
        assert router.unreachable == {}


async def test_a_listener_is_told_of_a_member_that_cannot_dial_it(
    swarm: Swarm,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The bootstrap is on its machine, past the firewall; who is elsewhere says so."""

    async def reaches(_: DialBack, peer_id: PeerId, place: Address) -> Reach:
        return Reach(peer_id=peer_id, ok=True, address=str(place))

    # What the bootstrap is told by its own machine: the listener answers there, past the firewall.
    monkeypatch.setattr("punch.bootstrap._dial_back.is_this_machine", lambda host: True)
    listener = await swarm.listener("shut", ScriptedBackend())
    await trio.sleep(5)
    swarm.network.firewalled.add(listener.peer_id)
    monkeypatch.setattr(DialBack, "_try", reaches)
    async with swarm.router(peers=0) as router:
        await trio.sleep(300)
        assert listener.peer_id in router.unreachable
    said = listener.directory.own_reach
    assert said is not None
    assert (said.ok, said.why, said.by) == (False, "no_answer", "member")
    told = [r for r in caplog.records if "cannot be reached from everywhere" in r.getMessage()]
    assert len(told) == 1
