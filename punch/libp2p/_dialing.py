"""Opens connections, and finds out which peer is at an address.

Which addresses to try, and in which order, is decided by `_connections`.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import multiaddr
import trio
from aioquic.quic.connection import QuicConnection
from libp2p.custom_types import TProtocol
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.quic.connection import QUICConnection
from libp2p.transport.quic.transport import QUICTransport
from libp2p.transport.tcp.tcp import TCP

from ..capability import PeerId
from ..exceptions import PeerUnreachable
from ..network import Address, resolve
from ._strangers import Heard
from .defects import _swarm as defects

_CLOSE_SECONDS = 1.0


DialCircuit = Callable[[Address, PeerId], Awaitable[RawConnection]]
"""Dials a peer through the relay of an address; raises `PeerUnreachable`."""


class Dialer:
    """Opens connections over TCP, and through relays, with Noise and Yamux, and over QUIC.

    `Swarm.dial_addr` does the same steps, but must be told who is there before it asks, and
    says little about what went wrong.

    Args:
      swarm: Where new connections go.
      tcp: libp2p's TCP transport.
      quic: libp2p's QUIC transport, if there is one.

    """

    def __init__(self, swarm: Swarm, *, tcp: TCP, quic: QUICTransport | None) -> None:
        self._swarm = swarm
        self._tcp = tcp
        self._quic = quic
        self._circuits: DialCircuit | None = None

    def lead_through(self, circuits: DialCircuit) -> None:
        """Dial through relays by *circuits* from now on."""
        self._circuits = circuits

    async def dial(self, address: Address, peer_id: PeerId) -> Any:
        """Connect to a peer; the swarm's connection.

        Raises:
          PeerUnreachable: if no peer answers within 5 s, or another one does. The text is
            a reason, to be put after a colon.

        """
        return await self._first(address, peer_id)

    async def identify(self, address: Address) -> PeerId:
        """The identity of the peer at an address; nothing stays open.

        Raises:
          PeerUnreachable: if no peer answers within 5 s.

        """
        found: PeerId = await self._first(address, None)
        return found

    async def _first(self, address: Address, peer_id: PeerId | None) -> Any:
        """Try the addresses that a name stands for, one after the other, until one works."""
        last = PeerUnreachable("the name stands for no address")
        address = attrs.evolve(address, peer_id=None)
        if address.relay is not None:
            return await self._try(address, peer_id)
        try:
            resolved = await resolve(address)
        except OSError as error:
            raise PeerUnreachable(
                f"the name is not known ({error.strerror})", why="no_name"
            ) from error
        except ValueError as error:
            # Resolvers and multiaddresses have rules of their own for names.
            raise PeerUnreachable(f"not an address that can be dialled: {error}") from error
        except trio.TooSlowError as error:
            raise PeerUnreachable("no answer about the name", why="no_name") from error
        for each in resolved:
            try:
                return await self._try(each, peer_id)
            except PeerUnreachable as error:
                last = error
        raise last

    async def _try(self, address: Address, peer_id: PeerId | None) -> Any:
        if address.kind == "ip6" and address.is_link_local():
            if address.transport == "quic":
                raise PeerUnreachable("libp2p has no way to tell QUIC an interface")
            if not address.zone:
                zoned = attrs.evolve(address, zone="eth0")
                raise PeerUnreachable(
                    f"it means nothing without its interface: write it as {zoned}", why="no_route"
                )
        heard = Heard()
        is_raw = address.relay is not None or address.transport == "tcp"
        try:
            with trio.fail_after(defects.HANDSHAKE_SECONDS):
                if is_raw:
                    raw = await self._raw(address, peer_id)
                    session, found = await self._secured(raw, heard)
                else:
                    session, found = await self._quic_session(address)
        except trio.TooSlowError as error:
            raise _too_slow(heard) from error
        if peer_id is None:
            await _close(session)
            return found
        try:
            if found != peer_id:
                raise PeerUnreachable(f"{found} answered there: wrong identity", why="other_peer")
            # From here on the connection may serve several callers: no caller's cancel ends it.
            with trio.CancelScope(shield=True), trio.fail_after(defects.HANDSHAKE_SECONDS):
                if is_raw:
                    session = await self._swarm.upgrader.upgrade_connection(
                        session, ID.from_base58(peer_id)
                    )
                return await self._swarm.add_conn(session, direction="outbound")
        except PeerUnreachable:
            await _close(session)
            raise
        except trio.TooSlowError as error:
            await _close(session)
            raise _too_slow(heard) from error
        except Exception as error:  # Anything a peer's bytes can cause.
            await _close(session)
            raise PeerUnreachable("it ended the handshake") from error

    async def _raw(self, address: Address, peer_id: PeerId | None) -> RawConnection:
        """A connection over TCP, or through a relay, whose bytes are not sealed yet."""
        if address.relay is not None:
            if self._circuits is None or peer_id is None:
                raise PeerUnreachable("a relay leads only to a peer that is known")
            return await self._circuits(address, peer_id)
        try:
            raw = await self._tcp.dial(multiaddr.Multiaddr(str(address)))
        except OpenConnectionError as error:
            reason, why = _reason(error)
            raise PeerUnreachable(reason, why=why) from error
        assert isinstance(raw, RawConnection)
        return raw

    async def _secured(self, raw: RawConnection, heard: Heard) -> tuple[Any, PeerId]:
        try:
            security = self._swarm.upgrader.security_multistream
            # Without an id, Noise authenticates any peer that answers, and leaves the
            # comparison to us.
            with heard.listening_in(raw):
                session = await security.secure_outbound(raw, None)  # type: ignore[arg-type]  # as above
            return session, PeerId(str(session.get_remote_peer()))
        except Exception as error:  # Anything a stranger's bytes can cause.
            await _close(raw)
            raise PeerUnreachable(
                f"{heard}, and it is not a libp2p peer with Noise", why="no_peer"
            ) from error
        except BaseException:
            await _close(raw)
            raise

    async def _quic_session(self, address: Address) -> tuple[Any, PeerId]:
        quic = self._quic
        assert quic is not None
        assert self._swarm.background_nursery is not None
        config = copy.copy(quic._quic_configs[TProtocol("quic-v1_client")])
        connection = QUICConnection(
            quic_connection=QuicConnection(configuration=config),
            remote_addr=(address.host, address.port),
            remote_peer_id=None,  # The peer that answers proves its identity; we compare.
            local_peer_id=self._swarm.get_peer_id(),
            is_initiator=True,
            maddr=multiaddr.Multiaddr(str(address)),
            transport=quic,
            security_manager=quic.get_security_manager(),
        )
        try:
            await connection.connect(self._swarm.background_nursery)
        except Exception as error:  # Anything a stranger's bytes can cause.
            await _close(connection)
            raise PeerUnreachable("no libp2p peer answers there") from error
        except BaseException:
            await _close(connection)
            raise
        if not connection.is_peer_verified:
            await _close(connection)
            raise PeerUnreachable("something answers there, but it does not prove who it is")
        return connection, PeerId(str(connection.remote_peer_id()))


async def _close(session: Any) -> None:
    """Close any kind of connection; nothing is left to be done if that fails."""
    with defects.shielded(_CLOSE_SECONDS), suppress(Exception):
        await session.close()


def _too_slow(heard: Heard) -> PeerUnreachable:
    limit = f"within {defects.HANDSHAKE_SECONDS:g} s"
    if not heard.is_connected:
        return PeerUnreachable(f"no answer {limit}", why="no_answer")
    if heard.is_silent:
        return PeerUnreachable(
            f"no answer {limit}, though connections are accepted: a process that hangs, or no "
            "libp2p peer",
            why="no_answer",
        )
    return PeerUnreachable(f"{heard}, and no libp2p peer {limit}", why="no_peer")


def _reason(error: BaseException) -> tuple[str, str]:
    """The operating system's reason for a failed connection: in a few words, and in one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
            continue
        if isinstance(seen, ConnectionRefusedError):
            return "connection refused", "refused"
        if isinstance(seen, OSError) and seen.strerror:
            is_late = seen.errno == errno.ETIMEDOUT
            return seen.strerror.lower(), "no_answer" if is_late else "no_route"
        seen = seen.__cause__
    return str(error), "no_route"
