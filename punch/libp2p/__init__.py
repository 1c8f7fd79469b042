"""The only door to libp2p: our own node, its connections and streams.

libp2p is imported when the first node is opened, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

from ..network import Node, Wanted

__all__ = ["open_node"]


def open_node(
    *,
    identity: str | os.PathLike[str] | None = None,
    listen: Sequence[str] = (),
    wanted: Wanted | None = None,
    ports: Sequence[int] = (),
    announce: Sequence[str] = (),
    spares_quic: bool = False,
    transport: Literal["tcp", "quic", "dual"] = "tcp",
) -> AbstractAsyncContextManager[Node]:
    """Run a libp2p node while the block runs; see `punch.libp2p._node.open_node`."""
    # libp2p takes 1.4 s and 84 MB to import: only a process that opens a node pays for it.
    from ._node import open_node as open_libp2p_node

    return open_libp2p_node(
        identity=identity,
        listen=listen,
        wanted=wanted,
        ports=ports,
        announce=announce,
        spares_quic=spares_quic,
        transport=transport,
    )
