"""Child processes of punch: start, watch, start again, and end with all that they started.

Only processes that were started here are ever touched. What a program is for, and when it counts
as ready, is said by the rooms that run one.
"""

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
