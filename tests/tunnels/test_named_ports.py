"""Ports by their names: who is let through, by which rule others are not, and a removal."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing
from made_up_members import NOW, MadeUpNamespace
from trio.testing import MockClock

from punch.exceptions import PeerUnreachable, RemoteProtocolError
from punch.testing import MemoryNetwork, MemoryNode
from punch.tunnels import (
    NamedPort,
    TunnelOpening,
    TunnelOutcome,
    door_of,
    open_tunnel_stream,
    places_at,
)
from punch.tunnels.named._serving import _judge_of
from punch.tunnels.streams._messages import MAX_FRAME_BYTES, decode, encode

WEB = NamedPort(name="web", port=8080)
ASKS = TunnelOpening(port="web", namespace="home")


async def asked(node: MemoryNode, of: MemoryNode, opening: TunnelOpening) -> TunnelOutcome:
    """What *of* says to *opening*."""
    stream, outcome = await open_tunnel_stream(node, of.peer_id, of.addresses, opening)
    await stream.aclose()
    return outcome


async def test_a_member_is_let_through_and_nobody_else(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Each other one hears the rule that it breaks, and nothing of the port."""
    network = MemoryNetwork(nursery)
    home, other = MadeUpNamespace("home"), MadeUpNamespace("home", root="other")
    desk = home.admin("desk")
    member = home.machine("laptop", by=desk)
    alien = other.machine("alien", by=other.admin("their-desk"))
    here = network.node("desk")
    nodes = {name: network.node(name) for name in ("laptop", "alien", "nobody")}
    membership = desk.membership()
    judge = _judge_of(WEB, "home", membership, lambda: NOW)
    said = {}
    async with door_of(here).name("web", 8080, judge=judge):
        for name, opening in {
            "laptop": attrs.evolve(ASKS, chain=member.encoded),
            "alien": attrs.evolve(ASKS, chain=alien.encoded),
            "nobody": attrs.evolve(ASKS, chain=member.encoded),
        }.items():
            said[name] = (await asked(nodes[name], here, opening)).refused
        said["no chain"] = (await asked(nodes["laptop"], here, ASKS)).refused
        elsewhere = attrs.evolve(ASKS, chain=member.encoded, namespace="work")
        said["another namespace"] = (await asked(nodes["laptop"], here, elsewhere)).refused
        ssh = attrs.evolve(ASKS, chain=member.encoded, port="ssh")
        said["another port, a stranger"] = (
            await asked(nodes["alien"], here, attrs.evolve(ASKS, chain=alien.encoded, port="ssh"))
        ).refused
        said["another port"] = (await asked(nodes["laptop"], here, ssh)).refused
    assert said == {
        "laptop": "",
        "alien": "no_grant",
        "nobody": "wrong_key",
        "no chain": "no_grant",
        "another namespace": "wrong_namespace",
        # No more than of the one that is there.
        "another port, a stranger": "no_grant",
        "another port": "unknown",
    }


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_port_for_one_peer_is_for_no_other(is_closed: bool) -> None:
    """In a closed namespace too; and in an open one a port without a peer is for nobody."""
    home = MadeUpNamespace("home")
    desk = home.admin("desk")
    one, two = home.machine("one", by=desk), home.machine("two", by=desk)
    membership = desk.membership() if is_closed else None
    port = attrs.evolve(WEB, peers=frozenset({one.peer_id}))
    found = {}
    for name, which in (("one", port), ("two", port), ("two, for all", WEB)):
        who = one if name == "one" else two
        judge = _judge_of(which, "home", membership, lambda: NOW)
        refused = judge(who.peer_id, attrs.evolve(ASKS, chain=who.encoded))
        found[name] = None if refused is None else refused.refused
    for_all = None if is_closed else "not_allowed"
    assert found == {"one": None, "two": "not_allowed", "two, for all": for_all}
    wrong = attrs.evolve(ASKS, namespace="work", chain=one.encoded)
    judge = _judge_of(port, "home", membership, lambda: NOW)
    assert judge(one.peer_id, wrong) is not None


async def test_a_removal_ends_the_tunnels_of_the_one_that_is_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """At once, and those of the others stay."""
    network = MemoryNetwork(nursery)
    home = MadeUpNamespace("home")
    desk = home.admin("desk")
    here = network.node("desk")
    membership = desk.membership()
    door = door_of(here)
    streams = {}
    with membership.watch(lambda: door.judge_again(lambda said: said.refused == "revoked")):
        async with door.name("web", 8080, judge=_judge_of(WEB, "home", membership, lambda: NOW)):
            for name in ("out", "in"):
                member = home.machine(name, by=desk)
                opening = attrs.evolve(ASKS, chain=member.encoded)
                stream, outcome = await open_tunnel_stream(
                    network.node(name), here.peer_id, here.addresses, opening
                )
                assert outcome == TunnelOutcome()
                streams[name] = stream
                if name == "out":
                    removal = home.remove(member, by=desk)
            membership.add_revocations([removal])
            with trio.fail_after(5):
                assert await streams["out"].receive_some() == b""
            with trio.move_on_after(1) as waiting:
                await streams["in"].receive_some()
            assert waiting.cancelled_caught


