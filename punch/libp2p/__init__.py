"""The only door to libp2p: our own node, its connections and streams, and the keys of peers.

libp2p is imported when the first node is opened, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol

from ..capability import PeerId
from ..network import Node, Wanted

__all__ = ["open_node", "load_key", "verify", "Key"]


class Key(Protocol):
    """A private key, which is kept in a file."""

    @property
    def peer_id(self) -> PeerId:
        """The identity that belongs to it."""
        ...

    def sign(self, data: bytes) -> bytes:
        """The signature (64 bytes) of *data*."""
        ...


def load_key(path: Path) -> Key:
    """The key in the file at *path*, made there if there is none.

    Raises:
      ConfigurationError: if the file is damaged, others can read it, or it cannot be read or
        written. A file that exists is never written to.

    """
    # As below: a program that needs no key does not import libp2p.
    from ._identity import load

    return load(path)


def verify(peer_id: PeerId, data: bytes, signature: bytes) -> bool:
    """True if *signature* over *data* was made by *peer_id*; False for anything malformed."""
    from ._identity import verify as verify_signature

    return verify_signature(peer_id, data, signature)


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
