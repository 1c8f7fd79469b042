"""Decides which addresses of others a peer dials, whoever names them. No I/O.

An address is another peer's word. Some mean something else on each machine that reads them, so that
whoever announces them would have every reader knock at its own doors, or at its cloud's.
"""

from __future__ import annotations

import ipaddress

from ._address import Address

_IPv4 = ipaddress.IPv4Address
_IPv6 = ipaddress.IPv6Address

# RFC 6052, section 2.1, and RFC 8215: an IPv4 address in the last 32 bits.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))

# RFC 4291, section 2.5.5.1: the old form of the same, which some systems still dial.
_COMPATIBLE = ipaddress.IPv6Network("::/96")

# RFC 1122, section 3.2.1.3, and RFC 1112: "this network", and what is reserved with the broadcast.
_NOWHERE = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "240.0.0.0/4")))


def unfit(address: Address) -> str | None:
    """Why nobody but its own machine dials *address*, in a few words; `None` if others may."""
    if address.is_name:
        # Whoever is asked for it learns who asks, and may answer with any address.
        return "it is a name, and names of others are not looked up"
    if address.port == 0:
        return "its port is 0"
    return next(
        (why for ip in _meanings(ipaddress.ip_address(address.host)) if (why := _unfit(ip))), None
    )


def _meanings(ip: _IPv4 | _IPv6) -> tuple[_IPv4 | _IPv6, ...]:
    """The address itself, and the IPv4 address that is written in it, if one is."""
    if isinstance(ip, _IPv4):
        return (ip,)
    inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if any(ip in network for network in _TRANSLATED) or (ip in _COMPATIBLE and int(ip) > 1):
        inner.append(_IPv4(int(ip) & 0xFFFF_FFFF))
    return (ip, *(each for each in inner if each is not None))


def _unfit(ip: _IPv4 | _IPv6) -> str | None:
    if ip.is_loopback:
        return "it is a loopback address, which is another machine for each who dials it"
    if ip.is_link_local:
        return "it is a link-local address, which means nothing without its interface"
    if ip.is_multicast:
        return "it is a multicast address"
    if ip.is_unspecified or (isinstance(ip, _IPv4) and any(ip in each for each in _NOWHERE)):
        return "it is no address of one machine"
    return None
