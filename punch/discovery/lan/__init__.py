"""Finds members on the LANs of this machine by mDNS, and is found there.

What is heard are candidates: a member is who has proved its identity and shown its registration.
The records name neither the namespace nor the machine; see `_tags` and `_records`.
"""

from ._interfaces import lan_interfaces
from ._multicast import Event, Lan, Multicast, OpenMulticast
from ._nearby import Nearby, open_nearby
from ._real import real_lan
from ._records import SERVICE, Failed, Heard, Interface, LanRecord, Said, Unheard
from ._source import LanSource
from ._tags import LanKey
from ._warning import watch_for_closed

__all__ = [
    # the source
    "LanSource",
    "Lan",
    "lan_interfaces",
    "real_lan",
    # whoever is there, of any namespace
    "open_nearby",
    "Nearby",
    "watch_for_closed",
    # how records travel
    "Multicast",
    "OpenMulticast",
    "Event",
    "Heard",
    "Unheard",
    "Failed",
    "Said",
    "Interface",
    "LanRecord",
    "LanKey",
    "SERVICE",
]
