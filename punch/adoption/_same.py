"""Decides which addresses lead to one engine. No I/O: names were looked up before.

All that leads to this machine is one host here, whatever it is called: loopback, an own address, a
name that is looked up to one of them. Two programs that share a port of it, on different addresses,
count as one, which is the safe side: an engine that is adopted twice promises its slots twice.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

import attrs

THIS_MACHINE = "this machine"

_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Engine:
    """One way of saying which engine is meant; the same engine may have several."""

    host: str
    """An IP address, a name in small letters, or `THIS_MACHINE`."""

    port: int
    path: str
    """What comes before ``/v1``."""


def engines_at(
    url: str, *, own: Collection[str], addresses: Iterable[str] = ()
) -> frozenset[Engine]:
    """All ways of saying which engine is at *url*.

    Two addresses lead to one engine if they have a way in common.

    Args:
      url: Address of the server, with or without ``/v1``.
      own: IP addresses of this machine.
      addresses: IP addresses that its host was looked up to; none if it could not be.

    """
    parts = urlsplit(url if "://" in url else f"//{url}")
    try:
        port = parts.port or _PORTS.get(parts.scheme, 80)
    except ValueError:
        return frozenset()
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    hosts = {_host(each, own) for each in (parts.hostname or "", *addresses)}
    return frozenset(Engine(host, port, path) for host in hosts if host)


def _host(text: str, own: Collection[str]) -> str:
    name = text.partition("%")[0].rstrip(".").lower()
    # RFC 6761, section 6.3.
    if name == "localhost" or name.endswith(".localhost"):
        return THIS_MACHINE
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    is_own = address.is_loopback or address.is_unspecified or str(address) in own
    return THIS_MACHINE if is_own else str(address)
