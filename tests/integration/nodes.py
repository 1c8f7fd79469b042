"""What the tests of the node share."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from integration.libp2p_peer import ECHO, Peer, read_exactly

from punch.capability import PeerId
from punch.libp2p import _identity
from punch.libp2p._node import LibP2PNode

TCP = "/ip4/127.0.0.1/tcp/0"
QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
LISTEN = {"tcp": TCP, "quic": QUIC}

both_transports = pytest.mark.parametrize("transport", ["tcp", "quic"])


async def echoes(node: LibP2PNode, other: Peer | LibP2PNode, *addresses: str) -> bool:
    """True if *other* answers on a new stream."""
    stream = await node.open_stream(other.peer_id, addresses or other.addresses, ECHO)
    await stream.send_all(b"hello")
    answer = await read_exactly(stream, 5)
    await stream.aclose()
    return answer == b"hello"


async def until(condition: Any, seconds: float) -> None:
    """Wait until *condition* holds."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)


def stranger() -> PeerId:
    """The id of a peer that nobody has met."""
    return _identity.peer_id_of(_identity.new_key_pair())
