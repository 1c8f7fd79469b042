"""Tunnels for people: ports of this machine that its settings name, and those of a peer."""

from ._asking import open_named_port
from ._serving import TUNNEL_PORTS, NamedPort, open_named_ports

__all__ = ["open_named_ports", "NamedPort", "TUNNEL_PORTS", "open_named_port"]
