"""Slots, the queue before them, and fairness among their claimants.

A listener's lane has slots for peers, a gateway for its keys: a claimant may be any hashable value.
What a listener does for peers of other owners is capped by `Caps`.
"""

from ._caps import NO_CAPS, Caps
from ._fairness import Fairness
from ._line import Line, NoRoom, Ticket
from ._members import CapsByPeer
from ._slots import Slots

__all__ = ["Slots", "Ticket", "NoRoom", "Line", "Fairness", "Caps", "CapsByPeer", "NO_CAPS"]
