"""The work-arounds for the swarm of libp2p 0.8.1, one function each, and what installs them all.

The functions that `apply` calls replace private methods for the whole process;
the others make a value that the node passes when it builds its swarm. Each
docstring says what is wrong, where, and what happens without the work-around.
The ones for TCP, Yamux and QUIC are in modules of their own beside this one.

Some defects need no function, because the node does not use the code they are
in: `BasicHost` (it runs identify in trio's system tasks, where one unexpected
exception ends the process) and `Swarm.dial_peer` (it waits 250 ms for an address
that has already answered, refuses a peer for 60 s after one failure, and forgets
addresses after 120 s). Metrics stay off: nobody reads their channel of 100
entries, and the host accepts nobody when it is full.
"""

from __future__ import annotations

import importlib.metadata
import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from libp2p.abc import IMuxedConn, ISecureTransport
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError, ParseError
from libp2p.io import msgio, utils
from libp2p.io import trio as io_trio
from libp2p.io.exceptions import IncompleteReadError, IOException
from libp2p.network import swarm as swarm_module
from libp2p.network.config import ConnectionConfig
from libp2p.network.connection import swarm_connection
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp import tcp
from libp2p.utils import varint

from ...exceptions import ConfigurationError
from ...network import site_of

LIBP2P_VERSION = "0.8.1"
"""The version whose private methods are replaced here."""

STALL_SECONDS = 10.0
"""Seconds without any progress after which a write has failed.

Twice the silence after which a session gives a peer up (5 s), so that the session
is the one that notices; short enough that a stopped process frees its connections.
"""

MAX_CONNECTIONS = 4096
"""Connections of one node, if the process may open as many files; see `max_connections`."""

MAX_HANDSHAKES = 256
"""Unfinished handshakes of inbound connections: a bound on what strangers can occupy."""

HOSTS_SHARE = 2
"""One host has half of the inbound connections and of the handshakes at most. A thousand peers that
start on one machine stay below it; so one that hangs with all of its share leaves the rest."""

MAX_CONNECTIONS_PER_PEER = 16
"""Connections of one peer: both sides dialed on both transports, a few times over."""

MAX_STREAMS_PER_PEER = 64
"""Streams that one peer may have open here: one session, and its tunnels."""

MAX_OUTBOUND_STREAMS = 256
"""Streams that we open on one connection; the limit that upstream has, too."""

MAX_NEGOTIATION_BYTES = 1024
"""Longest line of multistream-select (its specification, section *Protocol*)."""

HANDSHAKE_SECONDS = 5.0
"""Time for a connection, or a stream, to agree on its protocols."""

_applied: frozenset[str] | None = None


def replace(owner: Any, name: str, new: object) -> None:
    """Put *new* where upstream's attribute *name* was; fail if there was none."""
    if not hasattr(owner, name):
        raise ConfigurationError(f"{owner!r} has no {name!r}: this is not libp2p {LIBP2P_VERSION}")
    setattr(owner, name, new)


def shielded(seconds: float) -> trio.CancelScope:
    """A scope that nothing cancels but its own time limit."""
    return trio.CancelScope(shield=True, deadline=trio.current_time() + seconds)


def check_version() -> None:
    """Refuse any libp2p but the one that was studied.

    Raises:
      ConfigurationError: if another version is installed.

    """
    found = importlib.metadata.version("libp2p")
    if found != LIBP2P_VERSION:
        raise ConfigurationError(
            f"libp2p {found} is installed, punch needs libp2p {LIBP2P_VERSION} exactly, because it "
            f"repairs private parts of it. Run: pip install 'libp2p=={LIBP2P_VERSION}'"
        )


def apply(*, without: Collection[str] = ()) -> None:
    """Install the process-wide work-arounds, once.

    Args:
      without: Names of work-arounds to leave out, such as ``yamux_read``: for the tests
        that show that each of them is needed. Only the first call counts.

    Raises:
      ConfigurationError: if libp2p is not 0.8.1.

    """
    global _applied
    if _applied is not None:
        return
    check_version()
    from . import _quic as _quic_defects
    from . import _tcp as _tcp_defects
    from . import _yamux as _yamux_defects

    modules = (_tcp_defects, _yamux_defects, _quic_defects)
    patches = (*PATCHES, *(patch for module in modules for patch in module.PATCHES))
    unknown = set(without) - {patch.__name__ for patch in patches}
    if unknown:
        raise ConfigurationError(f"no work-around is called {', '.join(sorted(unknown))}")
    for patch in patches:
        if patch.__name__ not in without:
            patch()
    _applied = frozenset(without)


# Values for the swarm.


def noise_only(key_pair: KeyPair) -> dict[TProtocol, ISecureTransport]:
    """The security transports to offer and accept: Noise, and nothing else.

    Defect: `libp2p.new_swarm` also enables ``/plaintext/2.0.0`` (and secio). Plaintext
    proves nothing: without this, anybody is accepted under any peer id, as a listener
    and as a dialer.
    """
    return {NOISE: Noise(key_pair, noise_privkey=create_x25519_key_pair().private_key)}


