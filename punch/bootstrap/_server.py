"""The bootstrap's side of a meeting: accepts registrations, and tells dialers of every change.

Which registrations there are, and which of two is the newer, is decided by
`punch.wire.Registrations`; who may be a member, by the function `admit`. The members' side is in
`punch.discovery`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Literal

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..access import Admit, Membership, admit_everybody
from ..capability import PeerId
from ..discovery import DEFAULT_BOOTSTRAP, own_identity
from ..discovery._meeting import (
    LIFETIME_SECONDS,
    PROTOCOL,
    SILENCE_SECONDS,
    FramedStream,
    send_goodbye,
    verified,
)
from ..exceptions import BootstrapFull, NotPermitted, PeerUnreachable, RemoteProtocolError
from ..libp2p import open_node
from ..network import (
    Address,
    Node,
    Stream,
    Transport,
    ip_of,
    is_own,
    parse_address,
    places_here,
    site_of,
)
from ..peers import Twins
from ..wire import (
    MINOR,
    NEWER,
    SHARED_IDENTITY,
    Goodbye,
    Join,
    NamespaceId,
    Ping,
    Reach,
    Registration,
    RegistrationLimits,
    Registrations,
    Standing,
    name_of,
    namespace_of,
)
from ._dial_back import DialBack
from ._leading import relay_at
from ._locks import Locks, Turns
from ._member import Everything, Member
from ._relayed import Relayed

log = get_logger(__name__)

# Bytes. A registration has at most 4 KB and a chain of grants less than 3, see the codec; no
# member sends anything longer.
MAX_JOIN_BYTES = 8192

# A member of a closed namespace may tell of a removal, which has 8 KB at most.
MAX_STANDING_BYTES = 8192 + 256

# Listeners of a closed namespace are told of each other if there are no more than these.
MAX_TOLD_LISTENERS = 256

# Seconds that a stranger may keep a stream open without a registration.
JOIN_SECONDS = 10.0

_TRANSPORTS: tuple[Transport, ...] = ("tcp", "quic")

# Members that one bootstrap serves at a time: as many as a node may have connections.
MAX_MEMBERS = 4096


@attrs.frozen(kw_only=True)
class BootstrapStatistics:
    """What a bootstrap holds at one instant."""

    members: int
    """Peers connected."""

    registrations: int
    """Peers registered."""


class BootstrapServer:
    """Lets peers meet. Made by `open_bootstrap`."""

    def __init__(
        self,
        node: Node,
        *,
        admit: Admit = admit_everybody,
        limits: RegistrationLimits | None = None,
        membership: Membership | None = None,
        is_for_own: bool = False,
    ) -> None:
        self._node = node
        self._locks = Locks(node.verify, admit=admit, membership=membership, is_for_own=is_for_own)
        self._turns = Turns()
        self._relayed = Relayed()
        self._limits = RegistrationLimits() if limits is None else limits
        self._registrations = Registrations(self._limits)
        self._twins = Twins()
        self._hosts: Counter[str | None] = Counter()
        self._members: dict[PeerId, Member] = {}
        self._dial_back = DialBack(node, self._tell_reach)

    @property
    def peer_id(self) -> PeerId:
        """The identity of the bootstrap."""
        return self._node.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddresses where it is met, with its identity."""
        return self._node.addresses

    def statistics(self) -> BootstrapStatistics:
        """How many peers are connected and registered now."""
        return BootstrapStatistics(
            members=len(self._members), registrations=len(self._registrations)
        )

    async def _expire(self) -> None:
        while True:
            await trio.sleep(1.0)
            for namespace, peer_id in self._registrations.expire(now=trio.current_time()):
                self._tell(namespace, peer_id)
            for member in tuple(self._members.values()):
                # Whoever is told who is in a closed namespace is judged with its registration: that
                # it still answers is not enough.
                if isinstance(member.namespace, tuple) and not self._registrations.has(
                    member.namespace, member.peer_id
                ):
                    member.scope.cancel()

    def _tell(self, namespace: NamespaceId, peer_id: PeerId) -> None:
        """Tell the dialers of a namespace what there is to know of a peer now."""
        for member in self._members.values():
            if member.namespace == namespace and self._is_told(member):
                # What is relayed comes from our own directory, which needs not be told of it.
                is_relayed = namespace == self._locks.own and member.peer_id != self.peer_id
                told = self._registrations.told(namespace, peer_id, minor=member.minor)
                member.news[peer_id] = told or (self._relayed.get(peer_id) if is_relayed else None)
                member.wake.set()

    def _is_told(self, member: Member) -> bool:
        """Whether a member is told who is there.

        Listeners dial no peer: telling each of a thousand of all the others would be a million
        registrations. In a closed namespace that is not as large they come back through each other.
        """
        namespace = member.namespace
        if member.is_dialer or namespace is None or isinstance(namespace, str):
            return member.is_dialer
        return self._registrations.members(namespace) <= MAX_TOLD_LISTENERS

    def _relay(self, joins: Mapping[PeerId, Join]) -> None:
        """Tell the members of our own namespace of others, which are registered elsewhere."""
        own = self._locks.own
        for peer_id in self._relayed.take(joins):
            if own is not None and self._registrations.told(own, peer_id, minor=MINOR) is None:
                self._tell(own, peer_id)

    def _reconsider(self, namespace: NamespaceId) -> None:
        """Turn away who is a member no longer, and tell the others of removals."""
        refused: dict[PeerId, Goodbye] = {}
        for join, registration in self._registrations.kept(namespace):
            refusal = self._locks.judge(join, registration)
            if refusal is not None:
                refused[registration.peer_id] = Goodbye(
                    code=NotPermitted.code, message=refusal.reason[:1000]
                )
        for member in tuple(self._members.values()):
            if member.namespace != namespace:
                continue
            if member.peer_id in refused:
                member.turn_away(refused[member.peer_id])
            else:
                member.is_standing_due = True
                member.wake.set()
        for peer_id in refused:
            if self._registrations.leave(namespace, peer_id):
                self._tell(namespace, peer_id)

    def _tell_reach(self, namespace: NamespaceId, reach: Reach) -> None:
        """Tell a listener how it could be dialled, and, if we dialled it, the dialers too."""
        for member in self._members.values():
            if member.namespace != namespace or member.minor < 1:
                continue
            is_for_all = member.is_dialer and reach.by == "bootstrap"
            if is_for_all or member.peer_id == reach.peer_id:
                member.reach[reach.peer_id, reach.by] = reach
                member.wake.set()

    async def serve(self, stream: Stream) -> None:
        """Serve the member at the other end of *stream*, until it leaves."""
        frames = FramedStream(stream, max_frame=MAX_JOIN_BYTES)
        if len(self._members) >= MAX_MEMBERS:
            await send_goodbye(
                frames, Goodbye(code="full", message=f"at most {MAX_MEMBERS} peers meet here")
            )
            return
        ip = ip_of(stream)
        host = None if ip is None else site_of(ip)
        # Twice what may be registered: the old stream of a peer that comes back counts a while.
        most = 2 * self._limits.per_host
        if host is not None and self._hosts[host] >= most:
            await send_goodbye(
                frames, Goodbye(code="full", message=f"at most {most} streams of one host")
            )
            return
        member = Member(peer_id=stream.peer_id, host=host, is_near=is_own(stream))
        self._hosts[host] += 1
        before = self._members.get(member.peer_id)
        if before is not None:
            # The peer came back before we noticed that it was gone.
            before.scope.cancel()
        self._members[member.peer_id] = member
        goodbye = None
        try:
            with member.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        member.keep_told, frames, self._everything, self._locks.known
                    )
                    goodbye = await self._listen(member, frames, ip)
                    member.scope.cancel()
        finally:
            if self._members.get(member.peer_id) is member:
                del self._members[member.peer_id]
                self._dial_back.forget(member.peer_id)
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]
        goodbye = goodbye or member.goodbye
        if goodbye is not None:
            log.info("a peer was turned away", peer=member.peer_id, why=goodbye.message)
            await send_goodbye(frames, goodbye)

    async def _listen(
        self, member: Member, frames: FramedStream, host: str | None
    ) -> Goodbye | None:
        """Handle what a member sends until it leaves; the goodbye if it is turned away."""
        try:
            while True:
                patience = JOIN_SECONDS if member.namespace is None else SILENCE_SECONDS
                with trio.move_on_after(patience) as scope:
                    message = await frames.receive()
                if scope.cancelled_caught or message is None:
                    return None
                if isinstance(message, Join):
                    await self._turns.turn(member.host)
                    self._join(member, frames, message, host)
                elif isinstance(message, Standing) and isinstance(member.namespace, tuple):
                    await self._learn(member, member.namespace, message)
                elif isinstance(message, Ping):
                    member.nonce = message.nonce
                    member.wake.set()
                elif isinstance(message, Goodbye):
                    self._leave(member)
                    return None
                else:
                    raise RemoteProtocolError(f"{type(message).__name__} from a member")
        except PeerUnreachable:
            return None
        except (RemoteProtocolError, NotPermitted, BootstrapFull) as error:
            return Goodbye(code=error.code, message=str(error)[:1000])

    def _join(self, member: Member, frames: FramedStream, join: Join, host: str | None) -> None:
        registration = verified(self._node, join)
        namespace = namespace_of(join, registration)
        _check(member, join, registration)
        refusal = self._locks.judge(join, registration)
        if refusal is not None:
            raise NotPermitted(refusal.reason)
        # Ours to say, and not its peer's.
        join = attrs.evolve(join, near=member.is_near, relayed=False)
        is_anew = member.namespace is None
        now = trio.current_time()
        news = self._registrations.join(
            join, registration, now=now, host=member.host, is_anew=is_anew
        )
        if is_anew and self._twins.came(member.peer_id, registration.incarnation, now):
            _warn_of_twins(member)
        dials = "dialer" in registration.roles
        if member.namespace is None:
            # A peer that comes anew may have been away: whoever could not dial it tries again.
            news = news or registration.is_shown
            member.namespace = namespace
            member.minor = frames.minor = min(join.minor, MINOR)
            if join.root is not None:
                frames.widen(MAX_STANDING_BYTES)
            member.is_dialer = dials
            member.wake.set()
        elif dials and not member.is_dialer:
            member.is_dialer = True
            member.has_roster = False
            member.wake.set()
        if news:
            self._tell(namespace, registration.peer_id)
        self._dial_back.consider(registration, host, namespace=namespace)
        for reach in join.reach if dials else ():
            self._dial_back.reported(namespace, reach)

    async def _learn(self, member: Member, namespace: NamespaceId, standing: Standing) -> None:
        news = [each for each in standing.revocations if each not in member.revocations]
        known = set(self._locks.known(namespace))
        await self._turns.turn(member.host, sum(each not in known for each in news))
        member.revocations.update(each for each in news if each in known)
        if self._locks.learn(namespace, [each for each in news if each not in known]):
            self._reconsider(namespace)

    def _leave(self, member: Member) -> None:
        namespace, peer_id = member.namespace, member.peer_id
        if namespace is not None and self._registrations.leave(namespace, peer_id):
            self._tell(namespace, peer_id)

    def _everything(self, member: Member) -> Everything:
        """What a member is told first."""
        namespace = member.namespace
        if namespace is None or not self._is_told(member):
            return Everything()
        present = self._registrations.shown(namespace, minor=member.minor)
        if namespace == self._locks.own and member.peer_id != self.peer_id:
            told = {each.peer_id for _, each in self._registrations.kept(namespace)}
            present += self._relayed.beside(told)
        return Everything(
            present=present,
            reach=self._dial_back.verdicts(namespace) if member.minor >= 1 else {},
        )


