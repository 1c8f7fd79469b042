"""Multiaddresses: reading them, owning their ports, and what others can dial."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Iterable
from typing import Final, Literal

import attrs
import psutil
import trio

from ..capability import PeerId
from ..exceptions import AddressUnavailable, ConfigurationError

TransportName = Literal["tcp", "quic"]

_RULE = (
    "an address is /ip4/HOST/tcp/PORT or /ip4/HOST/udp/PORT/quic-v1 (or ip6, dns4, dns6, dns "
    "instead of ip4), such as /ip4/0.0.0.0/tcp/4001"
)
_IP_VERSION: Final = {"ip4": 4, "ip6": 6}
_FAMILIES: Final = {
    "dns": socket.AF_UNSPEC,
    "dns4": socket.AF_INET,
    "dns6": socket.AF_INET6,
}


@attrs.frozen(kw_only=True)
class Address:
    """One address of one transport."""

    kind: str
    """How the host is given: ``ip4``, ``ip6``, ``dns``, ``dns4`` or ``dns6``."""

    host: str
    """An IP address or a name, as `kind` says."""

    port: int
    """TCP or UDP port; 0 stands for any free one."""

    transport: TransportName
    """``tcp`` or ``quic``."""

    peer_id: PeerId | None = None
    """Who is there, if the address says it."""

    def __str__(self) -> str:
        layer = f"tcp/{self.port}" if self.transport == "tcp" else f"udp/{self.port}/quic-v1"
        return f"/{self.kind}/{self.host}/{layer}"


def parse(text: str) -> Address:
    """Read a multiaddress.

    Raises:
      ValueError: if it is none of those that this node speaks. The text names the rule.

    """
    peer_id = None
    match text.split("/"):
        case ["", kind, host, "tcp", port]:
            transport: TransportName = "tcp"
        case ["", kind, host, "tcp", port, "p2p", peer_id]:
            transport = "tcp"
        case ["", kind, host, "udp", port, "quic-v1"]:
            transport = "quic"
        case ["", kind, host, "udp", port, "quic-v1", "p2p", peer_id]:
            transport = "quic"
        case _:
            raise ValueError(f"{text!r} is not an address: {_RULE}")
    _check_host(text, kind, host)
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{text!r} has port {port!r}: a port is a number from 0 to 65535")
    return Address(
        kind=kind,
        host=host,
        port=int(port),
        transport=transport,
        peer_id=None if peer_id is None else PeerId(peer_id),
    )


def _check_host(text: str, kind: str, host: str) -> None:
    if kind in _FAMILIES:
        if not host:
            raise ValueError(f"{text!r} names no host: {_RULE}")
        return
    if kind not in _IP_VERSION:
        raise ValueError(f"{text!r} begins with {kind!r}: {_RULE}")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r} has host {host!r}, which is no IP address: {_RULE}") from None
    if found.version != _IP_VERSION[kind]:
        raise ValueError(f"{text!r} has host {host!r}, which is not {kind}")


def parse_listen(text: str) -> Address:
    """Read an address to listen on: it has an IP address, and no peer id.

    Raises:
      ConfigurationError: if it is none.

    """
    try:
        address = parse(text)
    except ValueError as error:
        raise ConfigurationError(f"cannot listen: {error}") from None
    if address.kind not in _IP_VERSION:
        raise ConfigurationError(
            f"cannot listen on {text!r}: give an IP address of this machine instead of a name, "
            "such as /ip4/0.0.0.0/tcp/4001 for all of them"
        )
    return attrs.evolve(address, peer_id=None)


async def resolve(address: Address) -> tuple[Address, ...]:
    """The same address with IP addresses in place of a name.

    Asks the operating system, which knows ``/etc/hosts`` and mDNS; libp2p asks DNS alone.

    Raises:
      OSError: if the name is not known.

    """
    if address.kind in _IP_VERSION:
        return (address,)
    found = await trio.socket.getaddrinfo(
        address.host, address.port, _FAMILIES[address.kind], socket.SOCK_STREAM
    )
    kinds = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    return tuple(
        attrs.evolve(address, kind=kinds[family], host=str(where[0]))
        for family, _, _, _, where in found
        if family in kinds
    )


def check_free(address: Address) -> None:
    """Make sure that nobody listens on an address.

    Raises:
      AddressUnavailable: if it cannot be listened on. The text says who holds it.

    """
    family = socket.AF_INET6 if address.kind == "ip6" else socket.AF_INET
    kind = socket.SOCK_STREAM if address.transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM and sys.platform != "win32":
            # Connections of a node that ended a moment ago do not count, listeners do.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address.host, address.port))
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
        except OSError as error:
            raise AddressUnavailable(_explain(address, error)) from error


def _explain(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        who = _holder(address)
        return (
            f"cannot listen on {address}: the port is taken by {who or 'another process'}. "
            "Stop it, or listen on another port (0 takes any free one)."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"cannot listen on {address}: this machine has no address {address.host}. "
            "Listen on 0.0.0.0 to use all addresses that it has."
        )
    if error.errno == errno.EACCES:
        return (
            f"cannot listen on {address}: ports below 1024 need privileges. Take a higher port."
        )
    return f"cannot listen on {address}: {error.strerror or error}"


def _holder(address: Address) -> str | None:
    """Who listens on a port, in words, as far as this user may know."""
    kind = "tcp" if address.transport == "tcp" else "udp"
    try:
        for connection in psutil.net_connections(kind):
            listening = kind == "udp" or connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.laddr.port == address.port:
                if connection.pid is None:
                    continue
                if connection.pid == os.getpid():
                    return f"this process itself (pid {connection.pid})"
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass  # Not ours to see; the port is taken all the same.
    return None


def expand(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """What others can dial, given what this node is bound to.

    The wildcards 0.0.0.0 and :: become the addresses of the interfaces that are up.
    Loopback comes last: only processes of this machine reach it.
    """
    found: dict[Address, None] = {}
    for address in addresses:
        if ipaddress.ip_address(address.host).is_unspecified:
            for host in _interface_hosts(_IP_VERSION[address.kind]):
                found[attrs.evolve(address, host=host)] = None
        else:
            found[address] = None
    return tuple(sorted(found, key=lambda each: ipaddress.ip_address(each.host).is_loopback))


def _interface_hosts(version: int) -> tuple[str, ...]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    up = {name for name, status in psutil.net_if_stats().items() if status.isup}
    hosts = []
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            # A link-local address means nothing without the name of an interface of the
            # machine that dials it.
            if name in up and entry.family == family and "%" not in entry.address:
                if not ipaddress.ip_address(entry.address).is_link_local:
                    hosts.append(entry.address)
    return tuple(hosts)
