"""HTTP/1.1 over trio, for any ASGI application; nothing in here is about models or peers."""

from ._connection import HandOver
from ._http1 import BadRequest, Request
from ._limits import ClientGone, Limits, discarding_body, has_body
from ._request_cycle import WATCH, WHOLE_BODY, RequestCycle, Work
from ._server import ALONE, DRAIN_SECONDS, Server, Sharing, open_server

__all__ = [
    "open_server",
    "Server",
    "DRAIN_SECONDS",
    "Sharing",
    "ALONE",
    "HandOver",
    "WATCH",
    "WHOLE_BODY",
    "RequestCycle",
    "Work",
    "Request",
    "Limits",
    "BadRequest",
    "ClientGone",
    "has_body",
    "discarding_body",
]
