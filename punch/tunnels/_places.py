"""Where the far ends of a node listen, and which of the places that a peer names are believed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

import attrs

from ..exceptions import ConfigurationError
from ..network import Node, own_hosts, parse_address

# No digits of other scripts, which `int` reads too.
_PORT = re.compile("[0-9]{1,5}")

_LOOPBACK = frozenset({"127.0.0.1", "::1"})


@attrs.frozen
class Place:
    """Where a far end listens: an IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def hosts_of(node: Node) -> tuple[list[str], list[str]]:
    """Where to listen to be reached as *node* is, and where else it is reached; IP addresses.

    The others are those of a router that forwards to this machine: if it forwards the tunnel's
    port too, the near end gets there.
    """
    own = {*own_hosts(), *_LOOPBACK}
    found: dict[str, None] = {}
    for text in node.addresses:
        with suppress(ConfigurationError):
            address = parse_address(text)
            if not address.is_name:
                found[address.host] = None
    here = [host for host in found if host in own]
    return here or ["127.0.0.1"], [host for host in found if host not in own]


def places_at(told: Iterable[str], addresses: Sequence[str]) -> list[Place]:
    """Where a far end is, of what a peer says: where the peer itself is, and nowhere else.

    Else a peer could have us knock at any door of our network, or at our own.

    Args:
      told: Where the peer says that its far end listens, as ``HOST:PORT``.
      addresses: Multiaddresses at which the peer may be dialled.

    """
    hosts = set()
    for text in addresses:
        with suppress(ConfigurationError):
            hosts.add(parse_address(text).host)
    found = []
    for text in told:
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        number = int(port) if _PORT.fullmatch(port) else 0
        if host in hosts and 0 < number < 1 << 16:
            found.append(Place(host, number))
    return found
