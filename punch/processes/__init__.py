"""Child processes: start, watch, restart, and stop the whole group."""

from ._child import LastLines, describe_exit, kill_group, open_child
from ._restarts import Restarts
from ._supervisor import Supervised, SupervisorStatistics, open_supervised

__all__ = [
    "describe_exit",
    "LastLines",
    "open_child",
    "kill_group",
    "Restarts",
    "open_supervised",
    "Supervised",
    "SupervisorStatistics",
]
