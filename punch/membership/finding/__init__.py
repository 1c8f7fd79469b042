"""Finds where members are: on the LAN those that let newcomers ask, and who is at an address."""

from ._finding import find_joining
from ._recognising import PROTOCOL as MEMBER
from ._recognising import Recognised, is_member

__all__ = ["find_joining", "is_member", "Recognised", "MEMBER"]
