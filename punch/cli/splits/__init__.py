"""Commands about models that are bigger than one machine: what fits where, and who lends memory."""

from ._fit import FIT

__all__ = ["FIT"]
