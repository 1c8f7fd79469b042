"""HTTP/1.1 over trio. Knows no word of punch."""

from ._http1 import BadRequest
from ._limits import ClientGone, Limits, has_body, reading_away
from ._server import DRAIN_SECONDS, Server, open_server

__all__ = [
    "open_server",
    "Server",
    "DRAIN_SECONDS",
    "Limits",
    "BadRequest",
    "ClientGone",
    "has_body",
    "reading_away",
]
