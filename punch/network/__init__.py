"""What everybody sees of a network: byte streams, nodes and addresses."""

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
