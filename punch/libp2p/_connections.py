"""Decides which connection a stream uses: one to a peer, made when needed, closed when idle.

A connection is opened by `_dialing`; the swarm that holds them is libp2p's.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import attrs
import trio
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.transport.quic.connection import QUICConnection

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import ConfigurationError, PeerUnreachable
from ..network import Address, DialOrder, dial_order, parse_address
from ._dialing import Dialer
from .defects import _quic as _quic_defects
from .defects import _swarm as defects

LINGER_SECONDS = 1.0
"""How long the side that dialed keeps a connection without streams."""

INBOUND_LINGER_SECONDS = 5.0
"""The same for the other side: longer, so that the two do not close at once, and enough
for the first stream to be opened."""

# Half of the shorter linger: a connection is closed at most this much late.
_SWEEP_SECONDS = 0.5

_IP_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})

_log = get_logger(__name__)


@attrs.define(kw_only=True)
class ConnectionState:
    """What this node knows of a connection of the swarm, beyond what libp2p does."""

    dialed: bool
    """True if this side opened the connection."""

    idle_since: float
    """When the last stream closed, or else the connection was first seen; trio's clock, seconds."""

    streams: int = 0
    """Open streams of this node on the connection, in either direction."""

    closing: bool = False
    """True once this side has decided to close the connection."""

    address: Address | None = None
    """What this side dialed, a name still as a name; `None` if the other side dialed."""

    pinged: float = 0.0
    """When the connection was last kept alive; trio's clock, in seconds."""

    @property
    def relay(self) -> PeerId | None:
        """The relay through which this side has dialled; `None` if there is none."""
        return None if self.address is None else self.address.relay

    @property
    def is_relayed(self) -> bool:
        """True if this side has dialled through a relay."""
        return self.relay is not None


