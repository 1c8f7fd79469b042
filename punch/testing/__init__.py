"""For tests and examples: a network inside one process, and backends that do as they are told."""

from ._backend import ScriptedBackend
from ._memory import MemoryNetwork, MemoryNode, MemoryStream
from ._swarm import Swarm, open_swarm

__all__ = [
    # a network without sockets
    "MemoryNetwork",
    "MemoryNode",
    "MemoryStream",
    # backends
    "ScriptedBackend",
    # all of it together
    "open_swarm",
    "Swarm",
]