async def test_a_peer_has_so_many_streams_and_a_host_so_many_openings(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Those that say nothing are let go after seconds; further ones are refused at once."""
    network = MemoryNetwork(nursery)
    here, there = network.node("near"), network.node("far")
    opening = TunnelOpening(lease="one")
    async with door_of(there).lend("one", borrower=here.peer_id, port=9):
        kept = [
            await open_tunnel_stream(here, there.peer_id, there.addresses, opening)
            for _ in range(33)
        ]
        assert [outcome.refused for _, outcome in kept] == [""] * 32 + ["busy"]
        for stream, _ in kept:
            await stream.aclose()
        silent = [
            await here.open_stream(there.peer_id, there.addresses, "/punch/tunnel/1")
            for _ in range(17)
        ]
        with pytest.raises(PeerUnreachable):
            await open_tunnel_stream(here, there.peer_id, there.addresses, opening)
        began = trio.current_time()
        assert {await stream.receive_some() for stream in silent} == {b""}
        assert trio.current_time() - began <= 3.0
        _, outcome = await open_tunnel_stream(here, there.peer_id, there.addresses, opening)
        assert outcome.refused == ""


async def test_a_peer_has_a_few_of_the_ports_for_tls_and_leaves_some_to_others(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """There are sixteen, and leases need them too."""
    network = MemoryNetwork(nursery)
    here, there, other = (network.node(name) for name in ("near", "far", "other"))
    closed = []

    async def direct(opening: TunnelOpening, port: int) -> tuple[TunnelOutcome, Callable[[], None]]:
        return TunnelOutcome(certificate="one"), lambda: closed.append(port)

    asks = TunnelOpening(wants="direct", port="web")
    async with door_of(there).name("web", 80, judge=lambda who, what: None, direct=direct):
        kept = [
            await open_tunnel_stream(here, there.peer_id, there.addresses, asks) for _ in range(6)
        ]
        assert [outcome.refused for _, outcome in kept] == [""] * 4 + ["stream_only"] * 2
        assert (await asked(other, there, asks)).refused == ""
        for stream, _ in kept:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert closed == [80] * 5
        assert (await asked(here, there, asks)).refused == ""


def test_only_the_places_where_a_peer_is_are_gone_to() -> None:
    """It could name any machine of our network, and its ports."""
    addresses = ("/ip4/10.0.0.2/tcp/21820/p2p/" + "1" * 46, "/ip6/fd00::2/tcp/21820", "bad")
    told = [
        "10.0.0.2:21840",
        "[fd00::2]:21840",
        "10.0.0.3:22",
        "127.0.0.1:22",
        "10.0.0.2:0",
        "10.0.0.2:99999",
        "10.0.0.2:x",
        "",
    ]
    assert [str(each) for each in places_at(told, addresses)] == told[:2]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"port": 1}',
        b'{"port": "' + b"x" * 5000 + b'"}',
        b'{"chain": "***"}',
        b'{"port": "\\ud800"}',
        b'{"port": "web\\u001b[2J"}',
        b"[" * 100_000,
    ],
)
def test_first_words_that_are_none_are_a_protocol_error(body: bytes) -> None:
    """And nothing else."""
    with pytest.raises(RemoteProtocolError):
        decode(TunnelOpening, body)


def test_first_words_travel_whole_and_keys_that_are_not_known_are_ignored() -> None:
    """Fields can be added; a chain and a certificate fit."""
    opening = TunnelOpening(
        wants="direct", port="web", namespace="home", chain=bytes(3000), certificate="x" * 900
    )
    frame = encode(opening)
    assert len(frame) <= MAX_FRAME_BYTES
    assert decode(TunnelOpening, frame[4:]) == opening
    assert decode(TunnelOpening, b'{"lease": "one", "news": {}}') == TunnelOpening(lease="one")
    outcome = TunnelOutcome(certificate="x", addresses=("10.0.0.2:1", "[::1]:2"))
    assert decode(TunnelOutcome, encode(outcome)[4:]) == outcome
    with pytest.raises(RemoteProtocolError):
        decode(TunnelOutcome, b'{"addresses": "x"}')
