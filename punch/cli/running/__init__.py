"""The programs of punch that run on this machine: each writes itself down, and can be ended."""

from ._ledger import Running, noted, running_here

__all__ = ["Running", "noted", "running_here"]
