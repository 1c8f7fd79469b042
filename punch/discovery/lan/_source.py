"""The LAN as a source of the directory: what is heard by mDNS, once it has proved who it is.

1. What a record says is believed of nobody: a peer is listed when it has shown a registration that
   it signed itself, on a stream on which it has proved its identity.
2. A peer is listed for as long as that stream lasts, whatever mDNS still remembers.
3. That nobody is heard says little: the LAN may carry no multicast. So this source is no reason to
   think that we are in the namespace unless somebody was found, and what keeps it from hearing is
   told as its trouble, beside all that works without it.

Which interfaces there are is decided by `_interfaces`, and how records travel by `_multicast`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import trio

from ..._logs import get_logger
from ...access import Refusal
from ...capability import PeerId
from ...exceptions import NetworkError, PeerUnreachable, RemoteProtocolError
from ...network import Node
from ...wire import Join, Registration, decode_registration
from .._quiet import Lasting
from .._source import Announce, Found, Sighting
from ._asking import PROTOCOL, Teller, ask
from ._candidates import Candidate, Candidates
from ._hearing import Hearing, host_of
from ._multicast import Event, Lan, Multicast
from ._records import Failed, Heard, Interface, Said, Unheard, parse, said_on
from ._tags import SALT_BYTES, LanKey
from ._warning import warn_of_closed

log = get_logger(__name__)

# Peers that are followed at a time, each on a stream: by a dialer all of a large LAN; by a listener
# of a closed namespace a few, whose addresses it remembers to come back through.
MAX_FOLLOWED = 256
MAX_FOLLOWED_BY_LISTENERS = 8

# New peers that are dialled at a time.
MAX_DIALED = 16

# How often it is looked whether mDNS works, in seconds.
LOOK_SECONDS = 2.0

# After a flood in which records were dropped, all are asked for anew; at most so often.
ANEW_SECONDS = 30.0


class LanSource:
    """Finds the members of a namespace on our LANs, and is found there.

    Args:
      node: Our own node.
      lan: The multicast and its interfaces.
      namespace: Name of the namespace.
      root: The public key of its root, if it is closed.
      joins: Whether newcomers may ask us to be let in.
      judge: Says why a registration that somebody has shown does not count, if it does not.
      is_barred: Says who is told nothing, though it knows the namespace.

    """

    name = "LAN"

    def __init__(
        self,
        node: Node,
        lan: Lan,
        *,
        namespace: str,
        root: bytes | None = None,
        joins: bool = False,
        judge: Callable[[Join, Registration], Refusal | None] = lambda join, registration: None,
        is_barred: Callable[[PeerId], bool] = lambda peer_id: False,
    ) -> None:
        self._node = node
        self._lan = lan
        self._namespace = namespace
        self._root = root
        self._key = LanKey.of_open(namespace) if root is None else LanKey.of_closed(root)
        self._joins = joins
        self._judge = judge
        self._is_barred = is_barred
        # Another each time we start, so that nobody is followed from LAN to LAN by them.
        self._salt = secrets.token_bytes(SALT_BYTES)
        self._instance = secrets.token_hex(8)
        self._candidates = Candidates()
        self._changed = trio.Event()
        self._listed: set[PeerId] = set()
        self._lasting = Lasting()
        self._hearing = Hearing({}, now=0.0)
        self._is_asked = self._seen_closed = self._has_lost = False

    async def run(self, announce: Announce, found: Found) -> None:
        """Say and hear, for ever."""

        def asked() -> None:
            # Somebody of the namespace has found us, so we are in it.
            self._is_asked = True
            self._report(found)

        teller = Teller(self._node, self._key, announce, is_barred=self._is_barred, asked=asked)
        self._node.handle(PROTOCOL, teller.serve)
        self._report(found)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_all, announce, found)
                nursery.start_soon(self._look, announce, found)
                while True:
                    await self._open(announce)
        finally:
            teller.close()

    async def _open(self, announce: Announce) -> None:
        """Say and hear, until the machine's addresses are others."""
        moved = self._node.moved
        is_shown = decode_registration(announce().registration).is_shown
        said = {each: self._said_on(each) if is_shown else None for each in self._lan._interfaces()}
        self._hearing = Hearing(said, now=trio.current_time(), names=self._lan._names)
        is_here = self._is_for_this_machine_only()
        if is_here:
            log.info(
                "this program listens on loopback alone, so that nothing is said on the LAN",
                addresses=self._node.addresses,
            )
        if not said or is_here:
            await moved.wait()
            return
        async with self._lan._open(said) as multicast:
            await self._hear(multicast, moved)

    def _is_for_this_machine_only(self) -> bool:
        """True if we listen where no other machine comes: then we are none of their business."""
        hosts = [host_of(each) for each in (*self._node.addresses, *self._node.on_link)]
        return bool(hosts) and all(ip is not None and ip.is_loopback for ip in hosts)

    def _said_on(self, interface: Interface) -> Said | None:
        return said_on(
            interface,
            (*self._node.addresses, *self._node.on_link),
            peer_id=self._node.peer_id,
            instance=self._instance,
            key=self._key,
            salt=self._salt,
            closed_name=None if self._root is None else self._namespace,
            joins=self._joins,
        )

    # ---- what is heard ----

    async def _hear(self, multicast: Multicast, moved: trio.Event) -> None:
        """Take what is heard until the machine's addresses are others, or too much was lost."""
        self._has_lost = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take, multicast.events)
            while True:
                with trio.move_on_after(ANEW_SECONDS) as pause:
                    await moved.wait()
                if not pause.cancelled_caught or self._has_lost or multicast.lost:
                    break
            nursery.cancel_scope.cancel()

    async def _take(self, events: trio.MemoryReceiveChannel[Event]) -> None:
        async for event in events:
            if isinstance(event, Failed):
                self._hearing.failed(event.interface, event.why)
            elif isinstance(event, Unheard):
                self._candidates.unhear(event.interface, event.instance)
            elif event.instance == self._instance:
                self._hearing.echoed(event.interface)
            elif self._candidates.has_time_for_a_record(trio.current_time()):
                self._take_record(event)
            else:
                self._has_lost = True

    def _take_record(self, heard: Heard) -> None:
        interface = self._hearing.interfaces.get(heard.interface)
        record = None if interface is None else parse(heard, interface)
        if record is None or record.peer_id == self._node.peer_id:
            return
        if record.is_of(self._key):
            if self._candidates.hear(record, now=trio.current_time()) is not None:
                self._signal()
        elif self._root is None and not self._seen_closed and record.is_named(self._namespace):
            self._seen_closed = True
            warn_of_closed(self._namespace, record)

    def _signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ---- who is followed ----

    async def _follow_all(self, announce: Announce, found: Found) -> None:
        """Follow as many candidates as we have a use for, for ever."""
        dialed = trio.CapacityLimiter(MAX_DIALED)
        async with trio.open_nursery() as nursery:
            while True:
                changed, altered = self._changed, announce.altered
                limit = _limit(announce, is_closed=self._root is not None)
                while sum(each.is_followed for each in self._candidates) < limit:
                    chosen = self._candidates.next_due(trio.current_time())
                    if not isinstance(chosen, Candidate):
                        break
                    self._candidates.began(chosen)
                    nursery.start_soon(self._follow, chosen, dialed, found)
                due = self._candidates.next_due(trio.current_time())
                deadline = due if isinstance(due, float) else trio.current_time() + LOOK_SECONDS
                with trio.move_on_at(deadline):
                    async with trio.open_nursery() as waiting:
                        for event in (changed, altered):
                            waiting.start_soon(_wait, event, waiting.cancel_scope)

    async def _follow(
        self, candidate: Candidate, dialed: trio.CapacityLimiter, found: Found
    ) -> None:
        """Follow one candidate until its stream ends."""
        peer_id = candidate.peer_id
        has_turn = True
        await dialed.acquire_on_behalf_of(candidate)

        def give_back() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                dialed.release_on_behalf_of(candidate)

        def told(join: Join, registration: Registration) -> None:
            if registration.namespace != self._namespace:
                raise RemoteProtocolError(f"{peer_id} is no member of this namespace")
            refusal = self._judge(join, registration)
            if refusal is not None:
                raise RemoteProtocolError(f"{peer_id} is not let in: {refusal.reason}")
            give_back()
            places = candidate.on_link
            if not candidate.was_met:
                log.info("found on LAN", peer=peer_id, addresses=(*registration.addresses, *places))
            self._candidates.met(candidate)
            self._listed.add(peer_id)
            self._report(found, present=(registration,), on_link={peer_id: places})

        why = ""
        try:
            addresses = tuple(map(str, candidate.addresses))
            await ask(self._node, self._key, peer_id, addresses, told)
        except (PeerUnreachable, RemoteProtocolError) as error:
            why = error.message
        finally:
            give_back()
            self._candidates.ended(candidate, now=trio.current_time())
            self._signal()
        log.debug("not followed on the LAN any more", peer=peer_id, why=why)
        if peer_id in self._listed:
            self._listed.discard(peer_id)
            self._report(found, gone=(peer_id,))

    def _report(
        self,
        found: Found,
        *,
        present: tuple[Registration, ...] = (),
        gone: tuple[PeerId, ...] = (),
        on_link: Mapping[PeerId, tuple[str, ...]] | None = None,
    ) -> None:
        found(
            Sighting(
                present=present,
                gone=gone,
                on_link=on_link or {},
                is_ordered=True,
                needs_members=not self._is_asked,
            )
        )

    # ---- what keeps us from hearing ----

    async def _look(self, announce: Announce, found: Found) -> None:
        """Tell what keeps us from hearing and being heard, when it comes and when it goes."""
        last = None
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = trio.current_time()
            why = None
            if not self._is_for_this_machine_only():
                why = self._hearing.trouble(
                    announce.known(), hears_members=bool(self._listed), now=now
                )
            if why is None:
                if self._lasting.ended(now) is not None:
                    log.info("the LAN is heard again")
                if last is not None:
                    self._report(found)
            else:
                if self._lasting.goes_on(now):
                    log.warning("mDNS does not work here; all else does", why=why)
                if why != last:
                    found(Sighting(trouble=NetworkError(why), needs_members=True))
            last = why


def _limit(announce: Announce, *, is_closed: bool) -> int:
    """How many peers we have a use for."""
    if "dialer" in decode_registration(announce().registration).roles:
        return MAX_FOLLOWED
    return MAX_FOLLOWED_BY_LISTENERS if is_closed else 0


async def _wait(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
