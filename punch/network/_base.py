"""The network, as the rest of punch sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ..capability import PeerId


class Stream(Protocol):
    """A reliable, ordered, two-way byte stream to one authenticated peer.

    One task reads and one task writes; neither is cancelled by a request. `send_all` and
    `aclose` are shielded inside: a cancel takes effect after them.
    """

    @property
    def peer_id(self) -> PeerId:
        """Who is at the other end, as the handshake proved."""
        ...

    async def receive_some(self) -> bytes:
        """The next bytes, at most 64 KiB; ``b""`` when the stream or its connection ended."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Send *data*.

        Raises:
          PeerUnreachable: if the stream or its connection ended.

        """
        ...

    async def aclose(self) -> None:
        """End the stream in both directions. Never raises, never waits for the peer."""
        ...


Handler = Callable[[Stream], Awaitable[None]]
"""Serves one inbound stream; the stream is closed when it returns."""


class Node(Protocol):
    """A process as a peer: one identity, some addresses, streams in and out."""

    @property
    def peer_id(self) -> PeerId:
        """Our own identity."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others can dial us: multiaddresses that end in ``/p2p/PEER_ID``."""
        ...

    def handle(self, protocol: str, handler: Handler) -> None:
        """Serve inbound streams of *protocol*, such as ``/punch/session/1``."""
        ...

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> Stream:
        """Open a stream to a peer, over a connection that exists or a new one.

        Args:
          peer_id: Who must be at the other end.
          addresses: Where it may be, tried in order; any of them may lack ``/p2p/...``.
          protocol: What to speak.

        Raises:
          PeerUnreachable: if no address answers, somebody else answers, or the peer does
            not speak *protocol*.

        """
        ...

    async def identify(self, address: str) -> PeerId:
        """Ask who is at *address*, without trusting the answer any further.

        Raises:
          PeerUnreachable: if nobody answers there.

        """
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign *data* with our identity."""
        ...

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        """True if *signature* over *data* was made by *peer_id*."""
        ...
