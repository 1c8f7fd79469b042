"""A bootstrap: serves rosters, so that the members of a namespace find each other.

No request ever goes through it, and it keeps nothing on disk but its identity.
"""

from ._locks import Turns
from ._server import BootstrapServer, BootstrapStatistics, open_bootstrap, open_meeting_point

__all__ = [
    "open_bootstrap",
    "open_meeting_point",
    "BootstrapServer",
    "BootstrapStatistics",
    "Turns",
]
