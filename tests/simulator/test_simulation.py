"""Whole runs: deterministic, and true to the model."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from random import Random

import pytest

from punch.cli.commands._simulate import simulation
from punch.exceptions import ConfigurationError
from punch.simulator import (
    Figures,
    Outcome,
    at_load,
    estimate,
    open_trace,
    parse_pool,
    picture,
    simulate,
)
from punch.simulator import table as as_table
from punch.simulator._run import DELAY


def run(
    peers: str = "1:4",
    policy: str = "completion-time",
    *,
    count: int = 30,
    load: float = 0.5,
    kind: str = "conversation",
    dialers: int = 1,
    delay: float = DELAY,
    jitter: float = 0.0,
    loss: float = 0.0,
) -> Outcome:
    pool = parse_pool(peers)
    trace = open_trace(kind, count, Random(5), prompt_tokens=1000)
    return simulate(
        at_load(trace, pool, load),
        pool,
        policy,
        1,
        dialers=dialers,
        delay=delay,
        jitter=jitter,
        loss=loss,
    )


@pytest.mark.parametrize("policy", ["completion-time", "oracle", "random"])
def test_the_same_run_twice_is_the_same_to_the_last_digit(policy: str) -> None:
    """With several dialers, jitter, losses and a machine that comes and goes."""
    peers = "1:4 flighty=2,up=5,down=5"
    first, second = (
        run(peers, policy, count=20, dialers=2, jitter=0.02, loss=0.05) for _ in range(2)
    )
    assert first == second


def test_every_request_ends_and_takes_no_less_than_the_model_says() -> None:
    """Reading, writing and the way there and back."""
    outcome = run("2", load=0.2, delay=0.1)
    assert len(outcome.requests) == 30
    for one in outcome.requests:
        least = (one.prompt_tokens - one.cached_tokens) / 2000 + (one.output_tokens - 1) / 100
        assert one.failure is None
        assert one.completion is not None
        assert one.first_text is not None
        assert one.completion >= least + 0.2 - 0.01
        assert one.first_text <= one.completion


def test_an_oracle_is_better_than_chance() -> None:
    """It had better be."""
    assert Figures.of(run(policy="oracle")).mean < Figures.of(run(policy="random")).mean


def test_turns_of_a_conversation_find_their_prompt_in_the_cache() -> None:
    """One machine has seen them all."""
    assert Figures.of(run("4")).hit_rate > 0.1
    assert Figures.of(run("4,cache=0")).hit_rate == 0


def test_code_shares_nothing() -> None:
    """So nothing is found."""
    assert Figures.of(run("4", kind="code")).hit_rate == 0


def test_a_machine_that_goes_loses_no_request_that_was_not_begun() -> None:
    """The others answer."""
    outcome = run("steady=2 flighty=4,up=1,down=1", load=0.3)
    assert all(one.completion is not None or one.first_text is not None for one in outcome.requests)


def test_nonsense_is_refused_before_anything_runs() -> None:
    """With the names there are."""
    with pytest.raises(ConfigurationError, match="completion-time"):
        run(policy="best")
    with pytest.raises(ConfigurationError, match="1000"):
        run("990x1", dialers=20)


def test_an_interval_is_students() -> None:
    """Two runs say little; one says nothing of its own spread."""
    assert estimate([3.0]).margin == 0
    assert estimate([1.0, 3.0]).margin == pytest.approx(12.706)


def test_the_picture_is_a_document_with_a_curve_for_each_policy() -> None:
    """Two panels; the names are written out."""
    outcomes = {"a & b": [run("4", count=10)], "second": [run("4", count=10)]}
    root = ElementTree.fromstring(picture(outcomes, title="t < u"))
    curves = root.findall("{http://www.w3.org/2000/svg}polyline")
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(curves) == 4
    assert {"a & b", "second", "t < u"} <= set(texts)
    assert len(as_table(outcomes).splitlines()) == 3


def test_the_command_prints_a_table_and_writes_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each policy."""
    file = tmp_path / "picture.svg"
    options = ["--peers", "1:4", "--requests", "10", "--policy", "random", "--picture", str(file)]
    assert simulation(options) == 0
    printed = capsys.readouterr().out
    assert "10 requests of conversation on 1:4, load 80%" in printed
    assert "\nrandom " in printed
    assert file.read_text(encoding="utf-8").startswith("<svg")


def test_the_command_takes_equal_machines_by_their_speed_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In several words, as a person writes them."""
    options = ["--peers", "1 1 1 5.6", "--requests", "10", "--policy", "random", "--json"]
    assert simulation(options) == 0
    (run,) = json.loads(capsys.readouterr().out)["random"]["runs"]
    assert set(run["use"]) == {"a-x1", "b-x1", "c-x1", "d-x5.6"}


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure of every run, and what several of them make."""
    options = ["--peers", "1:4", "--requests", "10", "--seeds", "2", "--policy", "random", "--json"]
    assert simulation(options) == 0
    found = json.loads(capsys.readouterr().out)["random"]
    assert len(found["runs"]) == 2
    assert set(found["estimates"]["p99"]) == {"mean", "margin"}


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with the code for a wrong option."""
    assert simulation(["--peers", "1:?"]) == 2
    assert capsys.readouterr().err.startswith("punch: --peers: '1:?' describes no machine")
