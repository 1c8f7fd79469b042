"""Who is in the namespace, and how that is found out."""

from ._known_peers import KnownPeers, who_is_at
from ._links import Links
from ._meeting import DEFAULT_BOOTSTRAP, DEFAULT_NAMESPACE
from ._membership import KnownListener, Membership, join_namespace, new_incarnation

__all__ = [
    "KnownPeers",
    "who_is_at",
    "Links",
    "join_namespace",
    "Membership",
    "KnownListener",
    "new_incarnation",
    "DEFAULT_BOOTSTRAP",
    "DEFAULT_NAMESPACE",
]
