"""The listener's side of a request: takes it in turn, has a backend answer, keeps the answer."""

from ._executor import Executor, ExecutorStatistics, open_executor
from ._lane import LaneStatistics, RunningLane
from ._recordings import RecordingStatistics

__all__ = [
    "Executor",
    "ExecutorStatistics",
    "open_executor",
    "RunningLane",
    "LaneStatistics",
    "RecordingStatistics",
]
