"""Dials back the listeners that register, so that one that cannot be reached is told so.

1. Only the address that a listener's own connection comes from is dialled, at the ports that it
   announces. Whoever announces another's address has nothing dialled there.
2. The rate is bounded: by peer, by the address that it comes from, and in all. What is too much now
   is dialled later, when the peer renews its registration.
3. A verdict is shown and decides nothing: a listener that this machine cannot reach may be reached
   by others.

A listener on the bootstrap's own machine is dialled past its firewall: that it answers says
nothing, and is not told.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

import attrs
import trio

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import ConfigurationError, PeerUnreachable
from ..network import Address, Node, is_this_machine, parse_address
from ..wire import NamespaceId, Reach, Registration, name_of

log = get_logger(__name__)

# A listener announces one port, or one for each transport.
MAX_PORTS = 2

# A listener that nobody reaches is dialled again soon: a person is mending it. One that is reached
# is dialled now and then, since firewalls change.
MIN_AGAIN_SECONDS = 10.0
MAX_AGAIN_SECONDS = 300.0

# Dials at a time and in all, and from one address: a hundred listeners that start together are all
# dialled within half a minute, and one host with a thousand identities is not served sooner.
MAX_DIALS_AT_A_TIME = 8
MAX_DIALS_A_SECOND = 4
MAX_HOST_DIALS = 4
HOST_SECONDS = 10.0

# A listener is told of the troubles of members this seldom: they are many, and one may lie.
REPORT_SECONDS = 60.0

# Addresses whose dials are remembered, for `HOST_SECONDS` each.
MAX_HOSTS = 1024


@attrs.define(eq=False)
class _Known:
    """What is known of one listener."""

    places: tuple[Address, ...] = ()
    """Where it was dialled, or will be."""

    next_at: float = 0.0
    """When it may be dialled again."""

    again: float = MIN_AGAIN_SECONDS
    """Seconds until then, the next time."""

    verdict: Reach | None = None
    """What came of it; `None` before, and if it says nothing."""

    is_queued: bool = False
    """True while its turn is awaited, or it is dialled."""

    namespace: NamespaceId = ""
    """The namespace that it is registered in."""

    reported_at: float = -REPORT_SECONDS
    """When it was last told that a member could not dial it."""


def places_to_dial(registration: Registration, host: str) -> tuple[Address, ...]:
    """Rule 1: *host*, at the ports that are announced.

    Args:
      registration: Of a listener.
      host: The IP address that the listener's connection comes from.

    """
    found: dict[Address, None] = {}
    if ipaddress.ip_address(host).is_link_local:
        return ()  # Its link is not told, and the listener is met on it by other ways.
    for text in registration.addresses:
        try:
            announced = parse_address(text)
        except ConfigurationError:
            continue
        if announced.port:
            kind = "ip6" if ":" in host else "ip4"
            place = attrs.evolve(announced, kind=kind, host=host, peer_id=None, zone="")
            found[place] = None
    return tuple(found)[:MAX_PORTS]


class DialBack:
    """Dials listeners back.

    Args:
      node: The bootstrap's node.
      told: Called with the namespace and the verdict when a verdict has changed.

    """

    def __init__(self, node: Node, told: Callable[[NamespaceId, Reach], None]) -> None:
        self._node = node
        self._told = told
        self._known: dict[PeerId, _Known] = {}
        # When each address was dialled lately.
        self._hosts: OrderedDict[str, list[float]] = OrderedDict()
        self._next_at = 0.0
        self._send, self._receive = trio.open_memory_channel[tuple[NamespaceId, PeerId]](MAX_HOSTS)

    def verdicts(self, namespace: NamespaceId) -> dict[tuple[PeerId, str], Reach]:
        """What is known of the listeners of a namespace, by each and who dialled it."""
        return {
            (peer_id, known.verdict.by): known.verdict
            for peer_id, known in self._known.items()
            if known.namespace == namespace and known.verdict is not None
        }

    def reported(self, namespace: NamespaceId, reach: Reach) -> None:
        """A member could not dial a listener: the listener is told, now and then."""
        now, known = trio.current_time(), self._known.get(reach.peer_id)
        if known is None or known.namespace != namespace or reach.ok:
            return
        if now - known.reported_at >= REPORT_SECONDS:
            known.reported_at = now
            # What we found ourselves may be old.
            known.next_at = min(known.next_at, now + MIN_AGAIN_SECONDS)
            self._told(namespace, attrs.evolve(reach, by="member"))

    def forget(self, peer_id: PeerId) -> None:
        """A peer has left."""
        self._known.pop(peer_id, None)

    def consider(
        self,
        registration: Registration,
        host: str | None,
        *,
        namespace: NamespaceId | None = None,
    ) -> None:
        """A listener has registered, or registered again: dial it if it is time.

        Args:
          registration: What it says.
          host: The IP address that it comes from; `None` if that is not known.
          namespace: Where it has registered; by default the open namespace that it names.

        """
        if host is None or not registration.is_listener:
            return
        now = trio.current_time()
        places = places_to_dial(registration, host)
        known = self._known.setdefault(registration.peer_id, _Known())
        known.namespace = registration.namespace if namespace is None else namespace
        if places != known.places:
            # Once a peer's places change, what was found at the old ones is no word on it. Rule 2:
            # it is dialled no sooner for changing them over and over.
            known.places, known.again = places, MIN_AGAIN_SECONDS
            known.next_at = min(known.next_at, now + MIN_AGAIN_SECONDS)
        if not places or known.is_queued or now < known.next_at or not self._may_dial(host, now):
            return
        try:
            self._send.send_nowait((known.namespace, registration.peer_id))
        except trio.WouldBlock:
            return
        known.is_queued = True

    def _may_dial(self, host: str, now: float) -> bool:
        """Rule 2: whether *host* may have one more dial; counts it."""
        lately = [at for at in self._hosts.pop(host, []) if at > now - HOST_SECONDS]
        may = len(lately) < MAX_HOST_DIALS
        if may:
            lately.append(now)
        self._hosts[host] = lately
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return may

    async def run(self) -> None:
        """Dial those whose turn it is, for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_DIALS_AT_A_TIME):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            namespace, peer_id = await self._receive.receive()
            now = trio.current_time()
            self._next_at = max(self._next_at, now) + 1.0 / MAX_DIALS_A_SECOND
            await trio.sleep_until(self._next_at - 1.0 / MAX_DIALS_A_SECOND)
            known = self._known.get(peer_id)
            if known is not None:
                await self._dial(namespace, peer_id, known)

    async def _dial(self, namespace: NamespaceId, peer_id: PeerId, known: _Known) -> None:
        places = known.places
        verdict = None
        for place in places:
            found = await self._try(peer_id, place)
            if found is not None and (verdict is None or found.ok):
                verdict = found
            if verdict is not None and verdict.ok:
                break
        known.is_queued = False
        is_well = verdict is None or verdict.ok
        known.next_at = trio.current_time() + (MAX_AGAIN_SECONDS if is_well else known.again)
        known.again = MIN_AGAIN_SECONDS if is_well else min(2 * known.again, MAX_AGAIN_SECONDS)
        if places != known.places or self._known.get(peer_id) is not known:
            return  # It has moved, or left, meanwhile.
        if verdict is not None and verdict.ok and is_this_machine(places[0].host):
            # Past the firewall: only that a trouble is over can be told.
            verdict = None if known.verdict is None else verdict
        before, known.verdict = known.verdict, verdict
        if verdict is None or verdict == before:
            return
        if not verdict.ok:
            log.info(
                "a listener cannot be reached",
                peer=peer_id,
                namespace=name_of(namespace),
                address=verdict.address,
                why=verdict.why,
            )
        elif before is not None:
            log.info("a listener can be reached again", peer=peer_id, address=verdict.address)
        self._told(namespace, verdict)

    async def _try(self, peer_id: PeerId, place: Address) -> Reach | None:
        """Dial *place*; `None` if this node does not dial such addresses."""
        try:
            found = await self._node.identify(str(place))
        except PeerUnreachable as error:
            if error.why is None:
                return None
            return Reach(peer_id=peer_id, ok=False, address=str(place), why=error.why)
        why = "" if found == peer_id else "other_peer"
        return Reach(peer_id=peer_id, ok=not why, address=str(place), why=why)
