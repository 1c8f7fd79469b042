"""Listens for a node, and keeps listening where it should while the machine's addresses change.

1. A listening address is given up only when the machine no longer has it: what was told to others
   an hour ago works for as long as it can.
2. A port that was found stays, whatever the addresses are: firewalls have rules about it.
3. Where there is no way to anywhere, what is there stays: a cable that is pulled is plugged again.

What to listen on is decided by the function `wanted`; the ports that may be tried by the caller.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Sequence

import attrs
import multiaddr
import trio
from libp2p.network.swarm import Swarm

from .._logs import get_logger
from ..exceptions import AddressUnavailable
from ..network import Address, Wanted, own_hosts
from . import _ports

_log = get_logger(__name__)

# Seconds after which `wanted` is asked again though the machine's addresses are as they were: a
# route may lead elsewhere, and a name may stand for another address.
_ASK_SECONDS = 15.0

# How often it is said that there is no descriptor for another connection, in seconds.
_WARN_SECONDS = 60.0


class _Shortage(logging.Filter):
    """Says in one line a minute what trio says with a traceback, ten times a second.

    Its loop that accepts connections waits then, and goes on; nothing else is wrong with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._warn_at = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now >= self._warn_at:
            self._warn_at = now + _WARN_SECONDS
            error = record.exc_info[1] if record.exc_info else None
            _log.warning(
                "no more connections of peers can be accepted: raise the limit of open files "
                "(ulimit -n) if there are to be more",
                why=error.strerror if isinstance(error, OSError) else record.getMessage(),
            )
        return False


_shortage = _Shortage()


