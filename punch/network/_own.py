"""Which addresses this machine has now, and which of them lead to a place or are meant by one.

Nothing is kept: a lease ends, a cable is pulled, and the next call says what there is then. A name
is looked up without holding up anything else, for a bounded time.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable

import attrs
import psutil
import trio

from ._address import Address, plain_ip

_FAMILIES = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}

# A resolver asks each of its servers for five seconds, and again: whoever waits for that waits for
# half a minute. A name that is known at all is known within a second.
NAME_SECONDS = 5.0

# What each family calls all the addresses that a machine has.
WILDCARDS = {"ip4": "0.0.0.0", "ip6": "::"}  # noqa: S104 - Named, not bound.


Wanted = Callable[[], Awaitable[tuple[str, ...]]]
"""Says where to listen now, as multiaddresses, port 0 for any; nothing if there is no way out."""


async def resolve(address: Address) -> tuple[Address, ...]:
    """The same address with IP addresses in place of a name.

    Asks the operating system, which knows ``/etc/hosts`` and mDNS; libp2p asks DNS alone.

    Raises:
      OSError: if the name is not known.
      trio.TooSlowError: if nobody says so within `NAME_SECONDS`.

    """
    if not address.is_name:
        return (address,)
    with trio.fail_after(NAME_SECONDS):
        found = await trio.socket.getaddrinfo(
            address.host, address.port, _FAMILIES[address.kind], socket.SOCK_STREAM
        )
    kinds = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    return tuple(
        dict.fromkeys(
            attrs.evolve(address, kind=kinds[family], host=str(where[0]))
            for family, _, _, _, where in found
            if family in kinds
        )
    )


def own_hosts() -> tuple[str, ...]:
    """The IP addresses of this machine's interfaces that are up, without their zones, in order."""
    up = {name for name, status in psutil.net_if_stats().items() if status.isup}
    found = (
        entry.address.partition("%")[0]
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family in (socket.AF_INET, socket.AF_INET6)
    )
    return tuple(dict.fromkeys(found))


def own_links() -> dict[str, str]:
    """The link-local addresses of interfaces that are up, each with its zone; of IPv4 an empty one.

    Of an address that two interfaces have, which is allowed, the first.
    """
    up = {name for name, status in psutil.net_if_stats().items() if status.isup}
    found: dict[str, str] = {}
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if name not in up or entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            host, _, zone = entry.address.partition("%")
            if ipaddress.ip_address(host).is_link_local:
                found.setdefault(host, (zone or name) if ":" in host else "")
    return found


def links_to(address: Address) -> tuple[Address, ...]:
    """*address* itself; a link-local one of IPv6 without a zone on each of our links."""
    if address.kind != "ip6" or address.zone or not address.is_link_local():
        return (address,)
    zones = dict.fromkeys(zone for host, zone in own_links().items() if ":" in host)
    return tuple(attrs.evolve(address, zone=zone) for zone in zones)


def is_this_machine(ip: str) -> bool:
    """True if *ip* is an address of this machine, as it has them now."""
    ip = plain_ip(ip)
    if ipaddress.ip_address(ip).is_link_local:
        # A machine on another link may have the same one (RFC 4291, section 2.5.6).
        return False
    # The loopback network has millions of addresses, and the interface lists one.
    return ipaddress.ip_address(ip).is_loopback or ip in own_hosts()


async def places_here(address: Address) -> tuple[Address, ...]:
    """Where to listen on this machine to be at *address*; nothing if that is another machine's.

    A name of this machine may stand for loopback here and for a real address elsewhere: Debian
    files it under 127.0.1.1. Then it means all the addresses that this machine has.
    """
    own = own_hosts()
    here = tuple(
        each
        for each in await _known(address)
        # The loopback network of IPv4 has millions of addresses, and the interface lists one.
        if each.host in own
        or each.host in WILDCARDS.values()
        or (each.kind == "ip4" and each.is_loopback())
    )
    if not here or not _hides_its_machine(address, here):
        return here
    kinds = dict.fromkeys(each.kind for each in here)
    return tuple(attrs.evolve(address, kind=kind, host=WILDCARDS[kind]) for kind in kinds)


async def ways_to(address: Address) -> tuple[str, ...]:
    """Our own IP addresses on the ways to *address*: where peers there reach us.

    Nothing if there is no way now, or the name is not known. All addresses (``0.0.0.0``) if the
    name is this machine's own and stands for loopback.
    """
    places = await _known(address)
    if _hides_its_machine(address, places):
        return tuple(dict.fromkeys(WILDCARDS[place.kind] for place in places))
    ways = (_way_to(place) for place in places)
    return tuple(dict.fromkeys(way for way in ways if way is not None))


async def _known(address: Address) -> tuple[Address, ...]:
    try:
        return await resolve(address)
    except (OSError, ValueError, trio.TooSlowError):
        # Resolvers have rules of their own for names. Whoever dials will hear of it.
        return ()


def _hides_its_machine(address: Address, places: tuple[Address, ...]) -> bool:
    if not address.is_name or address.host.rstrip(".").lower() == "localhost" or not places:
        return False
    return all(place.is_loopback() for place in places)


def _way_to(place: Address) -> str | None:
    family = socket.AF_INET6 if place.kind == "ip6" else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # No packet is sent: connecting a datagram socket only looks up the route.
            probe.connect((place.host, place.port or 9))
            host = str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return None
    # A link-local address means nothing without the name of an interface.
    return None if ipaddress.ip_address(host).is_link_local else host