def max_connections() -> int:
    """`MAX_CONNECTIONS`, or half of the files that the process may open."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files < 0 else max(16, min(MAX_CONNECTIONS, files // 2))


def connection_config() -> ConnectionConfig:
    """Limits without the connection manager's own initiatives.

    Defect: by default (`libp2p.network.config`) the swarm dials known peers whenever it
    has fewer than 100 connections, and allows 250 inbound ones in all.
    """
    return ConnectionConfig(
        max_connections=(limit := max_connections()),
        min_connections=0,
        low_watermark=0,
        high_watermark=limit,
        # The swarm would close the oldest ones; `inbound_limiter` refuses the newest.
        max_connections_per_peer=limit,
        auto_connect_interval=86400.0,
        inbound_upgrade_timeout=HANDSHAKE_SECONDS,
        outbound_upgrade_timeout=HANDSHAKE_SECONDS,
        inbound_stream_protocol_negotiation_timeout=HANDSHAKE_SECONDS,
        outbound_stream_protocol_negotiation_timeout=HANDSHAKE_SECONDS,
    )


class _NoAutoConnector:
    """Stands where the swarm keeps its auto-connector, and does nothing."""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        pass

    async def maybe_connect(self) -> None:
        pass

    def record_disconnect(self, peer_id: object) -> None:
        pass


def passive(swarm: swarm_module.Swarm) -> None:
    """Switch off everything in a swarm that acts, or remembers, by itself.

    Defects: `network.auto_connector.AutoConnector` dials known peers even if the low
    watermark is 0, and remembers every peer that ever disconnected; `ResourceManager`
    lowers its limits by 20 to 50 % when one is reached and then refuses everybody for 60 s;
    the notifees serve parts that are not used here, and start two tasks for each stream.
    """
    replace(swarm, "auto_connector", _NoAutoConnector())
    swarm.set_resource_manager(None)
    swarm.notifees.clear()


# The whole process.


def quiet_logging() -> None:
    """Have libp2p log only for an application that adds a handler to its logger ``libp2p``.

    Defects: libp2p logs as errors what is an everyday matter, such as a peer that is away
    (1 to 7 lines each), to stderr or to the application's handlers; aioquic tells about
    every connection; and `network.connection.swarm_connection` calls `logging.debug`, which
    installs a handler on the root logger of the application.
    """
    logger = logging.getLogger("libp2p")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logging.getLogger("quic").setLevel(logging.WARNING)
    replace(swarm_connection, "logging", logging.getLogger("libp2p.network.connection"))


def connection_tasks() -> None:
    """Let an error in one connection end that connection only.

    Defect: `Swarm.add_conn` runs `Yamux.start` and `SwarmConn.start` as tasks of the
    service manager, and `TrioManager._run_and_manage_task` answers an exception in any
    task by stopping the service. Without this, one unexpected exception while serving
    one peer ends the node.
    """
    for owner in (yamux.Yamux, swarm_connection.SwarmConn):
        replace(owner, "start", _contained(owner.start))


def _contained(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def start(self: Any) -> None:
        try:
            await original(self)
        except Exception:  # Whatever it was, it must stay this connection's.
            logging.getLogger("libp2p").debug("a connection's task failed", exc_info=True)
            with shielded(1.0):
                await self.close()

    return start


def inbound_limiter() -> None:
    """Give an inbound connection's place back when the connection ends.

    Defect: `Swarm._do_handle_inbound_connection` waits for the end of the *swarm* while
    it holds a token of the limiter. Without this, a listener refuses everybody after
    250 (here: 4096) connections, and keeps a task for each one that ever was. Strangers who
    say nothing are held to `MAX_HANDSHAKES` of them, each for `HANDSHAKE_SECONDS`; each host to its
    share of those and of the connections.
    """
    handshakes: Counter[str] = Counter()

    async def upgrade(self: Any, stream: Any, address: Any, host: str) -> Any:
        if (
            handshakes.total() >= MAX_HANDSHAKES
            or handshakes[host] >= MAX_HANDSHAKES // HOSTS_SHARE
        ):
            raise ConnectionAbortedError("too many handshakes at a time")
        with _counted(handshakes, host):
            return await self.upgrade_inbound_raw_conn(RawConnection(stream, False), address)

    async def handle(self: Any, stream: Any, address: Any, failure: Any) -> None:
        hosts: Counter[str] = self.__dict__.setdefault("_punch_hosts", Counter())
        host = _host_of(stream)
        if hosts[host] >= self.connection_config.max_connections // HOSTS_SHARE:
            logging.getLogger("libp2p").debug("too many connections of one host: %s", host)
            with shielded(1.0):
                await stream.close()
            return
        with _counted(hosts, host):
            await serve(self, stream, address, host)

    async def serve(self: Any, stream: Any, address: Any, host: str) -> None:
        try:
            if isinstance(stream, IMuxedConn):  # QUIC: encrypted and multiplexed already.
                muxed: Any = stream
                await self.add_conn(muxed, direction="inbound")
                closed = muxed._closed_event
            else:
                muxed = await upgrade(self, stream, address, host)
                closed = muxed.event_closed
            if len(self.get_connections(muxed.peer_id)) > MAX_CONNECTIONS_PER_PEER:
                await muxed.close()
            await closed.wait()
        except Exception:  # Whatever a stranger has sent, only its own connection ends.
            logging.getLogger("libp2p").debug("inbound connection failed", exc_info=True)
        finally:
            with shielded(1.0):
                await stream.close()

    replace(swarm_module.Swarm, "_do_handle_inbound_connection", handle)


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    """Count one more under *key* while the context lasts."""
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


def _host_of(stream: Any) -> str:
    """The machine or household at the other end of a raw connection; empty if that is not known."""
    try:
        found = stream.get_remote_address()
    except Exception:  # noqa: BLE001 - A connection that has ended already is nobody's.
        found = None
    return "" if found is None else site_of(str(found[0]))


def read_exactly() -> None:
    """Read as often as it takes.

    Defect: `libp2p.io.utils.read_exactly` gives up after 101 reads. Without this, a path
    that delivers small segments (about 600 bytes) ends a Noise connection in the middle of
    a record.
    """

    async def read_exactly(reader: Any, n: int, retry_count: int = 0) -> bytes:
        parts = bytearray()
        while len(parts) < n:
            part = await reader.read(n - len(parts))
            if not part:
                raise IncompleteReadError(
                    f"Connection closed: expected {n} bytes, received {len(parts)}",
                    expected_bytes=n,
                    received_bytes=len(parts),
                )
            parts += part
        return bytes(parts)

    for module in (utils, msgio, varint, yamux):
        replace(module, "read_exactly", read_exactly)


def negotiation() -> None:
    """Refuse lines of multistream-select that are too long or not text.

    Defect: `MultiselectCommunicator.read` decodes what a peer sent as UTF-8 and lets
    `UnicodeDecodeError` escape; and it reads a line of any announced length. Without this,
    one stream with a protocol name that is not UTF-8 ends the whole host (one packet from
    any peer), and a stranger fills memory for as long as the handshake may take.
    """

    async def read(self: Any) -> str:
        try:
            size = await varint.decode_uvarint_from_stream(self.read_writer)
            if not 0 < size <= MAX_NEGOTIATION_BYTES:
                raise ParseError(f"a line of {size} bytes; at most {MAX_NEGOTIATION_BYTES}")
            line = await utils.read_exactly(self.read_writer, size)
            if not line.endswith(b"\n"):
                raise ParseError("a line without its end")
            return line[:-1].decode()
        except (BaseLibp2pError, IOException, UnicodeDecodeError, ValueError) as error:
            raise MultiselectCommunicatorError(str(error)) from error

    replace(multiselect_communicator.MultiselectCommunicator, "read", read)


def tcp_ports() -> None:
    """Own a TCP port alone.

    Defect: `transport.tcp.tcp._set_reuse_flags` sets SO_REUSEPORT on every listener (for
    hole punching). Without this, a second process of the same user listens on the same
    port without an error, and the kernel splits the peers between the two. An IPv6
    listener is kept to IPv6, or it takes the IPv4 port as well.
    """

    def set_reuse_flags(sock: Any) -> None:
        if sys.platform != "win32":  # There SO_REUSEADDR means what SO_REUSEPORT means here.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

    replace(tcp, "_set_reuse_flags", set_reuse_flags)


def tcp_keepalive() -> None:
    """Notice a machine that vanished without a word.

    Defect: `libp2p.io.trio.TrioTCPStream` sets no socket option. Without this, a
    connection to a machine that lost its power stays open for two hours, or, with
    unacknowledged data, for a quarter of an hour.
    """
    original = io_trio.TrioTCPStream.__init__
    options = [(socket.SOL_SOCKET, "SO_KEEPALIVE", 1)]
    options += [(socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5), (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 2)]
    options += [(socket.IPPROTO_TCP, "TCP_KEEPCNT", 3)]
    options += [(socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(STALL_SECONDS * 1000))]

    def init(self: Any, stream: Any) -> None:
        original(self, stream)
        # One end of a pair within this process, as of a circuit, is of another family.
        families = (socket.AF_INET, socket.AF_INET6)
        if not isinstance(stream, trio.SocketStream) or stream.socket.family not in families:
            return
        for level, name, value in options:
            option = getattr(socket, name, None)
            if option is not None:
                stream.setsockopt(level, option, value)

    replace(io_trio.TrioTCPStream, "__init__", init)


PATCHES: tuple[Callable[[], None], ...] = (
    quiet_logging,
    connection_tasks,
    inbound_limiter,
    read_exactly,
    negotiation,
    tcp_ports,
    tcp_keepalive,
)
"""What `apply` installs from this module, in this order."""
