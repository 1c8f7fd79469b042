"""Machines that do not do what they should: each kind does what it says, until it is mended."""

from __future__ import annotations

import json
import math
from random import Random

import attrs
import pytest

from punch.cli.commands._simulate import simulation
from punch.exceptions import ConfigurationError
from punch.simulator import (
    KINDS,
    Harm,
    Outcome,
    Trace,
    at_load,
    open_trace,
    parse_pool,
    simulate,
)


def arrivals(count: int, pool: str, *, load: float = 0.5) -> Trace:
    """*count* requests at a pace that the machines of *pool* that are well can keep."""
    trace = open_trace("conversation", count, Random(3), prompt_tokens=1000)
    return at_load(trace, parse_pool(pool), load)


def alone(kind: str, *, count: int = 6, timeout: float = 30.0) -> Outcome:
    """A run with a machine of some kind and nobody else."""
    pool = f"bad=4,kind={kind}"
    return simulate(arrivals(count, pool), parse_pool(pool), "completion-time", 1, timeout=timeout)


def test_a_blaming_machine_answers_at_once_with_the_callers_fault() -> None:
    """Every request, within two round trips."""
    outcome = alone("blaming")
    assert {one.outcome for one in outcome.asked} == {"invalid_request"}
    assert max(one.seconds for one in outcome.asked) < 0.05
    assert all(one.completion is None for one in outcome.requests)


@pytest.mark.parametrize("kind", ["silent", "stuck"])
def test_a_machine_that_never_answers_gives_no_text(kind: str) -> None:
    """Whether it is a stranger that says nothing or an engine that hangs."""
    outcome = alone(kind)
    assert all(one.first_text is None for one in outcome.requests)
    assert len(outcome.asked) == len(outcome.requests)


def test_a_dripping_machine_gives_a_character_each_four_seconds() -> None:
    """The first after four."""
    outcome = alone("dripping")
    assert {round(one.first_text or 0.0, 1) for one in outcome.requests} == {4.0}
    assert all(one.completion is None for one in outcome.requests)


def test_a_boasting_machine_claims_and_reports_what_it_is_not() -> None:
    """It is chosen before an honest one that is five times as fast, until it was seen."""
    pool = parse_pool("bad=0.4,kind=boasting honest=2")
    outcome = simulate(arrivals(30, "honest=2"), pool, "completion-time", 1)
    own = [index for index, one in enumerate(outcome.asked) if one.peer == "bad"]
    assert own[0] == 0
    assert len(own) < 15


def test_a_fragile_machine_dies_of_long_prompts_only() -> None:
    """And takes what it works on with it; some seconds later it is there again."""
    pool = parse_pool("bad=4,kind=fragile,dies=2000 good=4")
    outcome = simulate(arrivals(60, "good=4"), pool, "round-robin", 1)
    found = {one.outcome for one in outcome.asked if one.peer == "bad"}
    assert found == {"success", "backend_failed"}
    assert all(one.completion is not None for one in outcome.requests)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mended_machine_answers_again(kind: str) -> None:
    """In the same session; what it had begun before stays as it was."""
    pool = parse_pool(f"bad=4,kind={kind},mended=5")
    outcome = simulate(arrivals(40, "good=4"), pool, "round-robin", 1, timeout=10)
    later = [one for one in outcome.requests if one.arrival > 16]
    assert later
    assert all(one.completion is not None for one in later)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_a_machine_of_any_kind_is_the_same_twice(kind: str) -> None:
    """To the last digit."""
    pool = parse_pool(f"good=4 bad=4,kind={kind},mended=8")
    first, second = (
        simulate(arrivals(25, "good=4"), pool, "completion-time", 1, timeout=6) for _ in range(2)
    )
    assert first == second


def test_requests_are_as_many_as_the_machines_that_are_well_can_do() -> None:
    """The others promise more than they do."""
    assert arrivals(20, "1 1 bad=1,kind=silent") == arrivals(20, "1 1")
    # Where no machine is well, they count after all.
    assert arrivals(20, "bad=1,kind=silent") == arrivals(20, "1")


def served(*completions: float | None) -> Outcome:
    """A run with these completion times, in which nothing else is known."""
    pool = parse_pool("1")
    outcome = simulate(arrivals(len(completions), "1"), pool, "random", 1)
    requests = [
        attrs.evolve(one, completion=seconds, attempts=0)
        for one, seconds in zip(outcome.requests, completions, strict=True)
    ]
    return attrs.evolve(outcome, requests=tuple(requests))


def test_harm_is_what_failed_or_lost_more_than_two_seconds() -> None:
    """A request that failed in the reference is nobody's loss here."""
    reference = served(1.0, 1.0, 1.0, None, 5.0)
    harm = Harm.of(served(3.1, 2.9, None, None, 1.0), reference, {"bad": math.inf})
    assert harm.lost == 2 / 4
    assert harm.failed == 1 / 4
    assert math.isnan(harm.found)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a=1,kind=evil", "one of blaming, silent"),
        ("a=1,mended=5", "has no kind"),
        ("a=1,kind=silent,dies=5", "kind=fragile only"),
        ("a=1,kind=fragile,dies=0", "1 or more"),
        ("a=1,claims=0", "0.001 or more"),
        ("a=1,kin=silent", "kind=KIND"),
    ],
)
def test_a_mistake_about_a_kind_is_answered_with_the_rule(text: str, rule: str) -> None:
    """And with what may be written."""
    with pytest.raises(ConfigurationError, match=rule):
        parse_pool(text)


def test_the_command_says_what_a_bad_machine_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """As a second table, and in JSON."""
    options = ["--peers", "good=4 bad=4,kind=blaming,mended=5", "--requests", "20", "--load", "0.5"]
    options += ["--policy", "round-robin", "--timeout", "15"]
    assert simulation(options) == 0
    assert "found after" in capsys.readouterr().out
    assert simulation([*options, "--json"]) == 0
    (harm,) = json.loads(capsys.readouterr().out)["round-robin"]["harm"]
    assert harm["asked"] > 0
    assert harm["found"] > 0
