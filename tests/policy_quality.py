"""The short comparison that gates a change of the default policy: scenarios, and what they found.

`benchmarks/policies.py --record` records anew what `tests/simulator/recorded.json` holds; do it
when the policy has become better, and say in the commit why the numbers moved.
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random

import attrs

from punch.routing import POLICIES, Policy
from punch.simulator import Figures, Pool, Trace, at_load, open_trace, parse_pool, simulate

RECORDED = Path(__file__).parent / "simulator" / "recorded.json"

# Figure to the share by which it may be worse. Runs are deterministic, but any change of the order
# in which tasks run makes them other runs, and a 99th percentile hangs on two or four requests.
TOLERANCES = {"mean": 0.05, "p99": 0.15}

# Runs of each scenario: one alone may turn on a single choice.
SEEDS = 2


@attrs.frozen(kw_only=True)
class Scenario:
    """One short run in which some of the terms decide."""

    trace: str
    peers: str
    load: float
    requests: int
    terms: frozenset[str]
    """Terms that it shows the worth of."""


SCENARIOS: Mapping[str, Scenario] = {
    "unlike speeds": Scenario(
        trace="conversation",
        peers="1:4:10",
        load=0.8,
        requests=200,
        terms=frozenset({"prefill", "decode", "queue"}),
    ),
    "turns of conversations": Scenario(
        trace="conversation",
        peers="1:1:1:1",
        load=0.3,
        requests=200,
        terms=frozenset({"cached"}),
    ),
    "far away": Scenario(
        trace="conversation",
        peers="near=10 far=10,delay=0.3 farther=10,delay=0.6",
        load=0.1,
        requests=50,
        terms=frozenset({"rtt"}),
    ),
    "not loaded": Scenario(
        trace="conversation",
        peers="warm=4 cold=4,load=6 colder=4,load=12",
        load=0.15,
        requests=50,
        terms=frozenset({"load"}),
    ),
    "failing": Scenario(
        trace="conversation",
        peers="well=2 weary=0.5,fail=0.8",
        load=0.5,
        requests=100,
        terms=frozenset({"penalty"}),
    ),
}


@cache
def _prepared(name: str, seed: int) -> tuple[Trace, Pool]:
    scenario = SCENARIOS[name]
    pool = parse_pool(scenario.peers)
    rng = Random(f"gate {name} {seed}")
    trace = open_trace(scenario.trace, scenario.requests, rng, prompt_tokens=1000)
    return at_load(trace, pool, scenario.load), pool


def measure(name: str, policy: Policy | str) -> dict[str, float]:
    """How *policy* does in the scenario *name*: each figure in seconds, and what failed."""
    runs = []
    for seed in range(SEEDS):
        trace, pool = _prepared(name, seed)
        runs.append(Figures.of(simulate(trace, pool, policy, seed)))
    found = {
        figure: statistics.geometric_mean(getattr(run, figure) for run in runs)
        for figure in TOLERANCES
    }
    return {**found, "failures": sum(run.failures for run in runs)}


def recorded() -> dict[str, dict[str, float]]:
    """Scenario to figure to value, as the default policy had it."""
    found = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {name: dict(figures) for name, figures in found.items()}


def worse(name: str, found: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """What has become worse, in words; nothing if the gate is open."""
    complaints = [
        f"{name}: {figure} was {before[figure]:.3f} s and is {found[figure]:.3f} s"
        for figure, tolerance in TOLERANCES.items()
        # Written so that what is not a number is worse.
        if not found[figure] <= before[figure] * (1 + tolerance)
    ]
    if found["failures"] > before["failures"]:
        complaints.append(f"{name}: {found['failures']:.0f} requests failed")
    return complaints


def record() -> None:
    """Write down how the default policy does now."""
    logging.disable(logging.CRITICAL)
    policy = next(iter(POLICIES.values()))
    found = {
        name: {figure: round(value, 6) for figure, value in measure(name, policy).items()}
        for name in SCENARIOS
    }
    RECORDED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
