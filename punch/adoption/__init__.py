"""Servers of models that run already and are not ours: found at their usual places, or named.

`open_adoption` makes a lane of each, once, and none of what is punch itself. Nothing is scanned: it
looks at known ports of this machine, and at what it was given.
"""

from ._adoption import Adoption, open_adoption
from ._given import Given
from ._look import look_once
from ._places import USUAL, Place, places_of
from ._same import Engine, engines_at
from ._seat import AdoptedServer
from ._verdict import WORDS, Seen

__all__ = [
    "open_adoption",
    "Adoption",
    "AdoptedServer",
    # what is to be adopted
    "Given",
    "look_once",
    "Seen",
    "WORDS",
    # where servers usually are
    "Place",
    "USUAL",
    "places_of",
    # which addresses are one engine
    "Engine",
    "engines_at",
]
