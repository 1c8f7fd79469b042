"""A session over any byte stream, and the two ends of the requests in it."""

from ._calls import ClientCall, ServerCall
from ._carrier import PeerSession, SessionHandler, SessionStatistics

__all__ = [
    "PeerSession",
    "SessionHandler",
    "SessionStatistics",
    "ClientCall",
    "ServerCall",
]