def _warn_of_twins(member: Member) -> None:
    member.notices = frozenset({SHARED_IDENTITY})
    log.warning(
        "two processes have the same identity and take turns here: one has a copy of the "
        "other's key file; start one of them with another --identity",
        peer=member.peer_id,
        host=member.host,
    )


def _check(member: Member, join: Join, registration: Registration) -> None:
    """Refuse what no member may say, whatever its namespace.

    Raises:
      NotPermitted: naming the rule.

    """
    namespace = namespace_of(join, registration)
    # The handshake proved who is at the other end: a member registers only itself, and
    # cannot replay what another one signed.
    if registration.peer_id != member.peer_id:
        raise NotPermitted(f"{member.peer_id} may not register {registration.peer_id}")
    if member.namespace is not None and member.namespace != namespace:
        name = name_of(member.namespace)
        raise NotPermitted(f"{member.peer_id} is in namespace {name!r} already")
    # A peer with a lifetime of days would be shown to newcomers long after it is gone.
    if registration.lifetime > 10 * LIFETIME_SECONDS:
        raise NotPermitted(f"a lifetime of {registration.lifetime:.0f} s is too long")
    if join.root is not None and join.minor < NEWER[Standing]:
        raise NotPermitted(f"minor {join.minor} of the protocol knows no closed namespaces")


