"""A worker that lends a server which echoes: real nodes and real tunnels, and no llama.cpp."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, nullcontext, suppress

import attrs
import trio
from integration.programs import free_port

from punch.access import Membership
from punch.capability import PeerId
from punch.cluster.leases import PROTOCOL, LentDevice, Surveyed, Tenancy
from punch.cluster.worker import Lending, LendingDoor
from punch.cluster.worker._carrier_far_ends import CarrierFarEnds
from punch.network import Node
from punch.tunnels import make_certificate, open_carrier
from punch.tunnels._certificates import make_context

GIB = 1 << 30


class EchoLender:
    """Lends a server that says again what it hears."""

    def __init__(self) -> None:
        self.servers: list[EchoServer] = []
        """Those that run."""
        self.leases: list[str] = []
        """The names of the leases that it had."""
        self.tunnel_ports: tuple[int, ...] = ()
        """Where the far end of a tunnel listens."""

    async def survey(self) -> Surveyed:
        return Surveyed(devices=(LentDevice(name="CPU", total=GIB, free=GIB),), memory=GIB)

    @asynccontextmanager
    async def open_server(self, tenancy: Tenancy) -> AsyncIterator[EchoServer]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def echo(stream: trio.SocketStream) -> None:
            async for data in stream:
                await stream.send_all(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, [listener])
            server = EchoServer(port=listener.socket.getsockname()[1])
            self.servers.append(server)
            self.leases.append(tenancy.lease)
            try:
                yield server
            finally:
                self.servers.remove(server)
                nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class EchoServer:
    """The server of an `EchoLender`."""

    port: int
    lost: trio.Event = attrs.field(factory=trio.Event)

    def cpu_seconds(self) -> float:
        return 0.0

    def is_running(self) -> bool:
        return True


@asynccontextmanager
async def open_echo(
    node: Node,
    *ports: int,
    namespace: str = "home",
    lend_to: Collection[PeerId] = (),
    membership: Membership | None = None,
) -> AsyncIterator[EchoLender]:
    """A worker at *node* that lends a server which echoes, through real tunnels."""
    lender = EchoLender()
    async with open_carrier() as carrier, trio.open_nursery() as nursery:
        lender.tunnel_ports = ports or (free_port(),)
        far_ends = CarrierFarEnds(carrier, node, ports=lender.tunnel_ports)
        door = LendingDoor(namespace, membership, lend_to)
        lending = Lending(lender, far_ends, door, nursery)
        node.handle(PROTOCOL, lending.serve)
        with membership.watch(lending.reconsider) if membership else nullcontext():
            yield lender
        await lending.close()
        nursery.cancel_scope.cancel()


async def echoes(endpoint: str) -> bool:
    """Whether what is sent to an endpoint comes back."""
    host, _, port = endpoint.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        await stream.send_all(b"hello")
        return await stream.receive_some() == b"hello"


def tls_refused(port: int) -> bool:
    """Whether somebody with a certificate of its own is refused at the tunnel's port."""
    own = make_certificate()
    context = make_context(own, own.pem, is_server=False)
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as plain:
        with context.wrap_socket(plain) as secure:
            secure.settimeout(5)
            secure.sendall(bytes(9))
            return not secure.recv(100)
    return True
