"""The dashboard: a page, and the feed of events that it shows as they happen."""

from ._feed import Feed, open_feed
from ._key_rows import KeyBook
from ._machines import Machines
from ._newcomers import Newcomers
from ._rights import Rights
from ._routes import dashboard_routes
from ._sockets import live_routes

__all__ = [
    "open_feed",
    "Feed",
    "dashboard_routes",
    "KeyBook",
    "Newcomers",
    "Machines",
    "Rights",
    "live_routes",
]
