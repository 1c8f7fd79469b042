"""Tunnels: a TCP port of another machine's loopback, reached by whom a lease names and nobody else.

Two machines agree on a tunnel over a stream whose ends are authenticated, and tell each other the
certificates that they made for it. The bytes then go over TLS connections of their own, moved by a
process that does nothing else. Who may have a tunnel, and for how long, is decided by `cluster`
and by settings.
"""

from ._carrier import Carrier, FarEnd, NearEnd, open_carrier
from ._certificates import LeaseCertificate, check_certificate, make_certificate
from ._places import Place, hosts_of, places_at
from ._values import Measured, TunnelStatistics
from .named import TUNNEL_PORTS, NamedPort, open_named_port, open_named_ports
from .streams import (
    NearStreams,
    TunnelDoor,
    TunnelOpening,
    TunnelOutcome,
    door_of,
    open_near_stream,
    open_tunnel_stream,
)

__all__ = [
    "open_carrier",
    "Carrier",
    "FarEnd",
    "NearEnd",
    "Place",
    "hosts_of",
    "places_at",
    "make_certificate",
    "LeaseCertificate",
    "check_certificate",
    "TunnelStatistics",
    "Measured",
    # ---- over streams of a node ----
    "door_of",
    "TunnelDoor",
    "open_near_stream",
    "NearStreams",
    "open_tunnel_stream",
    "TunnelOpening",
    "TunnelOutcome",
    # ---- ports by name ----
    "open_named_ports",
    "open_named_port",
    "NamedPort",
    "TUNNEL_PORTS",
]
