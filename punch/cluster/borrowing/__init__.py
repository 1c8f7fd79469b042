"""Borrowing: what workers lend, and the leases that a coordinator has of them."""

from ._borrower import DEFAULT_LEASE_SECONDS, Borrower, open_borrower
from ._lease import Lease
from ._parts import NearEnd, NearEnds, Reached
from ._values import WorkerFacts

__all__ = [
    "open_borrower",
    "Borrower",
    "WorkerFacts",
    "Lease",
    "DEFAULT_LEASE_SECONDS",
    "NearEnds",
    "NearEnd",
    "Reached",
]