@attrs.define(kw_only=True)
class _Dial:
    """A dial to a peer that is under way, and that several callers may wait for."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    """Held by the caller that dials."""

    failed: tuple[str, ...] | None = None
    """Addresses of the dial that failed last, while others waited."""

    reason: str = ""
    """Why that dial failed."""

    why: str | None = None
    """The same in a word."""


@attrs.define
class _Failed:
    """Why the addresses of a dial did not work."""

    reasons: list[str] = attrs.field(factory=list)
    whys: list[str | None] = attrs.field(factory=list)
    relay_whys: list[str | None] = attrs.field(factory=list)

    def error(self, peer_id: PeerId) -> PeerUnreachable:
        """All of them in one; the word is that of the first, which the peer thinks best of.

        What a relay says comes after that: it tells nothing of why the peer itself is not reached.
        """
        why = "; ".join(self.reasons) or "no address is known"
        word = next(iter([*self.whys, *self.relay_whys]), None)
        return PeerUnreachable(f"cannot be reached: {why}", peer_id=peer_id, why=word)


_to_id = lru_cache(maxsize=1024)(ID.from_base58)
"""Cached, since decoding base58 takes as long as opening a stream."""


class Connections:
    """The swarm's connections, and what we know about each.

    Args:
      swarm: libp2p's swarm.
      dialer: Opens new ones.
      transports: Which to dial with: ``tcp``, ``quic``.
      nursery: Where connections are closed.

    """

    def __init__(
        self,
        swarm: Swarm,
        *,
        dialer: Dialer,
        transports: frozenset[str],
        nursery: trio.Nursery,
    ) -> None:
        self._swarm = swarm
        self._dialer = dialer
        self._transports = transports
        self._nursery = nursery
        self._states: dict[Any, ConnectionState] = {}
        self._dials: dict[tuple[PeerId, tuple[str, ...] | None], _Dial] = {}

    def __len__(self) -> int:
        return len(self._swarm.get_connections())

    def live(self, peer_id: PeerId, addresses: Sequence[str] = ()) -> Any:
        """A connection to a peer that can take another stream, or None.

        One that we dialed where the peer is no longer, by *addresses*, is none: the peer has
        moved, and what is sent there may arrive nowhere.
        """
        try:
            found = self._swarm.get_connections(_to_id(peer_id))
        except ValueError:
            return None
        places = set(map(_place, addresses)) if found else set()
        usable = (
            each
            for each in found
            if self.is_live(each)
            and (not places or (at := self.state(each).address) is None or str(at) in places)
        )
        return min(usable, key=lambda each: self.state(each).is_relayed, default=None)

    def is_connected(self, peer_id: PeerId) -> bool:
        """True if there is a connection to a peer that leads through no relay."""
        connection = self.live(peer_id)
        return connection is not None and not self.state(connection).is_relayed

    def dialled_at(self, peer_id: PeerId) -> Address | None:
        """Where we have dialled a peer that is connected; `None` if it has dialled us."""
        connection = self.live(peer_id)
        return None if connection is None else self.state(connection).address

    def close_from_elsewhere(self, hosts: frozenset[str]) -> None:
        """Close the connections that come from an address of ours that is not in *hosts*."""
        for connection in self._swarm.get_connections():
            state = self.state(connection)
            host = local_host(connection)
            if host is None or state.closing or ipaddress.ip_address(host).is_loopback:
                continue
            if host not in hosts:
                self.close_soon(connection, state)

    def is_live(self, connection: Any) -> bool:
        """True if a stream can be opened on *connection*, as far as we know."""
        muxed = connection.muxed_conn
        ending = getattr(muxed, "event_shutting_down", None)
        return not (
            connection.is_closed
            or muxed.is_closed
            or (ending is not None and ending.is_set())
            or self.state(connection).closing
        )

    def state(self, connection: Any) -> ConnectionState:
        """What we know about *connection*."""
        state = self._states.get(connection)
        if state is None:
            state = ConnectionState(dialed=False, idle_since=trio.current_time())
            self._states[connection] = state
        return state

    def close_soon(self, connection: Any, state: ConnectionState) -> None:
        """Close *connection* in the background, and open no more streams on it."""
        state.closing = True
        self._nursery.start_soon(_close_connection, connection)

    async def sweep(self) -> None:
        """Close idle connections, keep the others alive, forget those that ended."""
        while True:
            await trio.sleep(_SWEEP_SECONDS)
            now = trio.current_time()
            for connection in self._swarm.get_connections():
                state = self.state(connection)
                linger = LINGER_SECONDS if state.dialed else INBOUND_LINGER_SECONDS
                if state.closing:
                    continue
                if state.streams == 0 and now - state.idle_since >= linger:
                    self.close_soon(connection, state)
                elif now - state.pinged >= _quic_defects.KEEP_ALIVE_SECONDS:
                    state.pinged = now
                    if isinstance(connection.muxed_conn, QUICConnection):
                        _quic_defects.keep_alive(connection.muxed_conn)
            for connection in [each for each in self._states if each.is_closed]:
                if self._states[connection].streams == 0:
                    del self._states[connection]

    async def connect(
        self, peer_id: PeerId, addresses: Sequence[str], *, as_relay: bool = False
    ) -> Any:
        """The connection to a peer; a new one if there is none.

        Callers that ask at the same time share one dial, and its failure.

        Args:
          peer_id: Who must be there.
          addresses: Where it may be.
          as_relay: Whether another peer says that it is there, and leads to it. Whoever dials the
            peer for itself waits for no such dial.

        Raises:
          PeerUnreachable: if no address works.

        """
        key = (peer_id, tuple(addresses) if as_relay else None)
        dial = self._dials.setdefault(key, _Dial())
        waited = dial.lock.locked()
        try:
            async with dial.lock:
                connection = self.live(peer_id, addresses)
                if connection is not None:
                    return connection
                # The same addresses were just tried for another caller: a hundred callers must
                # not wait for a hundred dials, one after the other.
                if waited and dial.failed == tuple(addresses):
                    raise PeerUnreachable(dial.reason, peer_id=peer_id, why=dial.why)
                try:
                    return await self._dial(peer_id, addresses)
                except PeerUnreachable as error:
                    dial.failed, dial.reason = tuple(addresses), error.message
                    dial.why = error.why
                    raise
        finally:
            # Still locked if another caller waits: the lock was handed on.
            if not dial.lock.locked() and self._dials.get(key) is dial:
                del self._dials[key]

    async def _dial(self, peer_id: PeerId, addresses: Sequence[str]) -> Any:
        failed = _Failed()
        order = dial_order(self._candidates(peer_id, addresses, failed))
        if order.relayed:
            connection = await self._dial_both(order, peer_id, failed)
        else:
            connection = await self._dial_each(order.direct, peer_id, failed)
        if connection is None:
            raise failed.error(peer_id)
        return connection

    def _candidates(
        self, peer_id: PeerId, addresses: Sequence[str], failed: _Failed
    ) -> Iterator[Address]:
        for text in dict.fromkeys(addresses):
            try:
                address = parse_address(text, relayed=True)
            except ConfigurationError as error:
                failed.reasons.append(str(error))
                continue
            if address.relay == peer_id:
                failed.reasons.append(f"{text} leads to the peer through itself")
            elif address.peer_id not in {None, peer_id}:
                failed.reasons.append(f"{text} is the address of another peer")
            elif address.transport not in self._transports:
                failed.reasons.append(f"{text} is of a transport that this node does not dial")
            else:
                yield attrs.evolve(address, peer_id=None)

    async def _dial_each(
        self, candidates: Sequence[Address], peer_id: PeerId, failed: _Failed
    ) -> Any:
        """The connection to the first of *candidates* that answers; `None` if none does."""
        for address in candidates:
            try:
                connection = await self._dialer.dial(address, peer_id)
            except PeerUnreachable as error:
                failed.reasons.append(f"{address}: {error}")
                whys = failed.whys if address.relay is None else failed.relay_whys
                whys.append(error.why)
            else:
                state = self.state(connection)
                state.dialed, state.address = True, address
                return connection
        return None

    async def _dial_both(self, order: DialOrder, peer_id: PeerId, failed: _Failed) -> Any:
        """The connection by the row that is first; of two that came at once the direct one."""
        found: list[Any] = []
        has_failed = trio.Event()

        async def directly(scope: trio.CancelScope) -> None:
            connection = await self._dial_each(order.direct, peer_id, failed)
            if connection is None:
                has_failed.set()
            else:
                found.append(connection)
                scope.cancel()

        async def by_relay(scope: trio.CancelScope) -> None:
            with trio.move_on_after(order.head_start):
                await has_failed.wait()
            connection = await self._dial_each(order.relayed, peer_id, failed)
            if connection is not None:
                found.append(connection)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(directly, nursery.cancel_scope)
            nursery.start_soon(by_relay, nursery.cancel_scope)
        found.sort(key=lambda each: self.state(each).is_relayed)
        for connection in found[1:]:
            self.close_soon(connection, self.state(connection))
        return found[0] if found else None

    async def close(self) -> None:
        """Close all connections at once; `Swarm.close` takes 0.1 s for each."""
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.get_connections():
                nursery.start_soon(_close_connection, connection)


def _place(text: str) -> str:
    try:
        return str(attrs.evolve(parse_address(text, relayed=True), peer_id=None))
    except ConfigurationError:
        return text


def local_host(connection: Any) -> str | None:
    """Our IP address that a TCP connection comes from; `None` if that is not known.

    A connection of QUIC has no socket of its own, and ends by its time limit; one through a relay
    ends with the connection to the relay.
    """
    found = connection.muxed_conn
    # The layers from Yamux down to the socket, by their names in libp2p 0.8.1.
    for name in ("secured_conn", "conn", "read_writer", "read_write_closer", "stream", "stream"):
        found = getattr(found, name, None)
    try:
        if not isinstance(found, trio.SocketStream) or found.socket.family not in _IP_FAMILIES:
            return None
        host = found.socket.getsockname()[0]
    except OSError:
        return None
    return str(host).partition("%")[0]


async def _close_connection(connection: Any) -> None:
    with defects.shielded(2.0):
        try:
            await connection.close()
        except Exception:  # noqa: BLE001 - Whatever it was, the connection is given up.
            _log.debug("connection_close_failed", exc_info=True)
