"""The node on libp2p: opens and serves streams, signs, and says where it can be dialled.

No libp2p type and no libp2p exception leaves this room. The node runs libp2p's swarm with its
transports, Noise, Yamux and QUIC, with the work-arounds of `defects`. What the swarm does badly
is done here: dialing in `_dialing`, choosing and closing connections in `_connections`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import trio
from libp2p import new_swarm
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.network.swarm import Swarm
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.quic.transport import QUICTransport
from libp2p.transport.tcp.tcp import TCP

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import ConfigurationError, NetworkError, PeerUnreachable
from ..network import Handler, Wanted, own_hosts, parse_address
from ..relay import ACCEPT, CONNECT
from . import _identity, _ports
from ._circuits import Circuits
from ._connections import Connections, ConnectionState
from ._dialing import Dialer
from ._listening import Listening
from ._streams import ENDS, LibP2PStream, select
from .defects import _quic as _quic_defects
from .defects import _swarm as defects

CLOSE_SECONDS = 3.0
"""How long closing a node may take."""

LOOK_SECONDS = 2.0
"""How often the machine's own addresses are looked at, which takes half a millisecond. Systems can
tell of a change, each in its own way; ten seconds are enough for all that follows."""

_log = get_logger(__name__)


@attrs.frozen(kw_only=True)
class NodeStatistics:
    """The connections and streams of a node at one instant."""

    connections: int
    """Connections to peers, in either direction."""

    inbound_streams: int
    """Open streams that peers opened."""

    outbound_streams: int
    """Open streams that this node opened."""


class _NotNegotiatedError(Exception):
    """A peer opened a stream and did not agree on a protocol for it."""


class LibP2PNode:
    """A `punch.network.Node` on libp2p. Made by `open_node`."""

    def __init__(
        self,
        *,
        key_pair: KeyPair,
        swarm: Swarm,
        dialer: Dialer,
        connections: Connections,
        listening: Listening,
        announce: Sequence[str] = (),
        transports: frozenset[str],
        nursery: trio.Nursery,
    ) -> None:
        self.moved = trio.Event()
        """Set when the machine's addresses have changed; then there is a new event."""
        self._listening = listening
        self._announce = tuple(announce)
        self._key_pair = key_pair
        self._peer_id = _identity.peer_id_of(key_pair)
        self._swarm = swarm
        self._dialer = dialer
        self._transports = transports
        self._connections = connections
        self._nursery = nursery
        self._circuits = Circuits(
            swarm,
            open_stream=self.open_stream,
            is_connected=connections.is_connected,
            dialled_at=connections.dialled_at,
            nursery=nursery,
            changed=self._has_moved,
        )
        dialer.lead_through(self._circuits.dial)
        self._protocols = Multiselect()
        self._inbound: dict[LibP2PStream, PeerId] = {}
        self._inbound_of: Counter[PeerId] = Counter()
        self._outbound: set[LibP2PStream] = set()
        swarm.set_stream_handler(self._serve)
        self.handle(ACCEPT, self._circuits.accept)

    @property
    def peer_id(self) -> PeerId:
        """Our own identity."""
        return self._peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others can dial us: multiaddresses that end in ``/p2p/PEER_ID``."""
        # Our own first: they are the ones that most dialers reach, and each is tried in turn.
        found = (
            *map(str, self._listening.addresses),
            *self._announce,
            *map(str, self._circuits.addresses),
        )
        return tuple(f"{address}/p2p/{self._peer_id}" for address in dict.fromkeys(found))

    @property
    def on_link(self) -> tuple[str, ...]:
        """Where peers on our links can dial us beside that, see `punch.network.Node`."""
        return tuple(f"{address}/p2p/{self._peer_id}" for address in self._listening.on_link)

    async def _follow(self) -> None:
        """Keep up with the machine's addresses, for ever."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            if await self._listening.follow():
                # What goes out from an address that is gone never arrives, and nobody says so.
                self._connections.close_from_elsewhere(frozenset(own_hosts()))
                self._has_moved()

    def _has_moved(self) -> None:
        moved, self.moved = self.moved, trio.Event()
        moved.set()

    async def be_relayed(self, relay: PeerId) -> None:
        """Have *relay* lead others here until it stops; see `punch.network.Relayable`."""
        await self._circuits.be_relayed(relay)

    def statistics(self) -> NodeStatistics:
        """How many connections and streams are open."""
        return NodeStatistics(
            connections=len(self._connections),
            inbound_streams=len(self._inbound),
            outbound_streams=len(self._outbound),
        )

    def handle(self, protocol: str, handler: Handler) -> None:
        """Serve inbound streams of *protocol*.

        An exception of *handler* is logged and ends that stream only. A peer may have 64
        streams open; further ones are refused.
        """
        # Multiselect only hands the value back; its type is for libp2p's own streams.
        self._protocols.add_handler(TProtocol(protocol), handler)  # type: ignore[arg-type]  # see above

    def sign(self, data: bytes) -> bytes:
        """Sign *data* with our identity."""
        return _identity.sign(self._key_pair, data)

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        """True if *signature* over *data* was made by *peer_id*."""
        return _identity.verify(peer_id, data, signature)

    async def identify(self, address: str) -> PeerId:
        """Ask who is at *address*; nothing stays open.

        Raises:
          PeerUnreachable: if no libp2p peer answers there within 5 s, or the address is none
            that this node dials.

        """
        try:
            parsed = parse_address(address)
        except ConfigurationError as error:
            raise PeerUnreachable(f"cannot dial: {error}") from None
        if parsed.transport not in self._transports:
            raise PeerUnreachable(f"cannot dial {parsed}: this node does not dial its transport")
        try:
            return await self._dialer.identify(parsed)
        except PeerUnreachable as error:
            raise PeerUnreachable(f"{parsed}: {error}", why=error.why) from error

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> LibP2PStream:
        """Open a stream to a peer, over a connection that exists or a new one.

        Takes at most 5 s for each address, and 5 s to agree on the protocol.

        Args:
          peer_id: Who must be at the other end.
          addresses: Where it may be, tried in order, TCP before QUIC; any may lack
            ``/p2p/...``.
          protocol: What to speak.

        Raises:
          PeerUnreachable: if no address answers, another peer answers, or the peer does not
            speak *protocol*. The text has the reason for each address.

        """
        if peer_id == self._peer_id:
            raise PeerUnreachable("is this node itself", peer_id=peer_id)
        connection = self._connections.live(peer_id, addresses)
        if connection is not None:
            try:
                return await self._open_stream_on(connection, peer_id, protocol)
            except PeerUnreachable as error:
                # The peer may have restarted, or closed the connection at this very moment. A
                # peer that hangs would hang again.
                hangs = isinstance(error.__cause__, trio.TooSlowError)
                if hangs or self._connections.is_live(connection):
                    raise
        connection = await self._connections.connect(
            peer_id, addresses, as_relay=protocol == CONNECT
        )
        return await self._open_stream_on(connection, peer_id, protocol)

    async def _open_stream_on(
        self, connection: Any, peer_id: PeerId, protocol: str
    ) -> LibP2PStream:
        state = self._connections.state(connection)
        state.streams += 1  # So that it is not closed for being idle in the meantime.
        stream = None
        try:
            with trio.fail_after(defects.HANDSHAKE_SECONDS):
                muxed = await connection.muxed_conn.open_stream()
                stream = self._adopt(muxed, peer_id=peer_id, state=state)
                self._outbound.add(stream)
                await select(muxed, protocol)
        except trio.TooSlowError as error:
            self._connections.close_soon(connection, state)
            raise PeerUnreachable(
                f"is connected, but did not answer within {defects.HANDSHAKE_SECONDS:g} s",
                peer_id=peer_id,
            ) from error
        except PeerUnreachable as error:
            raise PeerUnreachable(error.message, peer_id=peer_id, why=error.why) from None
        except ENDS as error:
            reason = str(error) or type(error).__name__
            raise PeerUnreachable(f"ended the stream: {reason}", peer_id=peer_id) from error
        else:
            opened, stream = stream, None
            return opened
        finally:
            state.streams -= 1
            if stream is not None:
                stream.close_nowait()

    async def _serve(self, net_stream: Any) -> None:
        """Negotiate and handle one inbound stream; the swarm's stream handler."""
        muxed = net_stream.muxed_stream
        peer_id = PeerId(str(muxed.muxed_conn.peer_id))
        stream = self._adopt(
            muxed, peer_id=peer_id, state=self._connections.state(net_stream.swarm_conn)
        )
        self._inbound[stream] = peer_id
        self._inbound_of[peer_id] += 1
        protocol = None
        try:
            if self._inbound_of[peer_id] > defects.MAX_STREAMS_PER_PEER:
                _log.debug("too_many_streams", peer=peer_id, limit=defects.MAX_STREAMS_PER_PEER)
                return
            protocol, handler = await self._negotiate(muxed)
            if handler is not None:
                await handler(stream)
        except _NotNegotiatedError as error:
            _log.debug("stream_not_negotiated", peer=peer_id, reason=str(error.__cause__))
        except Exception:  # noqa: BLE001 - A handler's bug ends its stream, not the node.
            _log.warning("handler_failed", peer=peer_id, protocol=protocol, exc_info=True)
        finally:
            stream.close_nowait()

    async def _negotiate(self, muxed: Any) -> tuple[str | None, Any]:
        try:
            return await self._protocols.negotiate(
                MultiselectCommunicator(muxed), int(defects.HANDSHAKE_SECONDS)
            )
        except ENDS as error:
            raise _NotNegotiatedError from error

    def _adopt(self, muxed: Any, *, peer_id: PeerId, state: ConnectionState) -> LibP2PStream:
        def on_close(stream: LibP2PStream) -> None:
            state.streams -= 1
            state.idle_since = trio.current_time()
            self._outbound.discard(stream)
            if self._inbound.pop(stream, None) is not None:
                self._inbound_of[peer_id] -= 1
                if not self._inbound_of[peer_id]:
                    del self._inbound_of[peer_id]

        state.streams += 1
        return LibP2PStream(
            muxed,
            peer_id=peer_id,
            start_soon=self._nursery.start_soon,
            on_close=on_close,
            relay=state.relay,
        )

    async def _close(self) -> None:
        """Close every stream and connection, and stop listening."""
        for stream in (*self._inbound, *self._outbound):
            stream.close_nowait()
        # Long enough for the last frames of the streams to go out before the connections end.
        await trio.sleep(0.02)
        await self._connections.close()
        await self._swarm.close()


