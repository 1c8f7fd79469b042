"""Checks whether any peer could answer a request: its values, its form, its schemas. No I/O.

What this very peer can answer is decided by its offers and its backend.
"""

from ._fit import broken_rule
from ._request import check_combination, check_request

__all__ = ["broken_rule", "check_combination", "check_request"]
