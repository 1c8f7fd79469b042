"""The network as every other room sees it: byte streams, nodes and addresses.

How they are made is left to `punch.libp2p`, and to `punch.testing` for a network in memory.
"""

from ._address import Address, Transport, parse_address
from ._base import Handler, Node, Stream
from ._loopback import LoopbackStream, open_loopback

__all__ = [
    "Node",
    "Stream",
    "Handler",
    "LoopbackStream",
    "open_loopback",
    "Address",
    "Transport",
    "parse_address",
]
