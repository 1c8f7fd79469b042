"""A worker and its borrowers on a network in memory: servers and tunnels are made up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from punch._background import open_background
from punch.access import Membership
from punch.capability import PeerId
from punch.cluster import Borrower, LentDevice
from punch.cluster.borrowing import Reached
from punch.cluster.leases import PROTOCOL, Leased, Surveyed, Tenancy
from punch.cluster.worker import FarEnd, Lending, LendingDoor
from punch.exceptions import BackendError, PeerUnreachable, RemoteProtocolError
from punch.network import Stream
from punch.testing import MemoryNetwork, MemoryNode
from punch.tunnels import LeaseCertificate, Measured, TunnelStatistics

GIB = 1 << 30


@attrs.define(eq=False)
class FakeServer:
    """A server that computes what a test says."""

    number: int
    tenancy: Tenancy
    port: int
    lost: trio.Event = attrs.field(factory=trio.Event)
    seconds: float = 0.0
    is_up: bool = True
    is_closed: bool = False

    def cpu_seconds(self) -> float:
        return self.seconds

    def is_running(self) -> bool:
        return self.is_up


class FakeLender:
    """Lends two devices; notes each server that was started."""

    def __init__(self) -> None:
        self.servers: list[FakeServer] = []
        self.said = Surveyed(
            devices=(
                LentDevice(name="CPU", total=16 * GIB, free=4 * GIB, bandwidth=1e10),
                LentDevice(name="CUDA0", total=8 * GIB, free=8 * GIB),
            ),
            memory=12 * GIB,
            bound="limit",
            rpc=(7, 0, 0),
            build="b1",
            threads=2,
        )
        self.surveys = 0
        self.start_seconds = 0.1
        self.end_seconds = 0.2
        self.fault: str | None = None

    @property
    def running(self) -> list[FakeServer]:
        return [each for each in self.servers if not each.is_closed]

    async def survey(self) -> Surveyed:
        self.surveys += 1
        await trio.sleep(0.01)
        return self.said

    @asynccontextmanager
    async def open_server(self, tenancy: Tenancy) -> AsyncIterator[FakeServer]:
        # As the real one, which has tasks of its own.
        async with open_background():
            await trio.sleep(self.start_seconds)
            if self.fault is not None:
                raise BackendError(self.fault)
            number = len(self.servers) + 1
            server = FakeServer(number, tenancy, 21000 + number)
            # However many borrowers there are: never two servers at a time.
            assert not self.running
            self.servers.append(server)
            try:
                yield server
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.end_seconds)
                server.is_closed = True


@attrs.define(eq=False)
class FakeNearEnd:
    """A tunnel that carries nothing."""

    port: int
    lost: trio.Event = attrs.field(factory=trio.Event)
    why: str | None = None
    is_closed: bool = False

    def statistics(self) -> TunnelStatistics:
        return TunnelStatistics(bytes_up=1)

    async def measure(self) -> Measured:
        return Measured(rtt=0.001, rate=1e9)


class FakeTunnels:
    """Both ends of tunnels: who shows another certificate than the lease's reaches nothing."""

    def __init__(self) -> None:
        self.carriers = frozenset({"direct"})
        self.open: dict[str, tuple[bytes, int]] = {}
        self.nears: list[FakeNearEnd] = []
        self.fault: str | None = None
        self.fars: list[FarEnd] = []

    @asynccontextmanager
    async def open_far_end(
        self, *, lease: str, borrower: PeerId, certificate: bytes, port: int
    ) -> AsyncIterator[FarEnd]:
        if not certificate.startswith(b"-----BEGIN CERTIFICATE-----"):
            raise RemoteProtocolError("not one certificate in PEM")
        if self.fault is not None:
            raise PeerUnreachable(self.fault)
        self.open[lease] = certificate, port
        far = FarEnd(
            certificate=lease.encode(), addresses=("10.0.0.1:21840",), carriers=self.carriers
        )
        self.fars.append(far)
        try:
            yield far
        finally:
            del self.open[lease]

    @asynccontextmanager
    async def open_near_end(
        self,
        *,
        worker: PeerId,
        addresses: Sequence[str],
        leased: Leased,
        certificate: LeaseCertificate,
    ) -> AsyncIterator[Reached]:
        del worker, addresses
        shown, port = self.open.get(leased.certificate.decode(), (b"", 0))
        if shown != certificate.pem.encode():
            raise PeerUnreachable("shows another certificate than the lease's")
        near = FakeNearEnd(port)
        self.nears.append(near)
        try:
            yield Reached(near=near, carrier="direct")
        finally:
            near.is_closed = True


@attrs.define(eq=False)
class Bench:
    """A worker on a network in memory, and what it lends with."""

    network: MemoryNetwork
    nursery: trio.Nursery
    lender: FakeLender
    tunnels: FakeTunnels
    node: MemoryNode
    lending: Lending
    ended: list[str]

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.node.addresses

    def borrower(self, name: str, membership: Membership | None = None) -> Borrower:
        """A borrower on a node of its own."""
        return Borrower(
            self.network.node(name), self.tunnels, namespace="home", membership=membership
        )

    def take(self, borrower: Borrower, **wish: Any) -> Any:
        return borrower.take(self.node.peer_id, self.addresses, **wish)

    async def stream(self, name: str) -> Stream:
        """A stream to the worker, for bytes of a test's own."""
        node = self.network.node(name)
        return await node.open_stream(self.node.peer_id, self.addresses, PROTOCOL)


@asynccontextmanager
async def open_bench(
    *, lend_to: Collection[str] = ("b1", "b2"), membership: Membership | None = None
) -> AsyncIterator[Bench]:
    """A worker called ``worker`` in the namespace ``home``."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery, delay=0.001)
        node = network.node("worker")
        lender, tunnels, ended = FakeLender(), FakeTunnels(), list[str]()
        lending = Lending(
            lender,
            tunnels,
            LendingDoor("home", membership, [PeerId(each) for each in lend_to]),
            nursery,
            ended=lambda ending: ended.append(ending.why),
        )
        node.handle(PROTOCOL, lending.serve)
        if membership is not None:
            nursery.start_soon(lending.keep_reconsidering)
        with membership.watch(lending.reconsider) if membership else trio.CancelScope():
            yield Bench(network, nursery, lender, tunnels, node, lending, ended)
        await lending.close()
        assert not lender.running
        assert not tunnels.open
        nursery.cancel_scope.cancel()
