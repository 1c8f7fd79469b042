"""The decision log: every decision, every attempt and every end, as one JSON object a line.

It holds no text of a prompt or an answer: only their lengths, and what was weighed and measured.

Schema, version 1. Fields are only ever added; one that has its default is left out, and one that
a reader does not know is to be ignored. Every line has

| field | |
| --- | --- |
| ``v`` | version of the schema, 1 |
| ``kind`` | ``decided``, ``attempted``, ``ended`` or ``dropped`` |
| ``run`` | who wrote it: a word drawn for each `open_decision_log`; several may share a file |
| ``time`` | seconds since 1970, of the machine's clock |
| ``monotonic`` | seconds of the router's clock, as `Decided.now` and `PeerRecord.seen_at` |

and the fields of `Decided`, `Attempted`, `Ended` or `Dropped`, in which each value is spelled as
its attrs class is: `RouteRequest`, `PeerRecord`, `Usage`, `Timings` and `Segment`. Numbers that
JSON has no word for are the texts ``inf``, ``-inf`` and ``nan``.

The file has mode 0600. When it would pass its size it is renamed to ``NAME.1``, which replaces
the one before.
"""

from ._entries import LOG_VERSION, Attempted, Decided, Dropped, Ended, Entry, ScoredCandidate
from ._line import LineMade
from ._reader import BadLine, LogLine, Story, read_line, read_log, stories, story_as_data
from ._writer import DecisionLog, DecisionLogStatistics, open_decision_log

__all__ = [
    # writing
    "open_decision_log",
    "DecisionLog",
    "DecisionLogStatistics",
    # hearing it in the same process
    "LineMade",
    # lines
    "LOG_VERSION",
    "Entry",
    "Decided",
    "ScoredCandidate",
    "Attempted",
    "Ended",
    "Dropped",
    # reading
    "read_log",
    "read_line",
    "LogLine",
    "BadLine",
    "stories",
    "story_as_data",
    "Story",
]