@asynccontextmanager
async def open_bootstrap(
    node: Node | None = None,
    *,
    listen: Sequence[str] = (DEFAULT_BOOTSTRAP,),
    transport: Literal["tcp", "quic", "dual"] = "tcp",
    identity: str | os.PathLike[str] | None = None,
    admit: Admit = admit_everybody,
    limits: RegistrationLimits | None = None,
    membership: Membership | None = None,
    relays: bool = True,
) -> AsyncIterator[BootstrapServer]:
    """Serve as the bootstrap of any number of namespaces for as long as the context lasts.

    ::

        async with punch.open_bootstrap(listen=["/ip4/192.168.1.10/tcp/51820"]) as bootstrap:
            print(bootstrap.addresses)
            await trio.sleep_forever()

    Args:
      node: Use this node, which stays open, instead of one of our own; then *listen*, *transport*
        and *identity* are ignored.
      listen: Where members come to, as multiaddresses; port 0 is any that is free. A name is one of
        this machine, and is followed when it stands for another address of it.
      transport: What to listen with at each of them, whatever the address itself says.
      identity: File with our key, made if it is not there; by default that of *membership*, or a
        fresh identity, which members that were here before will not trust.
      admit: Decides who may be a member of an open namespace. A closed one is judged by the root
        key that its members show, whether we are one or not.
      limits: How many registrations are kept, of one host, of one namespace and of all.
      membership: Our own membership of a closed namespace, of `open_membership`: what is learnt of
        removals is kept and spread, and newcomers with an invite are let in if this machine may.
      relays: Whether it carries sealed bytes between those who meet here and cannot reach each
        other; a member of a closed namespace needs the scope ``relay`` for it.

    Raises:
      ConfigurationError: if an argument makes no sense; the text names it.
      AddressUnavailable: if an address cannot be listened on.

    """
    async with AsyncExitStack() as stack:
        if node is None:
            places = [parse_address(text, setting="listen") for text in listen]
            is_named = any(place.is_name for place in places)
            here = partial(_here, places, transport=transport)
            node = await stack.enter_async_context(
                open_node(
                    identity=identity or own_identity(membership),
                    listen=() if is_named else await here(),
                    wanted=here if is_named else None,
                    spares_quic=transport == "dual",
                    transport=transport,
                )
            )
        server = BootstrapServer(node, admit=admit, limits=limits, membership=membership)
        await stack.enter_async_context(_serving(node, server, membership, relays=relays))
        if membership is not None:
            await stack.enter_async_context(membership.kept_up(node, serves=True))
        yield server


