"""Meeting at a bootstrap: who is in a namespace, and where.

A peer keeps one stream to the bootstrap (`/punch/meet/1`). It sends its signed registration
at once and renews it before it expires; the bootstrap sends back who else is there, and every
change. When the bootstrap is lost nothing else is: peers that know each other go on, and
register again when it is back.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Literal

import attrs
import trio

from ..background import open_background
from ..capability import PeerId
from ..exceptions import (
    IdentityChanged,
    NetworkError,
    NotPermitted,
    PeerUnreachable,
    PunchError,
    RegistryFull,
    RemoteProtocolError,
)
from ..logs import get_logger
from ..wire import (
    MAX_FRAME,
    SIGNING_CONTEXT,
    Goodbye,
    Join,
    Ping,
    Pong,
    Registration,
    Registry,
    Roster,
    decode,
    decode_registration,
    encode,
    encode_registration,
)
from ._address import Address
from ._base import Node, Stream
from ._known_peers import KnownPeers, who_is_at

log = get_logger(__name__)

PROTOCOL = "/punch/meet/1"

DEFAULT_BOOTSTRAP = "/ip4/127.0.0.1/tcp/51820"
DEFAULT_NAMESPACE = "simple-chat"

# A registration outlives a bootstrap restart or a short loss of the network, and a peer that
# vanished is not offered to newcomers for much longer than it takes to notice it.
LIFETIME_SECONDS = 30.0
RENEWAL_SECONDS = 10.0

# How long each side waits for the other: three renewals.
SILENCE_SECONDS = 30.0

# A change is told to everybody this much later, together with whatever else changed by then.
COALESCE_SECONDS = 0.05

FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 5.0

# Members that one bootstrap serves at a time.
MAX_MEMBERS = 4096

Role = Literal["listener", "dialer"]

Meeting = Join | Roster | Goodbye | Ping | Pong


def new_incarnation() -> int:
    """A number that is larger each time a peer starts: milliseconds of its own clock."""
    return time.time_ns() // 1_000_000


@attrs.frozen(kw_only=True)
class KnownListener:
    """A listener of our namespace, by its own signed word."""

    peer_id: PeerId
    """Who."""

    addresses: tuple[str, ...]
    """Where."""

    incarnation: int
    """Grows each time it starts."""


class _Frames:
    """Meeting messages on a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def send(self, message: Meeting) -> None:
        await self._stream.send_all(encode(message))

    async def receive(self) -> Meeting | None:
        """The next message, or `None` at the end."""
        while True:
            if len(self._received) >= 4:
                length = int.from_bytes(self._received[:4], "big")
                if length > MAX_FRAME:
                    raise RemoteProtocolError(f"a frame of {length} bytes; at most {MAX_FRAME}")
                if len(self._received) >= 4 + length:
                    body = bytes(self._received[4 : 4 + length])
                    del self._received[: 4 + length]
                    message = decode(body)
                    if not isinstance(message, Join | Roster | Goodbye | Ping | Pong):
                        raise RemoteProtocolError(f"{type(message).__name__} at a meeting")
                    return message
            data = await self._stream.receive_some()
            if not data:
                return None
            self._received += data


def _opened(node: Node, join: Join) -> Registration:
    """The registration in *join*, once its signature is found right."""
    registration = decode_registration(join.registration)
    if not node.verify(registration.peer_id, SIGNING_CONTEXT + join.registration, join.signature):
        raise RemoteProtocolError(f"the registration of {registration.peer_id} is not its own")
    return registration


# ---- the bootstrap's side ----


@attrs.define(eq=False)
class _Member:
    peer_id: PeerId
    namespace: str | None = None
    news: dict[PeerId, Join | None] = attrs.field(factory=dict)
    """Listener to its registration, or `None` if it is gone, still to be told."""
    wake: trio.Event = attrs.field(factory=trio.Event)


@attrs.frozen(kw_only=True)
class BootstrapStatistics:
    """What a bootstrap holds at one instant."""

    members: int
    """Peers connected."""

    registrations: int
    """Peers registered."""


