"""Relays: a peer that carries bytes between two members which cannot reach each other.

What is carried is sealed from end to end: the relay sees who speaks with whom, how much and when,
and nothing of what is said. How a node dials through a relay is in `punch.libp2p`.
"""

from ._lines import ACCEPT, CONNECT, OK, RESERVE, read_line, say
from ._relay import Relay, RelayLimits, RelayStatistics
from ._shares import Shares

__all__ = [
    "Relay",
    "RelayLimits",
    "RelayStatistics",
    "Shares",
    # what is said
    "RESERVE",
    "CONNECT",
    "ACCEPT",
    "OK",
    "read_line",
    "say",
]
