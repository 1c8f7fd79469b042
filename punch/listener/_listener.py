"""`open_listener()`: puts backends, a node and a place in a namespace together.

Requests are left to the executor, and how the namespace is met to `punch.discovery`.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Literal

import trio

from .._logs import get_logger
from ..access import Membership
from ..admission import NO_CAPS, Caps
from ..capability import Capability, PeerId
from ..discovery import (
    DEFAULT_BOOTSTRAP,
    Directory,
    KnownPeers,
    Nowhere,
    join_namespace,
    new_incarnation,
    own_identity,
    parse_bootstraps,
    usual_namespace,
)
from ..discovery.attendance import Checks
from ..discovery.lan import Lan
from ..events import Bus
from ..exceptions import ConfigurationError, PunchError
from ..libp2p import open_node
from ..machine import Machine
from ..network import Address, Node, Stream, own_hosts, parse_address, ways_to
from ..peers import checked_name
from ._adverts import DEFAULT_REPORT_DELAY_SECONDS
from ._executor import Executor, ListenerStatistics, open_executor
from ._lane import RunningLane
from ._lanes import OneOrMore, Openable, each_of
from .meeting import Reception, open_meeting_here

log = get_logger(__name__)

DEFAULT_QUEUE_LIMIT = 16

# A firewall has a rule for a port, so a listener has one that stays. This one is registered for
# nothing, is in no system's range for outgoing connections, and looks like the bootstrap's. Further
# listeners of a machine take the next ones; more than these are a test.
LISTENER_PORT = 21820
LISTENER_PORTS = range(LISTENER_PORT, LISTENER_PORT + 16)


class Listener:
    """Answers the dialers of a namespace with its lanes. Made by `open_listener`."""

    def __init__(
        self,
        executor: Executor,
        *,
        node: Node,
        directory: Directory,
        namespace: str,
        incarnation: int,
        queue_limit: int,
        strict: bool,
        calibrate: bool,
    ) -> None:
        self.node = node
        """The node of this process, and so its identity."""
        self.directory = directory
        """The listener's place in the namespace."""
        self.namespace = namespace
        """The namespace whose dialers are served."""
        self.incarnation = incarnation
        """Grows each time the listener starts."""
        self.strict = strict
        """Whether its lanes refuse to simulate, where `add` says nothing else."""
        self._executor = executor
        self._queue_limit = queue_limit
        self._calibrate = calibrate

    @property
    def peer_id(self) -> PeerId:
        """The identity of this process."""
        return self.node.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddresses of the listener; none if only this process can reach it."""
        return self.node.addresses

    @property
    def lanes(self) -> tuple[RunningLane, ...]:
        """The lanes, in the order in which they were added."""
        return tuple(self._executor.lanes)

    @property
    def trouble(self) -> PunchError | None:
        """Why the namespace does not know the listener; `None` if all is well."""
        return self.directory.trouble

    def capability(self) -> Capability:
        """The vector that is advertised now."""
        return self._executor.capability()

    def statistics(self) -> ListenerStatistics:
        """Counts of sessions, requests and recordings, in all and by lane."""
        return self._executor.statistics()

    async def wait_until_joined(self) -> None:
        """Wait until the namespace knows the listener, however long its bootstrap takes to come up.

        Raises:
          NetworkError: if waiting will not help: the listener was refused, or the bootstrap has
            another identity than before.

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

    async def add(
        self,
        backend: Openable,
        *,
        name: str | None = None,
        queue_limit: int | None = None,
        strict: bool | None = None,
        calibrate: bool | None = None,
    ) -> RunningLane:
        """Answer with *backend* too, in a lane of its own; the others answer meanwhile.

        ::

            lane = await listener.add(open_llama_server(...), name="large")
            ...
            await listener.remove(lane)

        What is left out is as it was given to `open_listener`.

        Args:
          backend: What answers: what an ``open_*()`` has returned, which is opened now and closed
            with the lane, or a backend that is open, and stays the caller's to close.
          name: What the lane is called, 1 to 32 characters; by default as the backend is.
          queue_limit: Requests that may wait for a slot.
          strict: Refuse every request if the backend simulates.
          calibrate: Time the backend first, if it is real.

        Raises:
          ConfigurationError: if a value makes no sense, or there is a lane of that name.
          BackendError: if the backend cannot be opened, or cannot answer while it is timed.

        """
        return await self._executor.lanes.add(
            backend,
            name=name,
            queue_limit=self._queue_limit if queue_limit is None else queue_limit,
            strict=self.strict if strict is None else strict,
            calibrate=self._calibrate if calibrate is None else calibrate,
        )

    async def remove(self, lane: RunningLane) -> None:
        """Remove *lane*: finish what it has begun, for at most 10 s; the others continue.

        The backend is closed if `add` has opened it; any other is no longer used.
        """
        await self._executor.lanes.remove(lane)

    def limit(self, *, strangers: Caps = NO_CAPS, limits: Mapping[str, Caps] | None = None) -> None:
        """Change what others may ask for, from the next request on; dialers hear within a second.

        Args:
          strangers: What peers of other owners may ask for.
          limits: What single members of a closed namespace may, as in `open_listener`.

        Raises:
          ConfigurationError: if single members are limited in an open namespace.

        """
        self._executor.askers.change(strangers, limits or {})

    async def drain(self) -> None:
        """Refuse new requests, and finish what was begun, for at most 10 s."""
        await self._executor.drain()

    def connect(self) -> Stream:
        """The dialing end of a new stream to the listener, inside this process.

        Raises:
          PeerUnreachable: if the listener has ended.

        """
        return self._executor.connect()


