"""Connections through relays: dialled, accepted, and reserved.

A circuit is a stream to a relay that leads to another peer. The connection over it is sealed from
end to end by Noise, as every other: libp2p secures and multiplexes one end of a pair of sockets,
and the bytes of the other end go to the circuit. What a relay says and is told is in `punch.relay`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import multiaddr
import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import PeerUnreachable
from ..network import Address, Stream, ip_of
from ..relay import CONNECT, OK, RESERVE, read_line, say
from .defects import _swarm as defects

# Bytes that are read of a socket at a time.
_READ_BYTES = 64 << 10

_log = get_logger(__name__)

# How long a connection to a relay that exists may take to open a stream, before it is dialled anew:
# less than half of what the whole dial has.
_PATIENCE_SECONDS = 2.0

# What a relay's word means, for people; a word that is not known here says itself.
_WORDS = {
    "no_reservation": "the relay does not lead there",
    "not_permitted": "the relay does not serve it",
    "full": "the relay has no more circuits",
    "gone": "the relay cannot lead there now",
}


class _CircuitEnd(TrioTCPStream):
    """Our end of a circuit, as libp2p takes the end of a connection over TCP."""

    def get_remote_address(self) -> tuple[str, int] | None:
        """Nothing: where the bytes come from is known to the relay alone."""
        return None


class Circuits:
    """The circuits of a node.

    Args:
      swarm: Where accepted connections go.
      open_stream: The node's.
      is_connected: Whether there is a connection to a peer that leads through no relay.
      dialled_at: Where we have dialled a peer that is connected; `None` if it has dialled us.
      nursery: Where circuits are carried; it ends with the node.
      changed: Called when `addresses` are others.

    """

    def __init__(
        self,
        swarm: Any,
        *,
        open_stream: Callable[[PeerId, tuple[str, ...], str], Awaitable[Stream]],
        is_connected: Callable[[PeerId], bool],
        dialled_at: Callable[[PeerId], Address | None],
        nursery: trio.Nursery,
        changed: Callable[[], None],
    ) -> None:
        self._swarm = swarm
        self._open_stream = open_stream
        self._is_connected = is_connected
        self._dialled_at = dialled_at
        self._nursery = nursery
        self._changed = changed
        self._reserved: dict[PeerId, Address] = {}

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where relays lead to us, without our identity."""
        return tuple(self._reserved.values())

    async def dial(self, address: Address, peer_id: PeerId) -> RawConnection:
        """A connection to *peer_id* through the relay of *address*, not yet secured.

        Raises:
          PeerUnreachable: if the relay cannot be reached, or does not lead there.

        """
        relay = address.relay
        assert relay is not None
        at = str(attrs.evolve(address, relay=None, peer_id=relay))
        stream = await self._over_connection(relay)
        if stream is None:
            stream = await self._open_stream(relay, (at,), CONNECT)
        try:
            await say(stream, peer_id)
            answer, early = await read_line(stream)
            if answer != OK:
                raise PeerUnreachable(
                    _WORDS.get(answer, f"the relay says {answer!r}"), why="no_relay"
                )
            end, other = _pair()
        except BaseException:
            await stream.aclose()
            raise
        self._nursery.start_soon(_carry, stream, other, early)
        return RawConnection(end, True)

    async def _over_connection(self, relay: PeerId) -> Stream | None:
        """A stream to *relay* over the connection to it that there is; `None` if there is none.

        Wherever that leads to: the relay has proved who it is. The address of a circuit is the
        listener's word for where it is, and need not be where we have dialled it.
        """
        if not self._is_connected(relay):
            return None
        with trio.move_on_after(_PATIENCE_SECONDS), suppress(PeerUnreachable):
            return await self._open_stream(relay, (), CONNECT)
        return None

    async def accept(self, stream: Stream) -> None:
        """Serve a peer that a relay leads here, until its connection ends."""
        place = self._reserved.get(stream.peer_id)
        try:
            with trio.fail_after(defects.HANDSHAKE_SECONDS):
                _, early = await read_line(stream)
            await say(stream, "not_asked" if place is None else OK)
            if place is None:
                return
            end, other = _pair()
        except (trio.TooSlowError, PeerUnreachable) as error:
            _log.debug("no circuit came of it", relay=stream.peer_id, why=str(error))
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_carry, stream, other, early)
            # Who is there is proved by Noise, as on any connection: a relay's word counts nothing.
            address = multiaddr.Multiaddr(str(place))
            await self._swarm._do_handle_inbound_connection(end, address, None)
            nursery.cancel_scope.cancel()

    async def be_relayed(self, relay: PeerId) -> None:
        """Hold a reservation at *relay* for as long as it grants one.

        Raises:
          PeerUnreachable: if it does not, or no longer, or others cannot dial it where we do.

        """
        stream = await self._open_stream(relay, (), RESERVE)
        try:
            place = self._place_of(relay, ip_of(stream))
            with trio.move_on_after(defects.HANDSHAKE_SECONDS) as patience:
                answer, _ = await read_line(stream)
            if patience.cancelled_caught or answer != OK:
                why = "it says nothing" if patience.cancelled_caught else f"it says {answer!r}"
                raise PeerUnreachable(f"does not relay for us: {why}", peer_id=relay)
            self._reserved[relay] = place
            self._changed()
            _log.info("this machine is reached through a relay", address=str(place))
            try:
                await stream.receive_some()
            finally:
                # Another call may have had it granted anew, and that one's is not ours to end.
                if self._reserved.get(relay) is place:
                    del self._reserved[relay]
                    self._changed()
            raise PeerUnreachable("relays for us no longer", peer_id=relay)
        finally:
            await stream.aclose()

    def _place_of(self, relay: PeerId, ip: str | None) -> Address:
        """Where others find us through *relay*: where we have dialled it ourselves."""
        dialled = self._dialled_at(relay)
        if dialled is None or ip is None or dialled.relay is not None:
            raise PeerUnreachable("is at no address that others could dial", peer_id=relay)
        host = ipaddress.ip_address(ip)
        if host.is_loopback or host.is_link_local:
            raise PeerUnreachable("is at an address of this machine or link alone", peer_id=relay)
        return attrs.evolve(
            dialled, kind=f"ip{host.version}", host=ip, zone="", peer_id=None, relay=relay
        )


def _pair() -> tuple[_CircuitEnd, trio.SocketStream]:
    """Both ends of a pair of sockets: libp2p's, and the circuit's.

    Raises:
      PeerUnreachable: if this process may open no more.

    """
    try:
        pair = socket.socketpair()
    except OSError as error:
        raise PeerUnreachable(f"this machine has no socket for it: {error.strerror}") from error
    ours, other = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in pair)
    return _CircuitEnd(ours), other


async def _carry(stream: Stream, end: trio.SocketStream, early: bytes) -> None:
    """Carry bytes between a circuit and *end*, until either has ended; then both have."""

    async def inwards(scope: trio.CancelScope) -> None:
        data = early or await stream.receive_some()
        try:
            while data:
                await end.send_all(data)
                data = await stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def outwards(scope: trio.CancelScope) -> None:
        try:
            while data := await end.receive_some(_READ_BYTES):
                await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, PeerUnreachable):
            pass
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inwards, nursery.cancel_scope)
            nursery.start_soon(outwards, nursery.cancel_scope)
    finally:
        await stream.aclose()
        await trio.aclose_forcefully(end)
