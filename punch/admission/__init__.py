"""Slots, the queue before them, and fairness among whoever asks."""

from ._admission import Fairness, Line, Slots, Ticket

__all__ = [
    "Fairness",
    "Ticket",
    "Line",
    "Slots",
]
