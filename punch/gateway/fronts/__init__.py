"""Fronts: processes that serve HTTP side by side for one gateway, each with a router of its own.

They accept connections at the gateway's sockets. Where a request is for another process to answer,
its connection goes there: see `_placing`.
"""

from ._front import Front, SharedClock, offset_here, open_front
from ._log_lines import log_lines_to
from ._switchboard import Place, Switchboard
from ._telling import open_telling
from ._turns import Turns, turns_beside

__all__ = [
    "Switchboard",
    "Place",
    "open_front",
    "Front",
    "open_telling",
    "log_lines_to",
    "Turns",
    "turns_beside",
    "SharedClock",
    "offset_here",
]
