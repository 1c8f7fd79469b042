"""Decides which interfaces of this machine have a LAN behind them.

Left alone unless they are asked for by name: those of VPNs and tunnels, where mDNS would be carried
to other places, and those of containers and virtual machines on this machine.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

import psutil

from ._records import Interface

# Each is a few sockets and a share of a thread. A machine has two.
MAX_INTERFACES = 8

# How VPNs name theirs: WireGuard, OpenVPN, Tailscale, ZeroTier, PPP, IPsec, Nebula; macOS has utun
# for all of them. Then AirDrop's, and those of containers and virtual machines.
_NOT_LANS = (
    *("wg", "tun", "tap", "tailscale", "zt", "ppp", "ipsec", "nebula", "utun", "vpn", "nordlynx"),
    *("proton", "mullvad", "awdl", "llw", "docker", "br-", "veth", "virbr", "vmnet", "vboxnet"),
    *("cni", "flannel", "cali", "lxc", "podman", "vEthernet", "bridge", "anpi", "gif", "stf"),
)

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def is_lan(name: str, flags: Collection[str]) -> bool:
    """True if an interface called *name* with these *flags* of the system is one of a LAN.

    Args:
      name: Such as ``eth0``.
      flags: As `psutil.net_if_stats` has them; empty where the system tells none.

    """
    if {"loopback", "pointopoint"} & set(flags) or (flags and "multicast" not in flags):
        return False
    return not name.lower().startswith(tuple(each.lower() for each in _NOT_LANS))


def lan_interfaces(names: Collection[str] = ()) -> tuple[Interface, ...]:
    """The interfaces to use now, each with its addresses.

    Args:
      names: Those to use, VPNs included; by default all that have a LAN behind them.

    """
    found = []
    stats = psutil.net_if_stats()
    for name, entries in psutil.net_if_addrs().items():
        state = stats.get(name)
        flags = [] if state is None else [f for f in state.flags.split(",") if f]
        is_wanted = name in names if names else is_lan(name, flags)
        if state is None or not state.isup or not is_wanted:
            continue
        networks = [
            network
            for entry in entries
            if entry.family in _FAMILIES
            and (network := _network(entry.address, entry.netmask)) is not None
        ]
        if networks:
            index = _index(name)
            found.append(Interface(name=name, index=index, networks=tuple(sorted(networks))))
    return tuple(sorted(found, key=lambda each: each.index))[:MAX_INTERFACES]


def _network(address: str, netmask: str | None) -> str | None:
    """An address with the length of its prefix; `None` if nothing is behind it."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_loopback:
        return None
    if netmask is None:
        return f"{ip}/{'24' if ip.version == 4 else '64'}"
    bits = int(ipaddress.ip_address(netmask.partition("%")[0].partition("/")[0]))
    return f"{ip}/{bits.bit_count()}"


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
