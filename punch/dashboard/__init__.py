"""The page and its feed: what the swarm does, as it happens."""

from ._feed import Feed, open_feed
from ._routes import dashboard_routes

__all__ = [
    "open_feed",
    "Feed",
    "dashboard_routes",
]
