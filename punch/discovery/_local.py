"""What a router needs of a listener in its own process, and nothing else."""

from __future__ import annotations

from typing import Protocol

from ..network import Node, Stream
from ._directory import Directory


class LocalListener(Protocol):
    """A listener of this process: see `punch.open_listener`."""

    @property
    def node(self) -> Node:
        """The node of this process, and so its identity."""
        ...

    @property
    def namespace(self) -> str:
        """Where it listens."""
        ...

    @property
    def incarnation(self) -> int:
        """Grows each time it starts."""
        ...

    @property
    def directory(self) -> Directory:
        """Its place in the namespace."""
        ...

    def connect(self) -> Stream:
        """Our end of a new stream to it.

        Raises:
          PeerUnreachable: if it has ended.

        """
        ...
