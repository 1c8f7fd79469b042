"""A bootstrap: serves rosters, so that the members of a namespace find each other.

No request ever goes through it, and it keeps nothing on disk but its identity.
"""

from ._server import BootstrapServer, BootstrapStatistics, open_bootstrap

__all__ = [
    "open_bootstrap",
    "BootstrapServer",
    "BootstrapStatistics",
]
