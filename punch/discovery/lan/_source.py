"""The LAN as a source of the directory: what is heard by mDNS, once it has proved who it is.

1. What a record says is believed of nobody: a peer is listed when it has shown a registration that
   it signed itself, on a stream on which it has proved its identity.
2. A peer is listed for as long as that stream lasts, whatever mDNS still remembers.
3. That nobody is heard says little: the LAN may carry no multicast. So this source is no reason to
   think that we are in the namespace unless somebody was found, and what keeps it from hearing is
   told as its trouble, beside all that works without it.

Which interfaces there are is decided by `_interfaces`, how records travel by `_multicast`, and who
of those that are heard is followed by `_following`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import trio

from ..._logs import get_logger
from ...access import Refusal
from ...capability import PeerId
from ...exceptions import NetworkError
from ...network import Node
from ...wire import Join, Registration, decode_registration
from .._quiet import Lasting
from .._source import Announce, Found, Sighting
from ._asking import PROTOCOL, Teller
from ._following import Following
from ._hearing import Hearing, host_of
from ._multicast import Event, Lan, Multicast
from ._records import Failed, Heard, Interface, Said, Unheard, parse, said_on
from ._tags import SALT_BYTES, LanKey
from ._warning import warn_of_closed

log = get_logger(__name__)

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
      order: Puts peers of a closed namespace in an order that all its members agree on.

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
        order: Callable[[Iterable[PeerId]], Collection[PeerId]] = sorted,
    ) -> None:
        self._node = node
        self._lan = lan
        self._namespace = namespace
        self._root = root
        self._key = LanKey.of_open(namespace) if root is None else LanKey.of_closed(root)
        self._joins = joins
        self._is_barred = is_barred
        # Another each time we start, so that nobody is followed from LAN to LAN by them.
        self._salt = secrets.token_bytes(SALT_BYTES)
        self._instance = secrets.token_hex(8)
        self._following = Following(
            node,
            name=self.name,
            namespace=namespace,
            key=self._key,
            is_closed=root is not None,
            judge=judge,
            order=order,
        )
        self._lasting = Lasting()
        self._hearing = Hearing({}, now=0.0)
        self._is_asked = self._is_in_trouble = self._seen_closed = self._has_lost = False

    async def run(self, announce: Announce, found: Found) -> None:
        """Say and hear, for ever."""

        def asked() -> None:
            # Somebody of the namespace has found us, so we are in it. It asks as long as it lives.
            if not self._is_asked or self._is_in_trouble:
                self._is_asked = True
                self._report(found)

        teller = Teller(self._node, self._key, announce, is_barred=self._is_barred, asked=asked)
        self._node.handle(PROTOCOL, teller.serve)
        self._report(found)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._following.run, announce, partial(self._report, found))
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
                self._following.candidates.unhear(event.interface, event.instance)
            elif event.instance == self._instance:
                self._hearing.echoed(event.interface)
            elif self._following.candidates.has_time_for_a_record(trio.current_time()):
                self._take_record(event)
            else:
                self._has_lost = True

    def _take_record(self, heard: Heard) -> None:
        interface = self._hearing.interfaces.get(heard.interface)
        record = None if interface is None else parse(heard, interface)
        if record is None or record.peer_id == self._node.peer_id:
            return
        if record.is_of(self._key):
            if self._following.candidates.hear(record, now=trio.current_time()) is not None:
                self._following.changed()
        elif self._root is None and not self._seen_closed and record.is_named(self._namespace):
            self._seen_closed = True
            warn_of_closed(self._namespace, record)

    def _report(
        self,
        found: Found,
        *,
        present: tuple[Registration, ...] = (),
        gone: tuple[PeerId, ...] = (),
        on_link: Mapping[PeerId, tuple[str, ...]] | None = None,
    ) -> None:
        self._is_in_trouble = False
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
                    announce.known(), hears_members=self._following.hears_members, now=now
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
                    self._is_in_trouble = True
                    found(Sighting(trouble=NetworkError(why), needs_members=True))
            last = why
