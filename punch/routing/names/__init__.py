"""What people call a model, or a peer: which of those that are on offer is meant. No I/O."""

from ._aliases import MAX_ALIASES, NO_ALIASES, Alias, Aliases
from ._meaning import ANY, Ambiguous, Found, Meaning, ModelNames, PulledModel
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
    # further names for them
    "Alias",
    "Aliases",
    "NO_ALIASES",
    "MAX_ALIASES",
]
