"""A listener of a closed namespace as a meeting point, and the wait before it serves anybody.

Who is let in is decided by `punch.access`; how members meet, by `punch.bootstrap`.
"""

from ._here import MeetingHere, open_meeting_here
from ._reception import Reception

__all__ = ["MeetingHere", "open_meeting_here", "Reception"]
