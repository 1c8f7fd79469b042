"""HTTP/1.1 over trio. Knows no word of punch."""

from ._limits import Limits

__all__ = [
    "Limits",
]
