"""Model files on this machine: which there are, what they hold, and how to get more.

Everything here blocks. What is made of a file, such as an engine, is left to the backends.
"""

from ._catalogue import KNOWN_MODELS, KnownModel, ListedModel, list_models, pull
from ._model_file import ModelFile, describe, layout_of

__all__ = [
    "describe",
    "layout_of",
    "ModelFile",
    "KNOWN_MODELS",
    "KnownModel",
    "pull",
    "list_models",
    "ListedModel",
]
