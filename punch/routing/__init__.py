"""Choosing: who is asked, in which order, why, and who is next. No I/O."""

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from ._attempts import (
    GAVE_UP_DOUBT,
    MAX_PATIENCE_SECONDS,
    MIN_PATIENCE_SECONDS,
    PATIENCE_FACTOR,
    Attempts,
    GiveUp,
    Reason,
    Try,
    Wait,
)
from ._budget import HEDGE_RESERVE, HEDGE_SHARE, LATE_LEAVES, Budget
from ._completion_time import CompletionTime
from ._decision import Assessment, Decision, Prediction
from ._failed import OBJECTION_DOUBT, WISHED, FailedAttempt, Presence, doubt_of, objects
from ._filters import FRESH_SECONDS, STANDARD_FILTERS, Filter
from ._learned import LearnedState
from ._lengths import Lengths
from ._policy import EXPLORE, HOT_QUANTILE, NEAR_SECONDS, Policy, Scorer
from ._prefixes import PrefixIndex
from ._request import RouteRequest, route_request
from ._simple import (
    Chance,
    LeastRequests,
    PendingAndPressure,
    PrefixAffinity,
    RoundRobin,
    TwoChoices,
)
from ._stalls import Pace, StallDetector, floor_within
from ._stops import StopAcrossPeers
from ._weighted_sum import PRESETS, WeightedSum, factors
from .starts import Startable, StartableOffer, Starts

DEFAULT = Policy(
    name="completion-time",
    scorer=CompletionTime(),
    near_most=NEAR_SECONDS,
    gate=HOT_QUANTILE,
    explore=EXPLORE,
)

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            DEFAULT,
            Policy(name="capability", scorer=WeightedSum(), near=0.0),
            *(
                Policy(name=f"capability-{preset}", scorer=WeightedSum(weights), near=0.0)
                for preset, weights in PRESETS.items()
                if preset != "default"
            ),
            Policy(name="least-requests", scorer=LeastRequests()),
            Policy(name="two-choices", scorer=TwoChoices()),
            Policy(name="pending-and-pressure", scorer=PendingAndPressure(), near=0.0),
            attrs.evolve(DEFAULT, name="least-seconds", scorer=CompletionTime(affinity=False)),
            Policy(name="prefix-affinity", scorer=PrefixAffinity()),
            Policy(name="round-robin", scorer=RoundRobin(), near=0.0),
            Policy(name="random", scorer=Chance(), near=0.0),
        )
    }
)
"""Every policy with a name; the first is the default."""

__all__ = [
    # deciding
    "Policy",
    "POLICIES",
    "Decision",
    "Assessment",
    "Prediction",
    "RouteRequest",
    "route_request",
    "LearnedState",
    "Lengths",
    "PrefixIndex",
    # what could be started
    "StartableOffer",
    "Startable",
    "Starts",
    # filters
    "Filter",
    "STANDARD_FILTERS",
    "FRESH_SECONDS",
    # scorers
    "Scorer",
    "CompletionTime",
    "WeightedSum",
    "PRESETS",
    "factors",
    "LeastRequests",
    "TwoChoices",
    "PendingAndPressure",
    "PrefixAffinity",
    "RoundRobin",
    "Chance",
    # trying
    "Attempts",
    "FailedAttempt",
    "Presence",
    "objects",
    "OBJECTION_DOUBT",
    "WISHED",
    "doubt_of",
    "GAVE_UP_DOUBT",
    "MIN_PATIENCE_SECONDS",
    "MAX_PATIENCE_SECONDS",
    "PATIENCE_FACTOR",
    "Try",
    "Wait",
    "GiveUp",
    "Reason",
    "Budget",
    "HEDGE_SHARE",
    "LATE_LEAVES",
    "HEDGE_RESERVE",
    "StallDetector",
    "Pace",
    "floor_within",
    "StopAcrossPeers",
]
