"""The gate: a change that makes the default policy worse than it was recorded fails here."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs
import pytest
from policy_quality import SCENARIOS, measure, recorded, worse

from punch.peers import Candidate
from punch.routing import POLICIES, RouteRequest, Scorer

pytestmark = pytest.mark.slow

DEFAULT = next(iter(POLICIES.values()))
TERMS = DEFAULT.scorer.term_names


class Flipped:
    """A scorer that takes one term of another for its opposite."""

    def __init__(self, scorer: Scorer, term: str) -> None:
        self.term_names = scorer.term_names
        self.unit = scorer.unit
        self.lowest_is_best = scorer.lowest_is_best
        self._scorer = scorer
        self._index = scorer.term_names.index(term)

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        return [
            tuple(-value if i == self._index else value for i, value in enumerate(terms))
            for terms in self._scorer.terms(request, candidates, rng)
        ]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_default_policy_is_as_good_as_it_was_recorded(name: str) -> None:
    """Record anew with `benchmarks/policies.py --record` if it has become better."""
    assert worse(name, measure(name, DEFAULT), recorded()[name]) == []


@pytest.mark.parametrize("term", TERMS)
def test_the_gate_catches_a_term_with_the_wrong_sign(term: str) -> None:
    """Every term matters somewhere: with its sign flipped, a scenario that shows it is worse."""
    before = recorded()
    policy = attrs.evolve(DEFAULT, scorer=Flipped(DEFAULT.scorer, term))
    shown = [name for name, scenario in SCENARIOS.items() if term in scenario.terms]
    assert shown, f"no scenario shows what {term!r} is worth: add one to tests/policy_quality.py"
    complaints = [
        text for name in shown for text in worse(name, measure(name, policy), before[name])
    ]
    assert complaints != []


def test_the_gate_is_shut_for_what_is_a_little_worse() -> None:
    """Just beyond the tolerance, not a number, or a request that failed."""
    before = {"mean": 1.0, "p99": 2.0, "failures": 0.0}
    assert worse("x", before, before) == []
    for change in ({"mean": 1.06}, {"p99": 2.31}, {"mean": float("nan")}, {"failures": 1.0}):
        assert len(worse("x", before | change, before)) == 1


def test_the_default_policy_is_far_better_than_taking_turns_where_speeds_differ() -> None:
    """Three times at the 99th percentile."""
    ours = measure("unlike speeds", DEFAULT)
    assert measure("unlike speeds", "round-robin")["p99"] >= 3 * ours["p99"]
