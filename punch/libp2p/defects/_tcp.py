"""The work-arounds for TCP in libp2p 0.8.1: fewer system calls and turns a frame, and IPv6.

Installed by `apply` of `_swarm`, like all work-arounds.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import if_indextoname
from typing import Any

import multiaddr
import trio
from libp2p.io import trio as io_trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.transport.tcp import tcp
from libp2p.utils import multiaddr_utils
from multiaddr.codecs import LENGTH_PREFIXED_VAR_SIZE, utf8
from multiaddr.exceptions import ProtocolLookupError

from ..._background import acquire_now
from . import _swarm as defects

READ_BYTES = 64 << 10
"""Most bytes that one read of a socket gives: as many as a message of Noise can have."""


def tcp_reads() -> None:
    """Read as much as there is, and write without giving all other tasks a turn first.

    Defect: `libp2p.io.trio.TrioTCPStream` reads from its socket what it is asked for and no
    more, which is two bytes and then the rest for each message of Noise. Without this, a frame
    takes two system calls and two turns of the scheduler more.
    """

    async def read(self: Any, n: int | None = None) -> bytes:
        rest: bytearray = self.__dict__.setdefault("_rest", bytearray())
        await acquire_now(self.read_lock)
        try:
            if not rest and n != 0:
                rest += await self.stream.receive_some(READ_BYTES)
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(f"the connection broke: {error}") from error
        except trio.ClosedResourceError:
            return b""
        finally:
            self.read_lock.release()
        data = bytes(rest[:n])
        del rest[:n]
        return data

    async def write(self: Any, data: bytes) -> None:
        await acquire_now(self.write_lock)
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(f"the connection broke: {error}") from error
        except trio.ClosedResourceError:
            return
        finally:
            self.write_lock.release()

    defects.replace(io_trio.TrioTCPStream, "read", read)
    defects.replace(io_trio.TrioTCPStream, "write", write)


def tcp_ipv6() -> None:
    """Know where a connection over IPv6 comes from.

    Defect: `libp2p.io.trio.TrioTCPStream.get_remote_address` takes a socket's address for two
    values, and an address of IPv6 has four. Without this, nobody who comes over IPv6 counts as
    one of this machine, no bootstrap dials it back, and no limit for one host holds for it.
    """

    def get_remote_address(self: Any) -> tuple[str, int] | None:
        if self._cached_remote_address is None:
            try:
                host, port = self.stream.socket.getpeername()[:2]
            except (AttributeError, OSError, ValueError):
                return None
            self._cached_remote_address = str(host), int(port)
        found: tuple[str, int] = self._cached_remote_address
        return found

    defects.replace(io_trio.TrioTCPStream, "get_remote_address", get_remote_address)


def tcp_zones() -> None:
    """Dial and listen at link-local addresses of IPv6, on the interface that the address names.

    Defects: `libp2p.transport.tcp.tcp` leaves ``/ip6zone`` out of what it dials and binds, and a
    link-local address without its interface is refused by the system (EINVAL; RFC 4007, section
    6). It also leaves it out of what it says of a socket that listens at one.
    And multiaddr 0.2.0 itself reads ``/ip6zone`` as something without a value: the size of its
    codec is 0, where that of a value with a length before it is -1.
    """
    defects.replace(utf8.Codec, "SIZE", LENGTH_PREFIXED_VAR_SIZE)
    host_of = multiaddr_utils.extract_ip_from_multiaddr
    address_of = multiaddr_utils.multiaddr_from_socket

    def extract_ip_from_multiaddr(maddr: multiaddr.Multiaddr) -> str | None:
        host = host_of(maddr)
        try:
            zone = maddr.value_for_protocol("ip6zone")
        except ProtocolLookupError:
            return host
        return f"{host}%{zone}"

    def multiaddr_from_socket(socket: Any) -> multiaddr.Multiaddr:
        host, port, *rest = socket.getsockname()
        scope = rest[1] if rest else 0
        if not scope:
            return address_of(socket)
        try:
            zone = if_indextoname(scope)
        except OSError:  # The interface is gone.
            zone = str(scope)
        return multiaddr.Multiaddr(f"/ip6zone/{zone}/ip6/{host}/tcp/{port}")

    defects.replace(tcp, "extract_ip_from_multiaddr", extract_ip_from_multiaddr)
    defects.replace(tcp, "multiaddr_from_socket", multiaddr_from_socket)


PATCHES: tuple[Callable[[], None], ...] = (tcp_reads, tcp_ipv6, tcp_zones)
"""What `apply` installs from this module."""
