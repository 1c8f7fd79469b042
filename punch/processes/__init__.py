"""Child processes of punch: start, watch, start again, and end with all that they started.

Only processes that were started here are ever touched. What a program is for, and when it counts
as ready, is said by the rooms that run one.
"""

from ._busy import busy_seconds
from ._child import Child, LastLines, describe_exit, open_child, start_child
from ._control_group import open_control_group
from ._loading import tell_loading
from ._marks import ProcessMark
from ._restarts import Restarts
from ._supervisor import Supervised, SupervisorStatistics, open_supervised

__all__ = [
    "Child",
    "open_child",
    "start_child",
    "open_control_group",
    "LastLines",
    "describe_exit",
    "tell_loading",
    "ProcessMark",
    "busy_seconds",
    "Restarts",
    "open_supervised",
    "Supervised",
    "SupervisorStatistics",
]
