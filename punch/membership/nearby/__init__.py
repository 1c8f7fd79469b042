"""Joining without a code: a machine nearby asks, both screens show digits, a person approves."""

from ._asking import Asked, ask_members, ask_nearby
from ._digits import commitment_to, digits_of, is_digits, shown_digits
from ._reception import Reception
from ._requests import (
    NearbyRequest,
    approve_request,
    decided_words,
    find_request,
    read_requests,
    refuse_request,
)

__all__ = [
    # the newcomer
    "ask_nearby",
    "ask_members",
    "Asked",
    # the member
    "Reception",
    "NearbyRequest",
    "read_requests",
    "find_request",
    "approve_request",
    "refuse_request",
    "decided_words",
    # the digits of both
    "digits_of",
    "commitment_to",
    "shown_digits",
    "is_digits",
]
