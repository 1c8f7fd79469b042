"""Finding members on the LAN that let newcomers ask."""

from ._finding import find_joining

__all__ = ["find_joining"]
