"""Tunnels over streams of the node, ``/punch/tunnel/1``, and how a tunnel by name is asked for."""

from ._door import NOT_ALLOWED, TunnelDoor, door_of, open_tunnel_stream
from ._messages import TunnelOpening, TunnelOutcome
from ._near import NearStreams, open_near_stream

__all__ = [
    "door_of",
    "TunnelDoor",
    "NOT_ALLOWED",
    "open_near_stream",
    "NearStreams",
    "open_tunnel_stream",
    "TunnelOpening",
    "TunnelOutcome",
]