@asynccontextmanager
async def open_meeting_point(node: Node, membership: Membership) -> AsyncIterator[BootstrapServer]:
    """Let the members of our closed namespace, and nobody else, meet at *node* too.

    Args:
      node: Our own node, which stays open.
      membership: Our membership.

    """
    server = BootstrapServer(node, membership=membership, is_for_own=True)
    async with _serving(node, server, membership):
        yield server


@asynccontextmanager
async def _serving(
    node: Node, server: BootstrapServer, membership: Membership | None, *, relays: bool = True
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(open_background())
        nursery.start_soon(server._expire)
        nursery.start_soon(server._dial_back.run)
        if membership is not None:
            own = (membership.namespace.name, membership.namespace.key)
            stack.enter_context(membership.watch(partial(server._reconsider, own)))
        node.handle(PROTOCOL, server.serve)
        if relays:
            relay_at(node, server._members, membership)
        yield


async def _here(
    places: Sequence[Address], *, transport: Literal["tcp", "quic", "dual"]
) -> tuple[str, ...]:
    """The multiaddresses to listen on: *places*, with this machine's addresses for its names."""
    found: dict[str, None] = {}
    for place in places:
        for each in await places_here(place) if place.is_name else (place,):
            found |= {str(each.over(t)): None for t in _TRANSPORTS if transport in (t, "dual")}
    return tuple(found)
