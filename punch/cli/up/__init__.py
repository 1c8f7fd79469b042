"""`punch up`: this machine becomes what it can be, in one namespace, behind one address.

What is decided is in `_namespace_choice`, `_engine_choice` and `_words`; `_running` does it.
"""

from ._running import RunningUp
from ._status import LaneRow, MemberRow, Status
from ._up_settings import UpSettings

__all__ = ["RunningUp", "Status", "MemberRow", "LaneRow", "UpSettings"]
