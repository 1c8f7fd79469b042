"""What everybody sees of a network: byte streams, nodes and addresses."""

from ._address import Address, Transport, parse_address
from ._base import Handler, Node, Stream

__all__ = [
    "Node",
    "Stream",
    "Handler",
    "Address",
    "Transport",
    "parse_address",
]