class BootstrapServer:
    """Lets peers meet. Made by `open_bootstrap`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._registry = Registry()
        self._members: set[_Member] = set()

    def statistics(self) -> BootstrapStatistics:
        """What it holds now."""
        return BootstrapStatistics(members=len(self._members), registrations=len(self._registry))

    async def _expire(self) -> None:
        while True:
            await trio.sleep(1.0)
            for namespace, peer_id in self._registry.expire(now=trio.current_time()):
                self._tell(namespace, peer_id, None)

    def _tell(self, namespace: str, peer_id: PeerId, join: Join | None) -> None:
        for member in self._members:
            if member.namespace == namespace:
                member.news[peer_id] = join
                member.wake.set()

    async def _serve(self, stream: Stream) -> None:
        frames = _Frames(stream)
        if len(self._members) >= MAX_MEMBERS:
            await _farewell(
                frames, Goodbye(code="full", message=f"at most {MAX_MEMBERS} peers meet here")
            )
            return
        member = _Member(peer_id=stream.peer_id)
        self._members.add(member)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._push, member, frames, nursery.cancel_scope)
                goodbye = await self._listen(member, frames)
                nursery.cancel_scope.cancel()
        finally:
            self._members.discard(member)
        if goodbye is not None:
            log.warning("a peer was turned away", peer=member.peer_id, why=goodbye.message)
            await _farewell(frames, goodbye)

    async def _listen(self, member: _Member, frames: _Frames) -> Goodbye | None:
        """Take what a member says until it leaves; the reason if it is turned away."""
        try:
            while True:
                with trio.move_on_after(SILENCE_SECONDS) as scope:
                    message = await frames.receive()
                if scope.cancelled_caught or message is None:
                    return None
                if isinstance(message, Join):
                    self._join(member, message)
                elif isinstance(message, Ping):
                    await frames.send(Pong(nonce=message.nonce))
                elif isinstance(message, Goodbye):
                    if member.namespace is not None:
                        self._leave(member.namespace, member.peer_id)
                    return None
                else:
                    raise RemoteProtocolError(f"{type(message).__name__} from a member")
        except PeerUnreachable:
            return None
        except (RemoteProtocolError, NotPermitted, RegistryFull) as error:
            return Goodbye(code=error.code, message=str(error)[:1000])

    def _join(self, member: _Member, join: Join) -> None:
        registration = _opened(self._node, join)
        if registration.peer_id != member.peer_id:
            raise NotPermitted(f"{member.peer_id} may not register {registration.peer_id}")
        if member.namespace not in (None, registration.namespace):
            raise NotPermitted(f"{member.peer_id} is in namespace {member.namespace!r} already")
        if registration.lifetime > 10 * LIFETIME_SECONDS:
            raise NotPermitted(f"a lifetime of {registration.lifetime:.0f} s is too long")
        news = self._registry.join(join, registration, now=trio.current_time())
        if member.namespace is None:
            member.namespace = registration.namespace
            member.wake.set()
        if news:
            self._tell(registration.namespace, registration.peer_id, join)

    def _leave(self, namespace: str, peer_id: PeerId) -> None:
        if self._registry.leave(namespace, peer_id):
            self._tell(namespace, peer_id, None)

    async def _push(self, member: _Member, frames: _Frames, scope: trio.CancelScope) -> None:
        whole = True
        try:
            while True:
                await member.wake.wait()
                await trio.sleep(COALESCE_SECONDS if not whole else 0)
                assert member.namespace is not None
                member.wake = trio.Event()
                news, member.news = member.news, {}
                if whole:
                    present = self._registry.listeners(member.namespace)
                    gone: tuple[PeerId, ...] = ()
                else:
                    present = tuple(join for join in news.values() if join is not None)
                    gone = tuple(peer_id for peer_id, join in news.items() if join is None)
                await frames.send(
                    Roster(namespace=member.namespace, whole=whole, present=present, gone=gone)
                )
                whole = False
        except PeerUnreachable:
            scope.cancel()


async def _farewell(frames: _Frames, goodbye: Goodbye) -> None:
    with suppress(PeerUnreachable):
        await frames.send(goodbye)


@asynccontextmanager
async def open_bootstrap(node: Node) -> AsyncIterator[BootstrapServer]:
    """Serve as the bootstrap on *node* for as long as the context lasts."""
    server = BootstrapServer(node)
    async with open_background() as nursery:
        nursery.start_soon(server._expire)
        node.handle(PROTOCOL, server._serve)
        yield server


# ---- a member's side ----


class Membership:
    """Our place in a namespace. Made by `join_namespace`.

    Args:
      node: Ourselves.
      bootstrap: Where the namespace meets.
      known: Who was at the bootstrap before.
      namespace: Where we meet.
      role: ``listener`` or ``dialer``.
      incarnation: Grows each time we start.
      changed: Called after every change of `listeners`.

    """

    def __init__(
        self,
        node: Node,
        bootstrap: Address,
        *,
        known: KnownPeers,
        namespace: str,
        role: Role,
        incarnation: int,
        changed: Callable[[], None],
    ) -> None:
        self.joined = trio.Event()
        """Set once the bootstrap has told us who is there."""
        self.trouble: PunchError | None = None
        """Why we are not in, while we are not."""
        self.refused = trio.Event()
        """Set when waiting will not help: we are turned away, or it is not who it was."""
        self._node = node
        self._bootstrap = bootstrap
        self._known = known
        self._namespace = namespace
        self._role: Role = role
        self._incarnation = incarnation
        self._sequence = 0
        self._changed = changed
        self._listeners: dict[PeerId, KnownListener] = {}

    @property
    def listeners(self) -> Mapping[PeerId, KnownListener]:
        """The listeners of the namespace, ourselves left out."""
        return MappingProxyType(self._listeners)

    async def run(self) -> None:
        """Stay registered, for ever."""
        delay = FIRST_RETRY_SECONDS
        while True:
            began = trio.current_time()
            try:
                await self._meet()
            except (PeerUnreachable, RemoteProtocolError) as error:
                # No peer's fault to whoever asks: nobody is there who could be asked.
                self.trouble = NetworkError(f"the bootstrap is out of reach: {error}")
                log.info("the bootstrap is out of reach", why=str(error), retry_seconds=delay)
            except (NotPermitted, IdentityChanged) as error:
                self.trouble = error
                self.refused.set()
                log.error("the bootstrap cannot be used", why=str(error))
            if trio.current_time() - began > LONGEST_RETRY_SECONDS:
                delay = FIRST_RETRY_SECONDS
            await trio.sleep(delay)
            delay = min(2 * delay, LONGEST_RETRY_SECONDS)

    async def _meet(self) -> None:
        peer_id = await who_is_at(self._node, self._bootstrap, self._known)
        stream = await self._node.open_stream(peer_id, (str(self._bootstrap),), PROTOCOL)
        frames = _Frames(stream)
        lost: list[PunchError] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew, frames, nursery.cancel_scope, lost)
                nursery.start_soon(self._follow, frames, nursery.cancel_scope, lost)
        except BaseException:
            # We are leaving: tell the bootstrap, which otherwise waits for the expiry.
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await _farewell(frames, Goodbye(code="bye", message="leaving"))
            raise
        finally:
            await stream.aclose()
        raise lost[0]

    async def _renew(
        self, frames: _Frames, scope: trio.CancelScope, lost: list[PunchError]
    ) -> None:
        try:
            while True:
                registration = Registration(
                    peer_id=self._node.peer_id,
                    namespace=self._namespace,
                    role=self._role,
                    addresses=self._node.addresses if self._role == "listener" else (),
                    incarnation=self._incarnation,
                    sequence=self._sequence,
                    lifetime=LIFETIME_SECONDS,
                )
                self._sequence += 1
                encoded = encode_registration(registration)
                signature = self._node.sign(SIGNING_CONTEXT + encoded)
                await frames.send(Join(registration=encoded, signature=signature))
                await frames.send(Ping(nonce=self._sequence))
                await trio.sleep(RENEWAL_SECONDS)
        except PeerUnreachable as error:
            lost.append(error)
            scope.cancel()

    async def _follow(
        self, frames: _Frames, scope: trio.CancelScope, lost: list[PunchError]
    ) -> None:
        try:
            while True:
                with trio.move_on_after(SILENCE_SECONDS) as patience:
                    message = await frames.receive()
                if patience.cancelled_caught:
                    raise PeerUnreachable(f"silent for {SILENCE_SECONDS:.0f} s")
                if message is None:
                    raise PeerUnreachable("the connection was lost")
                if isinstance(message, Goodbye):
                    raise NotPermitted(f"turned away ({message.code}): {message.message}")
                if isinstance(message, Roster):
                    self._merge(message)
        except (PeerUnreachable, RemoteProtocolError, NotPermitted) as error:
            lost.append(error)
            scope.cancel()

    def _merge(self, roster: Roster) -> None:
        if roster.namespace != self._namespace:
            raise RemoteProtocolError(f"a roster of namespace {roster.namespace!r}")
        found = {} if roster.whole else dict(self._listeners)
        for peer_id in roster.gone:
            found.pop(peer_id, None)
        for join in roster.present:
            registration = _opened(self._node, join)
            if registration.namespace != self._namespace or registration.role != "listener":
                raise RemoteProtocolError(f"{registration.peer_id} is no listener in here")
            known = self._listeners.get(registration.peer_id)
            if known is not None and known.incarnation > registration.incarnation:
                found[registration.peer_id] = known
            elif registration.peer_id != self._node.peer_id:
                found[registration.peer_id] = KnownListener(
                    peer_id=registration.peer_id,
                    addresses=registration.addresses,
                    incarnation=registration.incarnation,
                )
        self._listeners = found
        self.trouble = None
        self.joined.set()
        self._changed()


@asynccontextmanager
async def join_namespace(
    node: Node,
    bootstrap: Address,
    *,
    known: KnownPeers,
    namespace: str,
    role: Role,
    incarnation: int,
    changed: Callable[[], None] = lambda: None,
) -> AsyncIterator[Membership]:
    """Be a member of *namespace* for as long as the context lasts. See `Membership`."""
    membership = Membership(
        node,
        bootstrap,
        known=known,
        namespace=namespace,
        role=role,
        incarnation=incarnation,
        changed=changed,
    )
    async with open_background() as nursery:
        nursery.start_soon(membership.run)
        yield membership
