"""The dashboard: a page, and the feed of events that it shows as they happen."""

from ._feed import Feed, open_feed
from ._key_rows import KeyBook
from ._newcomers import Newcomers
from ._routes import dashboard_routes
from ._sockets import live_routes

__all__ = [
    "open_feed",
    "Feed",
    "dashboard_routes",
    "KeyBook",
    "Newcomers",
    "live_routes",
]
