"""What a borrower may say when, on one stream, and how often. No I/O: the time is an argument.

A borrower says who it is, once; then it asks what there is and takes a lease; while it has one it
renews it, looks, and ends it. Anything else ends the stream, and the lease with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ...exceptions import RemoteProtocolError
from ._messages import End, LeaseMessage, LeaseOpening, Look, Renew, Survey, Take

OrderState = Literal["new", "admitted", "leased"]

ALLOWED: Mapping[OrderState, tuple[type[LeaseMessage], ...]] = {
    "new": (LeaseOpening,),
    "admitted": (Survey, Take, End, Look, Renew),
    "leased": (Survey, Renew, Look, End),
}
"""Of each state of a stream: what its borrower may say. What belongs to a lease may come after the
lease has ended, since both sides may end it at once; it is answered with its end."""

MESSAGES_BURST = 64.0
MESSAGES_RATE = 8.0
"""Messages that a borrower may have ahead, and that it may send in a second: it looks twice a
second at most, and renews now and then."""


class Order:
    """The messages of one borrower on one stream."""

    def __init__(self, now: float) -> None:
        self._state: OrderState = "new"
        self._allowance = MESSAGES_BURST
        self._heard_at = now

    @property
    def state(self) -> OrderState:
        """Where the conversation is."""
        return self._state

    def heard(self, message: LeaseMessage, *, now: float) -> None:
        """Note what the borrower has said.

        Raises:
          RemoteProtocolError: if it may not be said now, or too much was said.

        """
        grown = self._allowance + MESSAGES_RATE * (now - self._heard_at)
        self._allowance, self._heard_at = min(MESSAGES_BURST, grown), now
        if self._allowance < 1:
            raise RemoteProtocolError(
                f"more than {MESSAGES_BURST:.0f} messages, and {MESSAGES_RATE:.0f} a second"
            )
        self._allowance -= 1
        if not isinstance(message, ALLOWED[self._state]):
            raise RemoteProtocolError(f"{type(message).__name__} may not come while {self._state}")

    def admitted(self) -> None:
        """Note that the borrower was let in."""
        self._state = "admitted"

    def leased(self) -> None:
        """Note that the borrower has a lease."""
        self._state = "leased"

    def ended(self) -> None:
        """Note that the borrower's lease has ended: it may take another one."""
        self._state = "admitted"
