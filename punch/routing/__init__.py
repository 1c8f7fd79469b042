"""Choosing: who is asked, in which order, why, and who is next. No I/O."""

from collections.abc import Mapping
from types import MappingProxyType

from ._attempts import Attempt, Attempts, GiveUp, Try
from ._completion_time import CompletionTime
from ._decision import Candidate, Decision
from ._filters import FRESH_SECONDS, STANDARD_FILTERS, Filter
from ._policy import Policy, Scorer
from ._request import RouteRequest, route_request
from ._simple import Chance, LeastRequests, RoundRobin
from ._weighted_sum import PRESETS, WeightedSum, factors

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        policy.name: policy
        for policy in (
            Policy(name="completion-time", scorer=CompletionTime()),
            Policy(name="capability", scorer=WeightedSum(), near=0.0),
            *(
                Policy(name=f"capability-{preset}", scorer=WeightedSum(weights), near=0.0)
                for preset, weights in PRESETS.items()
                if preset != "default"
            ),
            Policy(name="least-requests", scorer=LeastRequests()),
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
    "Candidate",
    "RouteRequest",
    "route_request",
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
    "RoundRobin",
    "Chance",
    # trying
    "Attempts",
    "Attempt",
    "Try",
    "GiveUp",
]
