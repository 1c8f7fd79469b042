"""The bootstrap's side of a meeting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from ..background import open_background
from ..capability import PeerId
from ..exceptions import NotPermitted, PeerUnreachable, RegistryFull, RemoteProtocolError
from ..logs import get_logger
from ..wire import Goodbye, Join, Ping, Pong, Registry, Roster
from ._base import Node, Stream
from ._meeting import LIFETIME_SECONDS, PROTOCOL, SILENCE_SECONDS, Frames, farewell, opened

log = get_logger(__name__)

# A change is told to everybody this much later, together with whatever else changed by then.
COALESCE_SECONDS = 0.05

# A registration with 32 addresses has some 3 KB; nothing longer comes from a member.
LONGEST_JOIN = 16 << 10

# Members that one bootstrap serves at a time.
MAX_MEMBERS = 4096


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
        frames = Frames(stream, max_frame=LONGEST_JOIN)
        if len(self._members) >= MAX_MEMBERS:
            await farewell(
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
            await farewell(frames, goodbye)

    async def _listen(self, member: _Member, frames: Frames) -> Goodbye | None:
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
        registration = opened(self._node, join)
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

    async def _push(self, member: _Member, frames: Frames, scope: trio.CancelScope) -> None:
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


@asynccontextmanager
async def open_bootstrap(node: Node) -> AsyncIterator[BootstrapServer]:
    """Serve as the bootstrap on *node* for as long as the context lasts."""
    server = BootstrapServer(node)
    async with open_background() as nursery:
        nursery.start_soon(server._expire)
        node.handle(PROTOCOL, server._serve)
        yield server
