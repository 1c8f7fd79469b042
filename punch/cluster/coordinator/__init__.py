"""The coordinator: a model over several machines, as a backend of an ordinary listener.

It plans what lies where, borrows that, runs the head, and starts anew when a worker is lost. Who
lends, and how the bytes travel, is behind `Lender`.
"""

from ._arguments import split_arguments
from ._lending import Lendable, Lender, LentDevice, Loan, LoanLook
from ._on_demand import DEFAULT_IDLE_SECONDS, OnDemand, SplitOnDemand, open_on_demand
from ._open import Outlook, ask_build, open_split, plan_once
from ._plain import UNAUTHENTICATED, ForeignLender, PlainLender, PlainSpeeds, read_address
from ._planning import Planner
from ._split import Split
from ._versions import HeadBuild
from ._workers import UNMEASURED, UNMEASURED_RATE, WorkerLender

__all__ = [
    "open_split",
    "plan_once",
    "Outlook",
    "Split",
    "open_on_demand",
    "OnDemand",
    "SplitOnDemand",
    "DEFAULT_IDLE_SECONDS",
    "Planner",
    "ask_build",
    "HeadBuild",
    "split_arguments",
    # who lends
    "Lender",
    "Lendable",
    "LentDevice",
    "Loan",
    "LoanLook",
    "WorkerLender",
    "UNMEASURED",
    "UNMEASURED_RATE",
    "PlainLender",
    "ForeignLender",
    "UNAUTHENTICATED",
    "PlainSpeeds",
    "read_address",
]
