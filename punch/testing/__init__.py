"""For tests and examples: a network inside one process, and scripted backends and servers."""

from ._air import Air
from ._backend import ScriptedBackend
from ._forms import EMPTY_ANSWERS, ODD_FAILURES, ODD_FORMS, WORDS, AnswerForm, response
from ._memory import MemoryNetwork, MemoryNode, MemoryStream
from ._rogue import Blaming, Dripping, Manner, Rogue, Silent, Turn
from ._swarm import Swarm, open_swarm
from ._upstream import CUT, RESET, Part, Upstream, answer_event, chunk, head

__all__ = [
    # a network without sockets
    "MemoryNetwork",
    "MemoryNode",
    "MemoryStream",
    # a LAN without sockets
    "Air",
    # backends
    "ScriptedBackend",
    # listeners that misbehave
    "Rogue",
    "Manner",
    "Turn",
    "Silent",
    "Blaming",
    "Dripping",
    # a server for the backends that ask one over HTTP
    "Upstream",
    "Part",
    "CUT",
    "RESET",
    "head",
    "chunk",
    "answer_event",
    "response",
    # what such a server may answer
    "AnswerForm",
    "ODD_FORMS",
    "ODD_FAILURES",
    "EMPTY_ANSWERS",
    "WORDS",
    # all of it together
    "open_swarm",
    "Swarm",
]
