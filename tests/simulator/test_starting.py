"""A slow peer, a split that runs and one that would have to start: the right one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pytest

from punch.exceptions import ConfigurationError
from punch.simulator import Outcome, Trace, TraceRequest, parse_pool, simulate

# The one that runs reads prompts quickly, and waits for a link at each token of an answer.
UNLIKE = (
    "solo=1,prefill=20,decode=4,slots=1 "
    "warm=1,prefill=120,decode=2,slots=2,workers=2 "
    "cold=1,prefill=400,decode=20,workers=3,start=30"
)

# Each five times, and four times, as fast as the one before.
STEPS = "solo=0.02,slots=1 warm=0.1,workers=2,slots=2 cold=0.4,workers=3,start=20"

# Seconds of arrival, tokens of the prompt, tokens of the answer.
Asked = tuple[float, int, int]


def run(peers: str, policy: str, *asked: Asked, dialers: int = 1) -> Outcome:
    requests = tuple(
        TraceRequest(
            arrival=arrival,
            input_tokens=prompt,
            output_tokens=output,
            blocks=tuple(range(100 * number, 100 * number + 1 + prompt // 512)),
            block_tokens=512,
            conversation=number,
        )
        for number, (arrival, prompt, output) in enumerate(asked)
    )
    trace = Trace(name="made up", requests=requests)
    return simulate(trace, parse_pool(peers), policy, 1, limited=True, dialers=dialers)


def seconds(outcome: Outcome) -> Sequence[float]:
    """Of each answer; all came."""
    assert [one.failure for one in outcome.requests if one.failure] == []
    return [one.completion or 0.0 for one in outcome.requests]


@pytest.mark.parametrize(
    ("prompt", "output", "chosen"),
    [
        (20, 10, "solo"),
        (20, 100, "solo"),
        (20, 190, "cold"),
        (400, 10, "warm"),
        (2000, 20, "warm"),
        (2000, 100, "cold"),
        (6000, 10, "cold"),
    ],
)
def test_the_choice_follows_the_lengths_as_the_truth_does(
    prompt: int, output: int, chosen: str
) -> None:
    """The oracle knows when each would be done, and chooses the same."""
    for policy in ("completion-time", "oracle"):
        (one,) = run(UNLIKE, policy, (0.0, prompt, output)).requests
        assert (policy, one.peer) == (policy, chosen)


@pytest.mark.parametrize(
    "asked",
    [
        [(0.3 * k, 100, 150) for k in range(8)],
        [(1.1 * k, 100, 100) for k in range(12)],
        [(0.5 * k, 1000, 10) for k in range(12)],
        [(3.0 * k, 200 + 150 * (k % 4), 20 + 36 * (k % 6)) for k in range(24)],
    ],
    ids=["at once", "long answers", "long prompts", "of all kinds"],
)
def test_as_queues_grow_it_stays_within_a_few_per_cent_of_the_truth(asked: list[Asked]) -> None:
    """Neither too many wait for a start, nor too few; nobody is sent to the slow peer for it."""
    ours, best = run(STEPS, "completion-time", *asked), run(STEPS, "oracle", *asked)
    assert fmean(seconds(ours)) <= 1.05 * fmean(seconds(best))
    assert {one.peer for one in ours.requests} <= {"warm", "cold", "solo"}
    assert any(one.peer == "cold" for one in ours.requests)


def test_a_policy_that_counts_no_seconds_starts_nothing() -> None:
    """Two peers run, and that is enough for it."""
    outcome = run(STEPS, "least-requests", *[(1.0 * k, 100, 50) for k in range(4)])
    assert {one.peer for one in outcome.requests} <= {"solo", "warm"}


def test_dialers_that_share_nothing_start_it_once() -> None:
    """The second waits for the start of the first."""
    outcome = run(STEPS, "completion-time", (0.0, 100, 200), (5.0, 100, 200), dialers=2)
    assert [one.peer for one in outcome.requests] == ["cold", "cold"]
    assert max(seconds(outcome)) <= 34.0


def test_a_pool_of_what_nobody_runs_answers_all_the_same() -> None:
    """After its start, and the time in which others could be met."""
    outcome = run("cold=1,workers=2,start=10", "completion-time", (0.0, 100, 50))
    assert 10.0 <= seconds(outcome)[0] <= 10.0 + 5.0 + 2.0


@pytest.mark.parametrize("field", ["start=-1", "workers=half"])
def test_a_start_that_makes_no_sense_is_refused(field: str) -> None:
    """By its name."""
    with pytest.raises(ConfigurationError, match=field.split("=")[0]):
        parse_pool(f"cold=1,{field}")
