"""Slots, the queue before them, and fairness among whoever claims them.

A listener's lane has slots for peers, the gateway for its keys; a claimant is only compared.
"""

from ._fairness import Fairness
from ._line import Line, NoRoom, Ticket
from ._slots import Slots

__all__ = ["Slots", "Ticket", "NoRoom", "Line", "Fairness"]
