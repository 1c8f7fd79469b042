"""Child processes: start, watch, restart, and stop the whole group."""

from ._child import LastLines, describe_exit, open_child
from ._restarts import Restarts
from ._supervisor import Supervised, SupervisorStatistics, open_supervised

__all__ = [
    "describe_exit",
    "LastLines",
    "open_child",
    "Restarts",
    "open_supervised",
    "Supervised",
    "SupervisorStatistics",
]
