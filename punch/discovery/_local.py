"""The interface by which a router reaches a listener of its own process.

The listener is in a room of its own that this one does not know; it fulfils this interface.
"""

from __future__ import annotations

from typing import Protocol

from ..network import Node, Stream
from ._directory import Directory


class LocalListener(Protocol):
    """A listener of this process, as `punch.open_listener` makes it."""

    @property
    def node(self) -> Node:
        """The node of this process, whose identity the router shares."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace that it is a member of."""
        ...

    @property
    def incarnation(self) -> int:
        """Grows each time the listener starts."""
        ...

    @property
    def directory(self) -> Directory:
        """The directory of that namespace, which the router shares."""
        ...

    def connect(self) -> Stream:
        """Our end of a new loopback stream to the listener.

        Raises:
          PeerUnreachable: if the listener has ended.

        """
        ...
