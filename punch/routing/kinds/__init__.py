"""What kinds of candidates there are, and why one of a kind was taken. No I/O.

A model is here, whole at a peer, split over machines and running, or could be started. One rule
chooses among all of these, by seconds: a kind has no rank and changes no choice. It is what people
ask about, and what logs, the command line and the page show.
"""

from ._kind import HERE, KINDS, PEER, SPLIT, TO_START, Kind, kind_of
from ._why import Weighed, best_of_kinds, why_taken

__all__ = [
    # one candidate
    "Kind",
    "kind_of",
    "KINDS",
    "HERE",
    "PEER",
    "SPLIT",
    "TO_START",
    # those of one decision
    "Weighed",
    "best_of_kinds",
    "why_taken",
]