@asynccontextmanager
async def open_node(
    *,
    identity: str | os.PathLike[str] | None = None,
    listen: Sequence[str] = (),
    wanted: Wanted | None = None,
    ports: Sequence[int] = (),
    announce: Sequence[str] = (),
    spares_quic: bool = False,
    transport: Literal["tcp", "quic", "dual"] = "tcp",
) -> AsyncIterator[LibP2PNode]:
    """Run a libp2p node while the block runs.

    Leaving takes at most 3 s and closes every stream, connection and port.

    Args:
      identity: The file that keeps our identity, created if there is none. `None`: a fresh
        identity, forgotten at the end.
      listen: Multiaddresses to listen on, ``/ip4/HOST/tcp/PORT`` or
        ``/ip4/HOST/udp/PORT/quic-v1``, with port 0 for any free one. Empty: dial only.
      wanted: Says where to listen, in place of *listen*, and is asked again when the machine's
        addresses change.
      ports: Ports to try in this order for an address with port 0, before any that is free.
      announce: Multiaddresses to tell others besides, such as a router's that forwards to us.
      spares_quic: Listen without QUIC where its port is taken and TCP's is not, and say so.
      transport: What to dial with: ``tcp``, ``quic``, or ``dual`` for both, TCP first.

    Raises:
      ConfigurationError: if an address or the identity file is not as it should be, or
        libp2p is not 0.8.1.
      AddressUnavailable: if an address cannot be listened on.
      NetworkError: if libp2p fails while the block runs.

    """
    defects.apply()
    key_pair = _identity.new_key_pair() if identity is None else _load(identity)
    fixed = [_ports.parse_listen(text) for text in listen]
    for address in fixed:
        if not spares_quic and (address.port or not ports):
            _ports.check_free(address)
    dialed = frozenset({"tcp", "quic"} if transport == "dual" else {transport})
    tcp = TCP()
    quic = None
    if "quic" in dialed or any(address.transport == "quic" for address in fixed):
        quic = QUICTransport(key_pair.private_key, _quic_defects.transport_config())
    swarm = new_swarm(
        key_pair=key_pair,
        muxer_opt={TProtocol(YAMUX): Yamux},
        sec_opt=defects.noise_only(key_pair),
        transports=[tcp] if quic is None else [tcp, quic],
        connection_config=defects.connection_config(),
    )
    assert isinstance(swarm, Swarm)
    defects.passive(swarm)

    ended: BaseException | None = None
    try:
        async with background_trio_service(swarm), trio.open_nursery() as nursery:
            dialer = Dialer(swarm, tcp=tcp, quic=quic)
            connections = Connections(swarm, dialer=dialer, transports=dialed, nursery=nursery)
            listening = Listening(
                swarm, fixed=fixed, wanted=wanted, ports=ports, spares_quic=spares_quic
            )
            node = LibP2PNode(
                key_pair=key_pair,
                swarm=swarm,
                dialer=dialer,
                connections=connections,
                listening=listening,
                announce=announce,
                transports=dialed,
                nursery=nursery,
            )
            try:
                await listening.start()
                nursery.start_soon(connections.sweep)
                nursery.start_soon(node._follow)
                yield node
            # Raised again below: here the nurseries would wrap it in an exception group.
            except BaseException as error:  # noqa: BLE001
                ended = error
            with defects.shielded(CLOSE_SECONDS):
                await node._close()
            nursery.cancel_scope.cancel()
    except Exception as error:
        raise NetworkError(f"the libp2p node ended: {error!r}") from error
    if ended is not None:
        raise ended


def _load(identity: str | os.PathLike[str]) -> KeyPair:
    return _identity.load_or_create(Path(identity))
