"""Sessions over any byte stream, and the calls in them: requests that we ask and that we answer.

What may be said when is decided by `punch.wire`; what to answer, by the listener; which peer to
ask, by the dialer.
"""

from ._calls import ClientCall, FromListener, ServerCall
from ._carrier import PeerSession, SessionHandler, SessionStatistics
from ._door import Door, door_for

__all__ = [
    "PeerSession",
    "SessionHandler",
    "SessionStatistics",
    "Door",
    "door_for",
    "ClientCall",
    "FromListener",
    "ServerCall",
]
