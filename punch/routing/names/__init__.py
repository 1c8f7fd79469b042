"""What people call a model, or a peer: which of those that are on offer is meant. No I/O."""

from ._aliases import MAX_ALIASES, NO_ALIASES, Alias, Aliases, stands_for
from ._meaning import ANY, Ambiguous, Found, Meaning, ModelNames, PulledModel
from ._peers import NO_WISHES, Wishes, wishes_of
from ._spelling import plain

__all__ = [
    # models
    "ModelNames",
    "Meaning",
    "Ambiguous",
    "Found",
    "ANY",
    "PulledModel",
    "plain",
    # peers
    "Wishes",
    "NO_WISHES",
    "wishes_of",
    # further names for models
    "Alias",
    "Aliases",
    "NO_ALIASES",
    "MAX_ALIASES",
    "stands_for",
]
