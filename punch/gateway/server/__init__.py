"""HTTP/1.1 over trio, for any ASGI application; nothing in here is about models or peers."""

from ._http1 import BadRequest
from ._limits import ClientGone, Limits, discarding_body, has_body
from ._server import DRAIN_SECONDS, Server, open_server

__all__ = [
    "open_server",
    "Server",
    "DRAIN_SECONDS",
    "Limits",
    "BadRequest",
    "ClientGone",
    "has_body",
    "discarding_body",
]
