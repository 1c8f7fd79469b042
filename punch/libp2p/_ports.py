"""Checks addresses to listen on, and works out what others can dial."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Iterable

import attrs
import psutil

from ..exceptions import AddressUnavailable, ConfigurationError
from ..network import Address, own_hosts, parse_address


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
            sock.bind((address.host, address.port))
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
    Loopback comes last: only processes of this machine reach it.
    """
    found: dict[Address, None] = {}
    for address in addresses:
        if ipaddress.ip_address(address.host).is_unspecified:
            for host in _interface_hosts(address.kind):
                found[attrs.evolve(address, host=host)] = None
        else:
            found[address] = None
    return tuple(sorted(found, key=lambda each: ipaddress.ip_address(each.host).is_loopback))


def _interface_hosts(kind: str) -> tuple[str, ...]:
    hosts = (ipaddress.ip_address(host) for host in own_hosts())
    return tuple(
        str(host)
        for host in hosts
        # A link-local address means nothing without the name of an interface of the machine that
        # dials it.
        if f"ip{host.version}" == kind and not host.is_link_local
    )
