"""The network: who we are, byte streams to others, sessions on them, and meeting at a bootstrap.

Everything above this room sees `Node`, `Stream` and `PeerId`. libp2p is imported when the
first node is opened, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

from ._address import Address, Transport, parse_address
from ._base import Handler, Node, Stream
from ._bootstrap import BootstrapServer, BootstrapStatistics, open_bootstrap
from ._calls import Call, Inquiry
from ._known_peers import KnownPeers, who_is_at
from ._links import Links
from ._meeting import DEFAULT_BOOTSTRAP, DEFAULT_NAMESPACE
from ._membership import KnownListener, Membership, join_namespace, new_incarnation
from ._session import PeerSession, SessionHandler, SessionStatistics

__all__ = [
    # our own node
    "open_node",
    "Node",
    "Stream",
    "Handler",
    # where others are
    "Address",
    "Transport",
    "parse_address",
    "KnownPeers",
    "who_is_at",
    # sessions
    "PeerSession",
    "SessionHandler",
    "SessionStatistics",
    "Call",
    "Inquiry",
    "Links",
    # meeting
    "open_bootstrap",
    "BootstrapServer",
    "BootstrapStatistics",
    "join_namespace",
    "Membership",
    "KnownListener",
    "new_incarnation",
    "DEFAULT_BOOTSTRAP",
    "DEFAULT_NAMESPACE",
]


def open_node(
    *,
    identity: str | os.PathLike[str] | None = None,
    listen: Sequence[str] = (),
    transport: Literal["tcp", "quic", "dual"] = "tcp",
) -> AbstractAsyncContextManager[Node]:
    """Run a libp2p node while the block runs; see `punch.node._libp2p.open_node`."""
    # libp2p takes 1.4 s and 84 MB to import: only who opens a node pays.
    from ._libp2p import open_node as open_libp2p_node

    return open_libp2p_node(identity=identity, listen=listen, transport=transport)
