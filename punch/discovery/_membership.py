"""A member's side of a meeting."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import (
    ConfigurationError,
    NetworkError,
    NotPermitted,
    PeerUnreachable,
    PunchError,
    RemoteProtocolError,
)
from ..network import Address, Node
from ..wire import (
    MAX_ADDRESSES,
    SIGNING_CONTEXT,
    Goodbye,
    Join,
    Ping,
    Registration,
    Roster,
    encode_registration,
)
from ._known_peers import KnownPeers, who_is_at
from ._meeting import (
    LIFETIME_SECONDS,
    PROTOCOL,
    RENEWAL_SECONDS,
    SILENCE_SECONDS,
    Frames,
    Role,
    farewell,
    opened,
)

log = get_logger(__name__)

FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 5.0


def new_incarnation() -> int:
    """A number that is larger each time a peer starts: milliseconds of its own clock."""
    return time.time_ns() // 1_000_000


def check_namespace(namespace: str) -> None:
    """Refuse a name that could not travel.

    Raises:
      ConfigurationError: with the value and the rule.

    """
    if not 1 <= len(namespace) <= 256 or not namespace.isprintable():
        raise ConfigurationError(
            f"the namespace is {namespace[:300]!r}: it must be 1 to 256 printable characters"
        )


@attrs.frozen(kw_only=True)
class KnownListener:
    """A listener of our namespace, by its own signed word."""

    peer_id: PeerId
    """Who."""

    addresses: tuple[str, ...]
    """Where."""

    incarnation: int
    """Grows each time it starts."""


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
            except NetworkError as error:
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
        frames = Frames(stream)
        lost: list[PunchError] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew, frames, nursery.cancel_scope, lost)
                nursery.start_soon(self._follow, frames, nursery.cancel_scope, lost)
        except BaseException:
            # We are leaving: tell the bootstrap, which otherwise waits for the expiry.
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await farewell(frames, Goodbye(code="bye", message="leaving"))
            raise
        finally:
            await stream.aclose()
        raise lost[0]

    async def _renew(self, frames: Frames, scope: trio.CancelScope, lost: list[PunchError]) -> None:
        try:
            while True:
                registration = Registration(
                    peer_id=self._node.peer_id,
                    namespace=self._namespace,
                    role=self._role,
                    addresses=self._addresses(),
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

    def _addresses(self) -> tuple[str, ...]:
        """Where we can be dialled: as many addresses as a registration takes."""
        return self._node.addresses[:MAX_ADDRESSES] if self._role == "listener" else ()

    async def _follow(
        self, frames: Frames, scope: trio.CancelScope, lost: list[PunchError]
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
            registration = opened(self._node, join)
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
    check_namespace(namespace)
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
