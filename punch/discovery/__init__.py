"""Finds the members of a namespace, and keeps sessions with its listeners.

The directory merges what any number of sources say; the bootstraps are the first kind of source.
A new one implements `Source` and is given to `join_namespace`. Which listener is asked is decided
by `punch.routing`.
"""

from ._bootstraps import (
    MAX_BOOTSTRAPS,
    BootstrapSource,
    bootstrap_sources,
    parse_bootstrap,
    parse_bootstraps,
)
from ._directory import (
    Directory,
    SourceState,
    join_namespace,
    new_incarnation,
)
from ._known_member import KnownMember
from ._known_peers import KnownPeers, who_is_at
from ._local import LocalListener
from ._meeting import (
    BOOTSTRAP_PORT,
    DEFAULT_BOOTSTRAP,
    DEFAULT_NAMESPACE,
    own_identity,
    usual_namespace,
)
from ._session_pool import SessionPool
from ._source import Announce, Found, Nowhere, Sighting, Source

__all__ = [
    # being a member
    "join_namespace",
    "Directory",
    "KnownMember",
    "SourceState",
    "new_incarnation",
    "DEFAULT_NAMESPACE",
    "usual_namespace",
    "own_identity",
    # sources
    "Source",
    "Announce",
    "Found",
    "Sighting",
    "Nowhere",
    "BootstrapSource",
    "bootstrap_sources",
    "parse_bootstrap",
    "parse_bootstraps",
    "MAX_BOOTSTRAPS",
    "DEFAULT_BOOTSTRAP",
    "BOOTSTRAP_PORT",
    # who was there before
    "KnownPeers",
    "who_is_at",
    # sessions with all of them
    "SessionPool",
    "LocalListener",
]