def open_own_node(
    places: Sequence[Address],
    *,
    identity: str | os.PathLike[str] | None,
    listen: Sequence[str],
    announce: Sequence[str],
    transport: Literal["tcp", "quic", "dual"],
    lan: Lan | None,
    membership: Membership | None,
) -> AbstractAsyncContextManager[Node]:
    """The node of a peer that others dial: a listener's, or a worker's.

    Args:
      places: Where its namespace meets; the others are as in `open_listener`.
      identity: File with its key.
      listen: Multiaddresses to be dialled at.
      announce: Multiaddresses to tell others besides.
      transport: Transport to dial and listen with.
      lan: Where it is found by mDNS.
      membership: Our membership of a closed namespace.

    Raises:
      ConfigurationError: if an address makes no sense.

    """
    return open_node(
        identity=identity or own_identity(membership),
        listen=[str(parse_address(text, setting="listen")) for text in listen],
        wanted=None
        if listen
        else partial(
            addresses_to_listen_on,
            places,
            transport=transport,
            is_closed=membership is not None,
            lan=lan,
        ),
        ports=() if listen else LISTENER_PORTS,
        announce=[str(parse_address(text, setting="announce")) for text in announce],
        transport=transport,
    )


@asynccontextmanager
async def open_listener(
    backends: OneOrMore = (),
    *,
    bootstrap: str | Address | Sequence[str | Address] | None = DEFAULT_BOOTSTRAP,
    namespace: str | None = None,
    listen: Sequence[str] = (),
    announce: Sequence[str] = (),
    strict: bool = False,
    queue_limit: int = DEFAULT_QUEUE_LIMIT,
    calibrate: bool = True,
    transport: Literal["tcp", "quic", "dual"] = "tcp",
    identity: str | os.PathLike[str] | None = None,
    known: KnownPeers | None = None,
    lan: Lan | None = None,
    node: Node | None = None,
    incarnation: int | None = None,
    machine: Machine | None = None,
    events: Bus | None = None,
    report_delay: float = DEFAULT_REPORT_DELAY_SECONDS,
    strangers: Caps = NO_CAPS,
    name: str | None = None,
    membership: Membership | None = None,
    limits: Mapping[str, Caps] | None = None,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[Listener]:
    """A listener, for as long as the context lasts: it joins a namespace and answers its dialers.

    ::

        async with punch.open_listener(backend, namespace="home") as listener:
            await listener.wait_until_joined()
            await trio.sleep_forever()

    The listener answers from the first moment on, and is found once it has joined.

    Args:
      backends: One backend, or several, each of which gets a lane; further ones may come and go.
        Each is open, or what an ``open_*()`` has returned; see `Listener.add`.
      bootstrap: Where the namespace meets: a multiaddress, ``HOST:PORT`` or a name, or several that
        stand in for each other; see `open_router`. `None` to meet nowhere: then only a router of
        this process finds it, and dialers that know its address.
      namespace: The namespace to join; dialers of any other are refused. By default that of
        *membership*, or else ``simple-chat``.
      listen: Multiaddresses to be dialled at. By default this machine's side of the way to the
        bootstrap, where dialers of the namespace can reach it, and few others; it follows when the
        machine's address changes. The port is 21820, or the next one that is free.
      announce: Multiaddresses to tell dialers besides, such as a router's that forwards to this
        machine.
      strict: Refuse every request that a backend which simulates would have to answer.
      queue_limit: Requests that may wait for a slot, by lane.
      calibrate: Time each real backend first, so that dialers know its speed from the start.
      transport: Transport to dial and listen with.
      identity: File with our key, made if it is not there; by default that of *membership*, or a
        fresh identity.
      known: Identities of bootstraps from earlier runs; by default none, and none is kept.
      lan: Be found on the LANs of this machine by mDNS too, see `punch.discovery.lan`; by default
        not, and never while it listens on loopback only.
      node: Use this node, which stays open, instead of one of our own.
      incarnation: Grows each time we start; by default the time.
      machine: Measures the machine, where dialers should know how busy it is.
      events: Where it publishes what it serves, and how its lanes are; see `punch.events`.
      report_delay: Seconds between a change of its load and its report to dialers: what else
        changes by then goes into the same one.
      strangers: What peers of other owners may ask for; today a peer is of the same owner if it is
        on this machine. What exceeds it is refused, and the offers say so.
      name: What people call this machine, told to dialers; by default none is. No rule goes by it.
      membership: Our membership of a closed namespace, of `open_membership`: members alone are
        served, and may meet here as at a bootstrap; newcomers with an invite are let in if this
        machine may. Where no *listen* is given, it listens on all addresses of this machine.
      limits: What single members of a closed namespace may ask for, by the name of their machine
        or the identity of its key. What is left out there is as for *strangers*, or not capped for
        machines of our own owner; this machine itself is never limited.
      wall: The time, in seconds of UTC since 1970, by which the hours of limits go.

    Raises:
      ConfigurationError: if an argument makes no sense; the text names it.
      BackendError: if a backend cannot be opened, or cannot answer while it is timed.

    """
    places = [
        place.reached_by(transport, setting="bootstrap")
        for place in (() if bootstrap is None else parse_bootstraps(bootstrap))
    ]
    incarnation = incarnation if incarnation is not None else new_incarnation()
    if namespace is None:
        namespace = usual_namespace(membership)
    async with AsyncExitStack() as stack:
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
        reception = Reception()
        executor = await stack.enter_async_context(
            open_executor(
                node,
                namespace=namespace,
                incarnation=incarnation,
                machine=machine,
                events=events,
                report_delay=report_delay,
                strangers=strangers,
                name=None if name is None else _named(name),
                membership=membership,
                welcome=reception.welcome,
                limits=limits,
                wall=wall,
            )
        )
        # Lanes are timed before the namespace is joined, so that the first advert is true.
        for backend in each_of(backends):
            await executor.lanes.add(
                backend, queue_limit=queue_limit, strict=strict, calibrate=calibrate
            )
        own, checks = None, Checks(node, namespace, membership)
        if membership is not None:
            own = await stack.enter_async_context(open_meeting_here(node, membership, checks))
            await stack.enter_async_context(membership.kept_up(node, serves=True))
        directory = await stack.enter_async_context(
            join_namespace(
                node,
                places,
                sources=own.sources if own is not None else () if places else (Nowhere(),),
                lan=lan,
                known=known,
                namespace=namespace,
                roles={"listener"},
                incarnation=incarnation,
                checks=checks,
            )
        )
        reception.joined(directory)
        if own is not None:
            stack.enter_context(own.relaying(directory))
        listener = Listener(
            executor,
            node=node,
            directory=directory,
            namespace=namespace,
            incarnation=incarnation,
            queue_limit=queue_limit,
            strict=strict,
            calibrate=calibrate,
        )
        if not listener.lanes:
            log.info("no lane yet: nothing is answered here until a backend is added")
        yield listener


def _named(name: str) -> str:
    try:
        return checked_name(name)
    except ValueError as error:
        raise ConfigurationError(f"name is {name[:80]!r}; {error}") from None


async def addresses_to_listen_on(
    bootstraps: Sequence[Address],
    *,
    transport: Literal["tcp", "quic", "dual"],
    is_closed: bool = False,
    lan: Lan | None = None,
) -> tuple[str, ...]:
    """Where to listen if nobody says: on the interfaces that lead to the bootstraps, at any port.

    Nothing if there is no way to any of them now.

    Args:
      bootstraps: Where the namespace meets.
      transport: Transport to listen with.
      is_closed: Whether the namespace is: then on all addresses that this machine has, since any
        member may come to any other, and nobody else is let in.
      lan: Where others look for us: then on the link-local addresses there, too, which may be the
        only ones that two machines on a cable have.

    """
    hosts: dict[str, None] = {}
    if is_closed:
        # A link-local address is found on its LAN alone.
        hosts = {host: None for host in own_hosts() if not ipaddress.ip_address(host).is_link_local}
    for place in bootstraps:
        hosts |= dict.fromkeys(await ways_to(place))
    places = [
        Address(kind="ip6" if ":" in host else "ip4", host=host, transport="tcp", port=0)
        for host in hosts
    ]
    links = lan.links() if lan is not None and transport != "quic" else ()
    return tuple(
        str(place.over(each))
        for place in places
        for each in ("tcp", "quic")
        if transport in (each, "dual")
    ) + tuple(map(str, links))
