"""The listener: `open_listener()`, its lanes, and the answers that it makes and keeps."""

from ..admission import Caps
from ._executor import Executor, ListenerStatistics, open_executor
from ._lane import LaneStatistics, RunningLane
from ._lanes import OneOrMore, Openable
from ._listener import Listener, open_listener
from .members import MemberUsage
from .recordings import RecordingStatistics

__all__ = [
    "open_listener",
    "Listener",
    "Caps",
    "ListenerStatistics",
    "RunningLane",
    "LaneStatistics",
    "Openable",
    "OneOrMore",
    "RecordingStatistics",
    "MemberUsage",
    # without a namespace
    "open_executor",
    "Executor",
]
