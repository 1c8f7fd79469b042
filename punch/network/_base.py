"""The interfaces of a stream and of a node, and what both promise.

Libp2p's node and the network in memory fulfil them; no other room knows which one it has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import trio

from ..capability import PeerId


class Stream(Protocol):
    """A reliable, ordered, two-way byte stream to one authenticated peer.

    One task reads and one task writes; neither is cancelled by a request. `send_all` and
    `aclose` are shielded inside: a cancel takes effect after them.
    """

    @property
    def peer_id(self) -> PeerId:
        """Identity of the peer at the other end, as the handshake proved it."""
        ...

    async def receive_some(self) -> bytes:
        """The next bytes, at most 64 KiB; ``b""`` when the stream or its connection ended.

        Raises nothing: that the peer is gone is an end like any other.
        """
        ...

    @property
    def room(self) -> int:
        """Bytes that `send_now` takes; 0 while a write must wait, or if the stream has ended."""
        ...

    def send_now(self, data: bytes) -> None:
        """Send *data*, which `room` allows, without a wait and without a turn of other tasks."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Send *data*.

        Raises:
          PeerUnreachable: if the stream or its connection ended, or the peer reads nothing for
            10 s.

        """
        ...

    async def aclose(self) -> None:
        """End the stream in both directions. Never raises, never waits for the peer."""
        ...


@runtime_checkable
class Located(Protocol):
    """A stream that can tell where its bytes come from."""

    @property
    def ip(self) -> str | None:
        """IP address at the other end; `None` if that is not known any more."""
        ...


def ip_of(stream: Stream) -> str | None:
    """IP address at the other end of *stream*; `None` if the stream has none or cannot tell."""
    return stream.ip if isinstance(stream, Located) else None


@runtime_checkable
class Relayed(Protocol):
    """A stream that can tell whether a relay carries its bytes."""

    @property
    def relay(self) -> PeerId | None:
        """The peer that carries the bytes, which it cannot read; `None` if none does."""
        ...


def relay_of(stream: Stream) -> PeerId | None:
    """The relay that carries the bytes of *stream*; `None` if none does, as far as is known."""
    return stream.relay if isinstance(stream, Relayed) else None


@runtime_checkable
class Relayable(Protocol):
    """A node that others can reach through a relay."""

    async def be_relayed(self, relay: PeerId) -> None:
        """Have *relay*, to which there is a connection, lead others here, until it stops.

        Meanwhile the node's addresses have one that leads through the relay.

        Raises:
          PeerUnreachable: if the peer is no relay, refuses, or has stopped.

        """
        ...


Handler = Callable[[Stream], Awaitable[None]]
"""Serves an inbound stream, which is closed when the handler returns."""


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

    @property
    def on_link(self) -> tuple[str, ...]:
        """Where peers on a link of ours can dial us beside that: link-local addresses.

        Those of IPv6 have their zones here. No registration has them, as they mean nothing
        elsewhere.
        """
        ...

    @property
    def moved(self) -> trio.Event:
        """Set when the machine's addresses have changed; from then on it is another event."""
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
          PeerUnreachable: if no address answers, another peer answers, or the peer does not
            speak *protocol*.

        """
        ...

    async def identify(self, address: str) -> PeerId:
        """Ask who is at *address*, without trusting the answer any further.

        Raises:
          PeerUnreachable: if no peer answers there.

        """
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign *data* with our identity."""
        ...

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        """True if *signature* over *data* was made by *peer_id*."""
        ...
