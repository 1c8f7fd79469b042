"""Checks addresses to listen on, and works out what others can dial."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterable

import attrs
import psutil

from ..exceptions import AddressUnavailable, ConfigurationError
from ..network import Address, own_hosts, own_links, parse_address


def parse_listen(text: str) -> Address:
    """The address to listen on that *text* spells, with an IP address and without a peer id.

    Raises:
      ConfigurationError: if *text* is no address, or has a name in place of an IP address.

    """
    address = parse_address(text, setting="listen")
    if address.is_name:
        raise ConfigurationError(
            f"listen is {text!r}: give an IP address of this machine instead of a name, "
            "such as /ip4/0.0.0.0/tcp/4001 for all of them"
        )
    return attrs.evolve(address, peer_id=None)


def check_free(address: Address) -> None:
    """Make sure that this process can listen on an address.

    libp2p says nothing when it cannot, so this tries before it.

    Raises:
      AddressUnavailable: if it cannot. The text names the process that has the port, if that can
        be seen.

    """
    family = socket.AF_INET6 if address.kind == "ip6" else socket.AF_INET
    kind = socket.SOCK_STREAM if address.transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM and sys.platform != "win32":
            # Connections of a node that ended a moment ago do not matter; listening sockets do.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # Looked up as text: `bind` itself does not read the zone in a host.
            found = socket.getaddrinfo(
                address.scoped_host, address.port, family, kind, 0, socket.AI_NUMERICHOST
            )
            sock.bind(found[0][4])
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
        except OSError as error:
            raise AddressUnavailable(
                _explain(address, error), is_taken=error.errno == errno.EADDRINUSE
            ) from error


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
    if address.kind == "ip6" and address.is_link_local() and not address.zone:
        zoned = attrs.evolve(address, zone="eth0")
        return f"cannot listen on {address} without its interface: write it as {zoned}"
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {address}: this machine has no interface {address.zone}"
    if error.errno == errno.EACCES:
        return f"cannot listen on {address}: ports below 1024 need privileges. Take a higher port."
    return f"cannot listen on {address}: {error.strerror or error}"


def _holder(address: Address) -> str | None:
    """The process that listens on a port, in words; `None` if this user may not see it."""
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
    """The addresses that others can dial, given those that this node is bound to.

    The wildcards 0.0.0.0 and :: become the addresses of the interfaces that are up.
    Loopback comes last: only processes of this machine reach it. Link-local addresses are left to
    `on_links`, as each machine has its own word for a link.
    """
    found = (
        attrs.evolve(address, host=host)
        for address in addresses
        if not address.is_link_local()
        for host in _hosts_of(address, own_hosts)
        if not ipaddress.ip_address(host).is_link_local
    )
    return tuple(sorted(dict.fromkeys(found), key=Address.is_loopback))


def on_links(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """The link-local addresses at which others on our links can dial, of those that we have bound.

    Over TCP alone: libp2p 0.8.1 has no way to tell QUIC an interface.
    """
    found: dict[Address, None] = {}
    for address in addresses:
        if address.transport != "tcp":
            continue
        if address.is_link_local():
            found[address] = None
        elif ipaddress.ip_address(address.host).is_unspecified:
            zones = own_links()
            for host in _hosts_of(address, zones.keys):
                found[attrs.evolve(address, host=host, zone=zones[host])] = None
    return tuple(found)


def _hosts_of(address: Address, own: Callable[[], Iterable[str]]) -> Iterable[str]:
    """What *address* stands for: itself, or those of our *own* that are of its family."""
    if not ipaddress.ip_address(address.host).is_unspecified:
        return (address.host,)
    return tuple(
        host for host in own() if f"ip{ipaddress.ip_address(host).version}" == address.kind
    )
