"""The guard of what a peer that misbehaves may cost: a short `benchmarks/misbehaving.py`."""

from __future__ import annotations

from functools import cache
from random import Random

import attrs
import pytest

from punch.simulator import Harm, Outcome, Trace, at_load, open_trace, parse_pool, simulate

GOOD = "good-1=4 good-2=4"
TIMEOUT_SECONDS = 6.0
SEED = 2

# Short, so that it costs little; the first requests, which pay for learning, weigh more here.
REQUESTS = 70
AFTERWARDS = 50

# A quarter of what the good two can do, so that few requests last long enough.
LOAD = 0.25

MAX_LOST = 3
MAX_ASKED = 12
MAX_FOUND_SECONDS = 60.0


@cache
def arrivals() -> tuple[Trace, float]:
    """The requests, and when the third one is mended."""
    rng = Random("guard")
    trace = open_trace("conversation", REQUESTS + AFTERWARDS, rng, prompt_tokens=1000)
    trace = at_load(trace, parse_pool(GOOD), LOAD)
    return trace, trace.requests[REQUESTS].arrival


def run(third: str = "") -> Outcome:
    """One run, its requests until the mending."""
    trace, _ = arrivals()
    outcome = simulate(
        trace, parse_pool(f"{GOOD} {third}"), "completion-time", SEED, timeout=TIMEOUT_SECONDS
    )
    return attrs.evolve(outcome, requests=outcome.requests[:REQUESTS])


@cache
def reference() -> Outcome:
    """The same requests without a third machine."""
    return run()


@pytest.mark.parametrize(
    "kind",
    [
        "dripping",
        # Each run takes a second; in real sessions all of them are tried in the unit tests, too.
        pytest.param("blaming", marks=pytest.mark.slow),
        pytest.param("silent", marks=pytest.mark.slow),
    ],
)
def test_one_peer_that_misbehaves_costs_callers_little_and_is_found_again(kind: str) -> None:
    """Few requests are lost, few go there, and within a minute of its mending one is answered."""
    _, mended_at = arrivals()
    outcome = run(f"bad=4,kind={kind},mended={mended_at}")
    harm = Harm.of(outcome, reference(), {"bad": mended_at})
    before = [one for one in outcome.asked if one.peer == "bad" and one.at < mended_at]
    assert harm.lost * REQUESTS <= MAX_LOST
    assert len(before) <= MAX_ASKED
    assert harm.found <= MAX_FOUND_SECONDS
