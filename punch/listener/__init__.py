"""The listener's side of a request: takes it in turn, has a backend answer, keeps the answer."""

from ._executor import Executor, ExecutorStatistics, open_executor
from ._recording import RecordingStatistics

__all__ = [
    "Executor",
    "ExecutorStatistics",
    "open_executor",
    "RecordingStatistics",
]
