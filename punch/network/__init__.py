"""The network as every other room sees it: byte streams, nodes and addresses.

How they are made is left to `punch.libp2p`, and to `punch.testing` for a network in memory.
"""

from ._address import Address, Transport, parse_address, plain_ip, site_of
from ._base import Handler, Located, Node, Relayable, Relayed, Stream, ip_of, relay_of
from ._callers import is_of_this_user
from ._dial_order import DialOrder, announced, dial_order, dialled_together
from ._foreign import unfit
from ._loopback import LoopbackStream, is_own, open_loopback
from ._networks import OwnNetwork, is_in_own_network, own_address, own_networks
from ._own import (
    WILDCARDS,
    Wanted,
    is_this_machine,
    links_to,
    own_hosts,
    own_links,
    places_here,
    resolve,
    ways_to,
)

__all__ = [
    "WILDCARDS",
    "Node",
    "Stream",
    "Handler",
    "Located",
    "ip_of",
    "Relayed",
    "Relayable",
    "relay_of",
    "LoopbackStream",
    "open_loopback",
    "is_own",
    "Address",
    "Transport",
    "parse_address",
    "plain_ip",
    "site_of",
    "unfit",
    "DialOrder",
    "dial_order",
    "dialled_together",
    "announced",
    "is_this_machine",
    "OwnNetwork",
    # this machine
    "is_of_this_user",
    "own_networks",
    "own_address",
    "is_in_own_network",
    "links_to",
    "own_hosts",
    "own_links",
    "places_here",
    "ways_to",
    "resolve",
    "Wanted",
]
