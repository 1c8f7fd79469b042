"""Our side of meeting points: what we say there, what we believe of what is said, and where to go.

Which sources there are is decided by the directory; the meeting points' side is in
`punch.bootstrap`.
"""

from ._checks import Checks
from ._hidden import Hidden
from ._members import MAX_MEETINGS, MemberSource, member_sources
from ._rank import ranked
from ._stream import Attendance, Attended

__all__ = [
    "Attendance",
    "Attended",
    "Checks",
    "Hidden",
    "MemberSource",
    "member_sources",
    "ranked",
    "MAX_MEETINGS",
]
