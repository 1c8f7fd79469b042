"""`open_worker()`: a peer that lends memory, alone or beside the listener of its process.

How it lends is decided in `_lending`, to whom in `_door`, and what in what it is given.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...access import Membership
from ...capability import PeerId
from ...discovery import (
    DEFAULT_BOOTSTRAP,
    Directory,
    KnownPeers,
    LocalListener,
    join_namespace,
    new_incarnation,
    parse_bootstraps,
    usual_namespace,
)
from ...discovery.attendance import Checks
from ...discovery.lan import Lan
from ...events import Bus, MemoryLent, MemoryReturned
from ...exceptions import ConfigurationError, PunchError
from ...listener._listener import open_own_node
from ...listener.meeting import open_meeting_here
from ...network import Address, Node
from ...tunnels import TUNNEL_PORTS, open_carrier
from ..leases import PROTOCOL, Ending, Surveyed, Tenancy
from ._carrier_far_ends import CarrierFarEnds
from ._door import LendingDoor
from ._lending import Lending
from ._parts import FarEnds, Lender

log = get_logger(__name__)

ROLE = "worker"

# For the server of the last lease to be ended when the worker ends.
CLOSE_SECONDS = 10.0


@attrs.frozen(kw_only=True)
class WorkerStatistics:
    """What a worker has lent until now."""

    taken: int = 0
    """Leases that were given."""

    ended: int = 0
    """Leases that have ended."""

    borrower: PeerId | None = None
    """Who has the lease now; `None` if nobody has."""


class Worker:
    """Lends memory in a namespace. Made by `open_worker`."""

    def __init__(
        self,
        node: Node,
        directory: Directory,
        namespace: str,
        lender: Lender,
        events: Bus | None = None,
    ) -> None:
        self.node = node
        """The node of this process, and so its identity."""
        self.directory = directory
        """The worker's place in the namespace."""
        self.namespace = namespace
        """The namespace in which it lends."""
        self.changed = trio.Event()
        """Set when a lease was taken or has ended; from then on it is another event."""
        self._lender = lender
        self._events = events or Bus()
        self._borrower: PeerId | None = None
        self._taken = self._ended = 0

    @property
    def peer_id(self) -> PeerId:
        """The identity of this process."""
        return self.node.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddresses of the worker."""
        return self.node.addresses

    @property
    def trouble(self) -> PunchError | None:
        """Why the namespace does not know the worker; `None` if all is well."""
        return self.directory.trouble

    async def survey(self) -> Surveyed:
        """What there is to lend now, as borrowers are told.

        Raises:
          BackendError: if that cannot be said.

        """
        return await self._lender.survey()

    def statistics(self) -> WorkerStatistics:
        """What was lent until now."""
        return WorkerStatistics(taken=self._taken, ended=self._ended, borrower=self._borrower)

    async def wait_until_joined(self) -> None:
        """Wait until the namespace knows the worker, however long its bootstrap takes.

        Raises:
          NetworkError: if waiting will not help, as `Listener.wait_until_joined`.

        """
        directory = self.directory
        async with trio.open_nursery() as nursery:

            async def watch(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch, directory.joined)
            nursery.start_soon(watch, directory.refused)
        if directory.trouble is not None:
            raise directory.trouble

    def _took(self, tenancy: Tenancy) -> None:
        self._taken += 1
        self._borrower = tenancy.borrower
        log.info(
            "lent",
            lease=tenancy.lease,
            peer=tenancy.borrower,
            bytes=tenancy.memory,
            devices=tenancy.devices,
        )
        self._events.publish(
            MemoryLent(
                at=trio.current_time(),
                lease=tenancy.lease,
                borrower=tenancy.borrower,
                devices=tenancy.devices,
                bytes=tenancy.memory,
            )
        )
        self._tell()

    def _has_ended(self, ending: Ending) -> None:
        self._ended += 1
        self._borrower = None
        tenancy = ending.tenancy
        log.info("a lease has ended", lease=tenancy.lease, peer=tenancy.borrower, why=ending.why)
        self._events.publish(
            MemoryReturned(
                at=trio.current_time(),
                lease=tenancy.lease,
                borrower=tenancy.borrower,
                why=ending.why,
                reason=ending.reason,
            )
        )
        self._tell()

    def _tell(self) -> None:
        changed, self.changed = self.changed, trio.Event()
        changed.set()


@asynccontextmanager
async def open_worker(
    lender: Lender,
    *,
    far_ends: FarEnds | None = None,
    tunnel_ports: Sequence[int] | None = None,
    beside: LocalListener | None = None,
    lend_to: Collection[str] = (),
    bootstrap: str | Address | Sequence[str | Address] = DEFAULT_BOOTSTRAP,
    namespace: str | None = None,
    listen: Sequence[str] = (),
    announce: Sequence[str] = (),
    transport: Literal["tcp", "quic", "dual"] = "tcp",
    identity: str | os.PathLike[str] | None = None,
    known: KnownPeers | None = None,
    lan: Lan | None = None,
    node: Node | None = None,
    incarnation: int | None = None,
    membership: Membership | None = None,
    events: Bus | None = None,
) -> AsyncIterator[Worker]:
    """A worker, for as long as the context lasts: it joins a namespace and lends to its borrowers.

    ::

        async with (
            punch.open_rpc_lender("/path/to/ggml-rpc-server", memory=4 << 30) as lender,
            punch.open_worker(lender, lend_to=["12D3KooW..."]) as worker,
        ):
            await worker.wait_until_joined()
            await trio.sleep_forever()

    In a closed namespace members borrow whose grant has the scope ``borrow``, and this process
    needs ``lend``. In an open one only *lend_to* may.

    Args:
      lender: What is lent, and how its servers are started; see `open_rpc_lender`.
      far_ends: Opens the far ends of tunnels; by default those of `punch.tunnels`.
      tunnel_ports: TCP ports of these to try, in order; by default 21840 and the next ones.
      beside: A listener of this process, whose node and namespace the worker shares: it has both
        roles then, and one identity. What says where and how the namespace is met is not looked at.
      lend_to: Identities of peers, or in a closed namespace also of machines, that alone may
        borrow.
      bootstrap: Where the namespace meets, as in `open_listener`.
      namespace: The namespace to join; by default that of *membership*, or else ``simple-chat``.
      listen: Multiaddresses to be dialled at, as in `open_listener`.
      announce: Multiaddresses to tell borrowers besides.
      transport: Transport to dial and listen with.
      identity: File with our key, made if it is not there; by default that of *membership*, or a
        fresh identity.
      known: Identities of bootstraps from earlier runs.
      lan: Be found on the LANs of this machine by mDNS too; by default not.
      node: Use this node, which stays open, instead of one of our own.
      incarnation: Grows each time we start; by default the time.
      membership: Our membership of a closed namespace.
      events: Where it publishes what is lent and returned.

    Raises:
      ConfigurationError: if an argument makes no sense; the text names it.

    """
    async with AsyncExitStack() as stack:
        if beside is not None:
            node, namespace, directory = beside.node, beside.namespace, beside.directory
            membership = directory.membership
        else:
            places = [
                place.reached_by(transport, setting="bootstrap")
                for place in parse_bootstraps(bootstrap)
            ]
            if namespace is None:
                namespace = usual_namespace(membership)
            if node is None:
                node = await stack.enter_async_context(
                    open_own_node(
                        places,
                        identity=identity,
                        listen=listen,
                        announce=announce,
                        transport=transport,
                        lan=lan,
                        membership=membership,
                    )
                )
            directory = await _join(
                stack,
                node,
                places,
                namespace=namespace,
                known=known,
                lan=lan,
                incarnation=incarnation if incarnation is not None else new_incarnation(),
                membership=membership,
            )
        if membership is None and not lend_to:
            raise ConfigurationError(
                f"namespace {namespace!r} is open, and nobody may borrow of this worker: say who "
                "with --lend-to PEER_ID, or use a closed namespace, whose members borrow by scope"
            )
        if far_ends is None:
            carrier = await stack.enter_async_context(open_carrier())
            far_ends = CarrierFarEnds(
                carrier, node, ports=TUNNEL_PORTS if tunnel_ports is None else tunnel_ports
            )
        worker = Worker(node, directory, namespace, lender, events)
        nursery = await stack.enter_async_context(open_background())
        lending = Lending(
            lender,
            far_ends,
            LendingDoor(namespace, membership, frozenset(map(PeerId, lend_to))),
            nursery,
            took=worker._took,
            ended=worker._has_ended,
        )
        if membership is not None:
            stack.enter_context(membership.watch(lending.reconsider))
            nursery.start_soon(lending.keep_reconsidering)
        node.handle(PROTOCOL, lending.serve)
        if beside is not None:
            stack.enter_context(directory.joined_as({ROLE}, lambda: None))
        try:
            yield worker
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await lending.close()


async def _join(
    stack: AsyncExitStack,
    node: Node,
    places: Sequence[Address],
    *,
    namespace: str,
    known: KnownPeers | None,
    lan: Lan | None,
    incarnation: int,
    membership: Membership | None,
) -> Directory:
    """Join *namespace* as a worker alone; members of a closed one may meet here too."""
    own, checks = None, Checks(node, namespace, membership)
    if membership is not None:
        own = await stack.enter_async_context(open_meeting_here(node, membership, checks))
        await stack.enter_async_context(membership.kept_up(node, serves=True))
    directory = await stack.enter_async_context(
        join_namespace(
            node,
            places,
            sources=() if own is None else own.sources,
            lan=lan,
            known=known,
            namespace=namespace,
            roles={ROLE},
            incarnation=incarnation,
            checks=checks,
        )
    )
    if own is not None:
        stack.enter_context(own.relaying(directory))
    return directory
