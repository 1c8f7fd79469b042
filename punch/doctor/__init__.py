"""Decides what is wrong with a set-up, and what to do about it, by facts that others gathered.

Every judge takes facts and gives findings. Gathering the facts is left to `punch.cli.doctor`. A
finding keeps its private parts apart, so that a report may be posted without them.
"""

from ._finding import CHECKS, Finding, State, note, unknown, well, wrong
from ._machine import (
    ClockFacts,
    EngineFacts,
    EngineTry,
    FolderFact,
    GpuFacts,
    InterfaceFacts,
    LaneFact,
    PortFact,
    judge_clock,
    judge_disk,
    judge_engines,
    judge_gpus,
    judge_interfaces,
    judge_ports,
)
from ._namespace import (
    GrantFacts,
    MeetingFacts,
    MeetingPoint,
    NameFacts,
    OtherSource,
    OwnListener,
    PeerFact,
    judge_firewall,
    judge_grant,
    judge_hello,
    judge_meeting,
    judge_minors,
    judge_name,
    judge_paths,
    judge_relay,
)
from ._offers import OfferFact, judge_models
from ._report import Report, report_of
from ._settings import SettingFault, judge_settings
from ._text import NOTHING, Disguise, Private, Text, text

__all__ = [
    # what is found
    "Finding",
    "State",
    "CHECKS",
    "well",
    "note",
    "unknown",
    "wrong",
    "Report",
    "report_of",
    # sentences with private parts
    "Text",
    "Private",
    "Disguise",
    "NOTHING",
    "text",
    # this machine
    "judge_settings",
    "SettingFault",
    "judge_clock",
    "ClockFacts",
    "judge_interfaces",
    "InterfaceFacts",
    "judge_ports",
    "PortFact",
    "judge_disk",
    "FolderFact",
    "judge_gpus",
    "GpuFacts",
    "judge_engines",
    "EngineFacts",
    "EngineTry",
    "LaneFact",
    # the namespace
    "judge_name",
    "NameFacts",
    "judge_grant",
    "GrantFacts",
    "judge_meeting",
    "MeetingFacts",
    "MeetingPoint",
    "OtherSource",
    "judge_firewall",
    "OwnListener",
    "judge_hello",
    "judge_minors",
    "PeerFact",
    "judge_models",
    "OfferFact",
    "judge_relay",
    "judge_paths",
]
