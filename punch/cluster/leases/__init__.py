"""Leases of memory: what a borrower and a worker say to each other, and the rules of a lease.

No I/O: time is an argument, and bytes come in and go out as arguments. Streams, servers and tunnels
are left to `punch.cluster.worker`.
"""

from ._desk import Desk, DeskState, Ending, Tenancy, seconds_given
from ._messages import (
    BOUNDS,
    CARRIERS,
    ENDINGS,
    HEADER_BYTES,
    LEASE_MINOR,
    MAX_CERTIFICATE_BYTES,
    MAX_DEVICES,
    MAX_LEASE_SECONDS,
    MAX_MEMORY_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_OPENING_BYTES,
    MIN_LEASE_SECONDS,
    PROTOCOL,
    REFUSALS,
    Admitted,
    End,
    Leased,
    LeaseEnded,
    LeaseMessage,
    LeaseOpening,
    LentDevice,
    Look,
    Looked,
    Refused,
    Renew,
    Renewed,
    Survey,
    Surveyed,
    Take,
    decode_lease,
    encode_lease,
)
from ._order import ALLOWED, MESSAGES_BURST, MESSAGES_RATE, Order, OrderState

__all__ = [
    # the messages
    "PROTOCOL",
    "LEASE_MINOR",
    "LeaseMessage",
    "LeaseOpening",
    "Admitted",
    "Refused",
    "REFUSALS",
    "Survey",
    "Surveyed",
    "LentDevice",
    "BOUNDS",
    "CARRIERS",
    "Take",
    "Leased",
    "Renew",
    "Renewed",
    "Look",
    "Looked",
    "End",
    "LeaseEnded",
    "ENDINGS",
    # their bytes
    "encode_lease",
    "decode_lease",
    "HEADER_BYTES",
    "MAX_OPENING_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_DEVICES",
    "MAX_MEMORY_BYTES",
    "MAX_CERTIFICATE_BYTES",
    "MIN_LEASE_SECONDS",
    "MAX_LEASE_SECONDS",
    # the rules of a lease
    "Desk",
    "DeskState",
    "Tenancy",
    "Ending",
    "seconds_given",
    # the order of messages
    "Order",
    "OrderState",
    "ALLOWED",
    "MESSAGES_BURST",
    "MESSAGES_RATE",
]
