"""Real nodes that reach each other through a relay, and what the relay sees of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from integration.libp2p_peer import ECHO, read_exactly, serve_everything
from integration.nodes import TCP

from punch.capability import PeerId
from punch.exceptions import PeerUnreachable
from punch.libp2p._node import LibP2PNode, open_node
from punch.network import own_hosts, relay_of
from punch.relay import ACCEPT, Relay, RelayLimits

HOLD = "/test/hold/1"
SECRET = b"nobody in between reads this"


def own_address() -> str:
    """An address of this machine that is no loopback, which others could dial."""
    hosts = [host for host in own_hosts() if ":" not in host and not host.startswith("127.")]
    if not hosts:
        pytest.skip("this machine has no address but loopback")
    return f"/ip4/{hosts[0]}/tcp/0"


class Three:
    """A relay, a node that it leads to, and one that asks."""

    def __init__(self, hub: LibP2PNode, hidden: LibP2PNode, asker: LibP2PNode) -> None:
        self.hub, self.hidden, self.asker = hub, hidden, asker
        self.relay = Relay(hub, permits=lambda one, other: True)
        self.carried = bytearray()

    @property
    def circuits(self) -> tuple[str, ...]:
        """Where the relay leads to the hidden node."""
        return tuple(each for each in self.hidden.addresses if "/p2p-circuit/" in each)


@asynccontextmanager
async def three() -> AsyncIterator[Three]:
    """All three, with a reservation; what the relay carries is kept."""
    with trio.fail_after(60):
        async with (
            open_node(listen=[own_address()]) as hub,
            open_node(listen=[TCP]) as hidden,
            open_node() as asker,
            trio.open_nursery() as nursery,
        ):
            found = Three(hub, hidden, asker)
            serve_everything(hidden)

            async def hold(stream: Any) -> None:
                await stream.receive_some()

            hub.handle(HOLD, hold)
            await hidden.open_stream(hub.peer_id, hub.addresses, HOLD)
            moved = hidden.moved
            nursery.start_soon(held, hidden, hub.peer_id)
            await moved.wait()
            yield found
            nursery.cancel_scope.cancel()


async def held(node: LibP2PNode, relay: PeerId) -> None:
    """Hold a reservation until the relay ends."""
    with pytest.raises(PeerUnreachable):
        await node.be_relayed(relay)


async def test_what_two_nodes_say_through_a_relay_is_sealed_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bytes that pass its hands hold nothing of what is said; both ends proved who they are."""
    seen = bytearray()
    carry = Relay._carry

    async def watched(self: Relay, one: Any, other: Any) -> None:
        for stream in (one[0], other[0]):
            send = stream._write

            async def keep(data: bytes, send: Any = send) -> None:
                seen.extend(data)
                await send(data)

            stream._write = keep
        await carry(self, one, other)

    monkeypatch.setattr(Relay, "_carry", watched)
    async with three() as nodes:
        stream = await nodes.asker.open_stream(nodes.hidden.peer_id, nodes.circuits, ECHO)
        assert relay_of(stream) == nodes.hub.peer_id
        assert stream.peer_id == nodes.hidden.peer_id
        assert stream.ip is None
        await stream.send_all(SECRET)
        assert await read_exactly(stream, len(SECRET)) == SECRET
        await stream.aclose()
    assert len(seen) > 2 * len(SECRET)
    assert SECRET not in seen


async def test_a_way_without_the_relay_is_taken_where_there_is_one() -> None:
    """It has a head start, and the relay carries nothing."""
    async with three() as nodes:
        stream = await nodes.asker.open_stream(nodes.hidden.peer_id, nodes.hidden.addresses, ECHO)
        assert relay_of(stream) is None
        assert nodes.relay.statistics().carried == 0
        await stream.aclose()


async def test_an_address_that_answers_nothing_costs_a_quarter_of_a_second() -> None:
    """A port of another peer's home is where nobody answers; the relay is not kept waiting."""
    async with three() as nodes:
        began = trio.current_time()
        places = (f"/ip4/192.0.2.77/tcp/9/p2p/{nodes.hidden.peer_id}", *nodes.circuits)
        stream = await nodes.asker.open_stream(nodes.hidden.peer_id, places, ECHO)
        assert trio.current_time() - began < 3.0
        assert relay_of(stream) == nodes.hub.peer_id
        await stream.aclose()


async def test_much_goes_through_whole_and_the_circuit_leaves_nothing() -> None:
    """Eight megabytes there and back, the tail of a stream included."""
    async with three() as nodes:
        stream = await nodes.asker.open_stream(nodes.hidden.peer_id, nodes.circuits, ECHO)
        sent = bytes(range(256)) * (4 << 12)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, sent)
            assert await read_exactly(stream, len(sent)) == sent
        await stream.aclose()
        while nodes.relay.statistics().circuits or nodes.asker.statistics().connections > 1:
            await trio.sleep(0.05)


async def test_a_relay_that_leads_to_another_peer_is_found_out() -> None:
    """The peer at the end proves who it is, whatever the relay says."""
    async with three() as nodes, open_node(listen=[TCP]) as liar:
        serve_everything(liar)
        await liar.open_stream(nodes.hub.peer_id, nodes.hub.addresses, HOLD)
        async with trio.open_nursery() as nursery:
            moved = liar.moved
            nursery.start_soon(held, liar, nodes.hub.peer_id)
            await moved.wait()
            open_stream = nodes.hub.open_stream

            async def misled(peer_id: PeerId, addresses: tuple[str, ...], protocol: str) -> Any:
                return await open_stream(liar.peer_id, addresses, protocol)

            nodes.hub.open_stream = misled  # type: ignore[method-assign]  # a lie
            with pytest.raises(PeerUnreachable) as caught:
                await nodes.asker.open_stream(nodes.hidden.peer_id, nodes.circuits, ECHO)
            assert caught.value.why == "other_peer"
            nursery.cancel_scope.cancel()


async def test_a_relay_that_is_full_or_ends_says_so_or_is_noticed() -> None:
    """The dialer hears the relay's reason; the hidden node has one address less."""
    async with three() as nodes:
        nodes.relay._limits = RelayLimits(circuits=0)
        with pytest.raises(PeerUnreachable) as caught:
            await nodes.asker.open_stream(nodes.hidden.peer_id, nodes.circuits, ECHO)
        assert "no more circuits" in caught.value.message
        assert caught.value.why == "no_relay"
        await nodes.hub._connections.close()
        while nodes.circuits:
            await trio.sleep(0.05)


async def test_who_was_asked_for_nothing_leads_nobody_here() -> None:
    """A peer at which the node has no reservation is no relay of it, whatever it says."""
    async with three() as nodes:
        for said, answer in ((b"12D3KooWstranger\n", b"not_asked\n"), (b"\xff\n", b"")):
            stream = await nodes.asker.open_stream(
                nodes.hidden.peer_id, nodes.hidden.addresses, ACCEPT
            )
            await stream.send_all(said)
            heard = b""
            while data := await stream.receive_some():
                heard += data
            assert heard == answer
