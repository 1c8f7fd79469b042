"""Which networks are this machine's own: private ones that an interface of it is in.

What has no protection of its own is looked for, and talked to, in these alone.
"""

from __future__ import annotations

import ipaddress
import socket

import psutil
import trio

from ._own import NAME_SECONDS

OwnNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
"""A network that an interface of this machine is in."""


def own_networks() -> tuple[OwnNetwork, ...]:
    """The private networks of this machine's interfaces that are up; loopback's comes with them.

    An address that the internet routes is in none: the neighbours there are strangers.
    """
    up = {name for name, status in psutil.net_if_stats().items() if status.isup}
    found: list[OwnNetwork] = []
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if name not in up or entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            host, bits = entry.address.partition("%")[0], entry.netmask
            try:
                network = ipaddress.ip_network(f"{host}/{_length(bits)}", strict=False)
            except ValueError:
                continue  # An interface without a netmask reaches nobody.
            if network.is_private and not network.is_unspecified:
                found.append(network)
    return tuple(dict.fromkeys(found))


def _length(netmask: str | None) -> int:
    """The length of a network's prefix; psutil writes IPv6's as an address, too."""
    if netmask is None:
        raise ValueError("no netmask")
    return int(ipaddress.ip_address(netmask.partition("/")[0])).bit_count()


async def own_address(host: str) -> str | None:
    """The IP address of *host*, which may be a name, in one of `own_networks`; `None` without one.

    A name is looked up anew each time, and what is talked to is the address that was checked.
    """
    try:
        with trio.fail_after(NAME_SECONDS):
            found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, trio.TooSlowError):
        return None
    return next((str(each[4][0]) for each in found if is_in_own_network(str(each[4][0]))), None)


def is_in_own_network(ip: str) -> bool:
    """True if *ip* is loopback, or an address in one of `own_networks`."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    return address.is_loopback or any(address in network for network in own_networks())