class Listening:
    """What a node listens on.

    Args:
      swarm: Holds the listening sockets.
      fixed: Where to listen, if that does not change.
      wanted: Says where to listen otherwise.
      ports: Ports to try in this order for an address with port 0, before any that is free.
      spares_quic: Do without QUIC where its port is taken and TCP's is not.

    """

    def __init__(
        self,
        swarm: Swarm,
        *,
        fixed: Sequence[Address] = (),
        wanted: Wanted | None = None,
        ports: Sequence[int] = (),
        spares_quic: bool = False,
    ) -> None:
        self._swarm = swarm
        self._fixed = tuple(fixed)
        self._wanted = wanted
        self._ports = tuple(ports)
        self._spares_quic = spares_quic
        self._told_of: set[Address] = set()
        # What is to be told to others; the sockets that are open may be more, by rule 1.
        self._current: tuple[Address, ...] = ()
        # What the sockets of those said when they were asked last.
        self._found: tuple[tuple[Address, ...], list[Address]] | None = None
        self._hosts = own_hosts()
        self._asked_at = 0.0

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others can dial, loopback last; without those that one link has."""
        return _ports.expand(self._all_bound())

    @property
    def on_link(self) -> tuple[Address, ...]:
        """Where others on our links can dial beside that."""
        return _ports.on_links(self._all_bound())

    def _all_bound(self) -> list[Address]:
        # Port 0 has become a port. Asked for with every registration: sockets are asked only after
        # there are others, for that takes longer than to sign one.
        if self._found is None or self._found[0] is not self._current:
            bound = [place for address in self._current for place in self._bound(address)]
            self._found = self._current, bound
        return self._found[1]

    def _bound(self, address: Address) -> list[Address]:
        listener = self._swarm.listeners.get(_key(address))
        found = () if listener is None else listener.get_addrs()
        return [_ports.parse_listen(str(each)) for each in found]

    async def start(self) -> None:
        """Listen for the first time.

        Raises:
          AddressUnavailable: if that cannot be.

        """
        # Once, however many nodes there are.
        logging.getLogger("trio.serve_listeners").addFilter(_shortage)
        # Until then QUIC can neither listen nor dial.
        await self._swarm.event_background_nursery_created.wait()
        places = self._fixed or await self._ask()
        if not places and self._wanted is not None:
            # No way out yet, as before the network of a machine is up: found later by `follow`.
            places = (Address(kind="ip4", host="127.0.0.1", transport="tcp", port=0),)
        if places:
            self._current = await self._listen_at_any(places)

    async def follow(self) -> bool:
        """Look whether the machine's addresses are others, and listen there; True if they are."""
        hosts = own_hosts()
        is_due = trio.current_time() - self._asked_at > _ASK_SECONDS
        has_moved = hosts != self._hosts
        if not has_moved and not (is_due and self._wanted is not None):
            return False
        before = self._current
        if self._wanted is not None and (places := await self._ask()):
            places = tuple(self._at_our_port(place) for place in places)
            try:
                self._current = await self._listen_at_any(places)
            except AddressUnavailable as error:
                # An address of IPv6 is the machine's a second before it can be listened on.
                _log.info("cannot listen at the machine's new address yet", why=error.message)
                return False
        self._hosts = hosts
        await self._give_up_but(frozenset(hosts))
        if has_moved or before != self._current:
            _log.info(
                "this machine's addresses are others",
                listening=[str(each) for each in self.addresses],
            )
        return has_moved or before != self._current

    async def _ask(self) -> tuple[Address, ...]:
        self._asked_at = trio.current_time()
        texts = () if self._wanted is None else await self._wanted()
        return tuple(_ports.parse_listen(text) for text in texts)

    def _at_our_port(self, place: Address) -> Address:
        """Rule 2."""
        if place.port:
            return place
        ours = (each for old in self._current for each in self._bound(old))
        return next(
            (
                attrs.evolve(place, port=each.port)
                for each in ours
                if each.transport == place.transport
            ),
            place,
        )

    async def _listen_at_any(self, places: tuple[Address, ...]) -> tuple[Address, ...]:
        """Listen at *places*; where they have port 0, at the first free one of our ports."""
        if all(place.port for place in places):
            return await self._listen(places)
        for port in self._ports:
            chosen = tuple(p if p.port else attrs.evolve(p, port=port) for p in places)
            try:
                listening = await self._listen(chosen)
            except AddressUnavailable as error:
                if not error.is_taken:
                    raise
                continue
            if port != self._ports[0]:
                _log.info("the usual port is taken: listening on the next free one", port=port)
            return listening
        return await self._listen(places)

    async def _listen(self, places: tuple[Address, ...]) -> tuple[Address, ...]:
        """Listen at all of *places*, or at none; libp2p says nothing when it fails."""
        places = tuple(
            place
            for place in places
            if not self._is_spared(place, places) and not self._is_early(place)
        )
        new = [place for place in places if _key(place) not in self._swarm.listeners]
        for place in new:
            _ports.check_free(place)
        if new:
            await self._swarm.listen(*(multiaddr.Multiaddr(_key(place)) for place in new))
        failed = [place for place in new if not self._bound(place)]
        if failed:
            for place in new:
                await self._close(_key(place))
            # Between the check and now another process may have come first.
            for place in failed:
                _ports.check_free(place)
            raise AddressUnavailable(f"cannot listen on {failed[0]}: libp2p does not say why")
        return places

    def _is_spared(self, place: Address, places: tuple[Address, ...]) -> bool:
        """True if the port of QUIC is taken at *place*, and that is no reason not to listen."""
        is_new = _key(place) not in self._swarm.listeners
        if not (self._spares_quic and is_new and place.transport == "quic" and place.port):
            return False
        if place.over("tcp") not in places:
            return False
        try:
            _ports.check_free(place)
        except AddressUnavailable as error:
            if error.is_taken and place not in self._told_of:
                self._told_of.add(place)
                _log.warning(
                    "no QUIC here: its UDP port is taken; TCP is served",
                    address=str(place),
                    why=error.message,
                    hint="WireGuard has UDP port 51820; peers that dial tcp or dual meet here",
                )
            return error.is_taken
        return False

    def _is_early(self, place: Address) -> bool:
        """True if *place* is link-local and cannot be listened on yet; it is no reason to fail.

        The system gives a link such an address by itself, and lets nobody use it for the first
        second (RFC 4862, section 5.4).
        """
        if self._wanted is None or not place.is_link_local():
            return False
        if _key(place) in self._swarm.listeners:
            return False
        try:
            _ports.check_free(place)
        except AddressUnavailable as error:
            if error.is_taken:
                raise
            self._asked_at = -math.inf  # Again at the next look.
            _log.debug("cannot listen on a link yet", why=error.message)
            return True
        return False

    async def _give_up_but(self, hosts: frozenset[str]) -> None:
        """Rule 1: close what the machine no longer has, unless it is asked for by name."""
        if self._wanted is None:
            return
        current = {_key(place) for place in self._current}
        for key in list(self._swarm.listeners):
            host = ipaddress.ip_address(_ports.parse_listen(key).host)
            is_gone = str(host) not in hosts and not (host.is_loopback or host.is_unspecified)
            # What was only a place to wait goes, too, once there is a way out.
            if key not in current and (is_gone or host.is_loopback):
                await self._close(key)

    async def _close(self, key: str) -> None:
        self._found = None
        listener = self._swarm.listeners.pop(key, None)
        if listener is not None:
            await listener.close()


def _key(address: Address) -> str:
    """What the swarm files a listener under."""
    return str(multiaddr.Multiaddr(str(address)))
