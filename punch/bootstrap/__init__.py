"""A meeting point: lets the members of a namespace find each other."""

from ._server import BootstrapServer, BootstrapStatistics, open_bootstrap

__all__ = [
    "open_bootstrap",
    "BootstrapServer",
    "BootstrapStatistics",
]
