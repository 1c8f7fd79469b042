"""Slots, the queue before them, and fairness among their claimants.

A listener's lane has slots for peers, a gateway for its keys: a claimant may be any hashable value.
What a listener does for peers of other owners, and for members that it limits, is capped by `Caps`.
"""

from ._caps import NO_CAPS, OFF_HOURS, Caps
from ._fairness import Fairness
from ._hours import fault_of_hours
from ._line import Line, NoRoom, Ticket
from ._members import CapsByPeer
from ._slots import Slots

__all__ = [
    # slots, and the queue for them
    "Slots",
    "Ticket",
    "NoRoom",
    "Line",
    "Fairness",
    # what others may ask for
    "Caps",
    "CapsByPeer",
    "NO_CAPS",
    "OFF_HOURS",
    "fault_of_hours",
]
