"""Compares the policies on simulated swarms, and writes a section of RESULTS.md.

    benchmarks/policies.py                     the whole table, on two processes
    benchmarks/policies.py --quick             two seeds and fewer requests; less exact
    benchmarks/policies.py --traces FOLDER     the recorded traces in place of the made-up ones
    benchmarks/policies.py --write             ... and rewrites the section and the picture
    benchmarks/policies.py --record            only records what the tests compare with

FOLDER holds ``mooncake_conversation.jsonl`` and ``azure_code_2023.csv``; README.md beside this
file says where they are published. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import attrs
from _results import Section

from punch.routing import POLICIES
from punch.simulator import (
    COLUMNS,
    ORACLE,
    Estimate,
    Figures,
    Outcome,
    Trace,
    at_load,
    estimate,
    number,
    open_trace,
    parse_pool,
    picture,
    simulate,
)

HERE = Path(__file__).parent
PICTURE = HERE / "policies.svg"
SECTION = Section("policies")

FILES = {"conversation": "mooncake_conversation.jsonl", "code": "azure_code_2023.csv"}
POOLS = {"1:1:1:1": "1:1:1:1", "1:4:10": "1:4:10", "home": "home"}
LOADS = (0.5, 0.8, 0.95)
LOADED_SHARE = 0.8
LOADED = tuple((trace, pool, LOADED_SHARE) for trace in FILES for pool in POOLS)
OURS = "completion-time"
WANTED = (
    *(OURS, "round-robin", "random", "least-requests", "two-choices", "capability"),
    *("pending-and-pressure", "least-seconds", "prefix-affinity", ORACLE),
)
POLICY_NAMES = tuple(name for name in WANTED if name == ORACLE or name in POLICIES)

SEEDS = 10
REQUESTS = 200
PROMPT_TOKENS = 1000.0

# What the picture shows.
SHOWN = ("conversation", "1:4:10", 0.8)

# A row of the results: this many dialers share the load. They learn the machines each for itself,
# so their runs are longer: what is compared is dialers that share nothing, not ones that know
# nothing yet.
MANY_DIALERS = 10
MAX_EXCESS = 0.05
LONGER = 4


@attrs.frozen(kw_only=True)
class Case:
    """One trace on one pool, for every policy: what a process does at a time."""

    trace: str
    """``conversation`` or ``code``."""

    source: str
    """The same, or the path of a file."""

    pool: str
    """A key of `POOLS`."""

    load: float
    """Share of the pool's capacity."""

    seed: int
    """Which requests, and what chance begins from."""

    requests: int
    """How many."""


@attrs.frozen(kw_only=True)
class Found:
    """What became of one case."""

    case: Case
    figures: Mapping[str, Figures]
    cold: Figures | None
    """Of many dialers, in a run as long as the others."""
    pair: tuple[Figures, Figures] | None
    """Of one dialer and of many, in longer runs."""
    shown: Mapping[str, Outcome] | None


def cut(case: Case, requests: int) -> Trace:
    """So many *requests* of the trace of *case*, at its load."""
    rng = Random(f"{case.trace} {case.seed}")
    trace = open_trace(case.source, requests, rng, prompt_tokens=PROMPT_TOKENS)
    return at_load(trace, parse_pool(POOLS[case.pool]), case.load)


def pair_of(case: Case) -> tuple[Figures, Figures]:
    """One dialer and many, in longer runs of *case*."""
    logging.disable(logging.CRITICAL)
    pool, longer = parse_pool(POOLS[case.pool]), cut(case, LONGER * case.requests)
    one, many = (
        Figures.of(simulate(longer, pool, OURS, case.seed, dialers=dialers))
        for dialers in (1, MANY_DIALERS)
    )
    return one, many


def run_case(case: Case) -> Found:
    """Every policy on one case."""
    logging.disable(logging.CRITICAL)
    pool, trace = parse_pool(POOLS[case.pool]), cut(case, case.requests)
    outcomes = {name: simulate(trace, pool, name, case.seed) for name in POLICY_NAMES}
    cold = pair = None
    if case.load == LOADED_SHARE:
        cold = Figures.of(simulate(trace, pool, OURS, case.seed, dialers=MANY_DIALERS))
        pair = pair_of(case)
    return Found(
        case=case,
        figures={name: Figures.of(outcome) for name, outcome in outcomes.items()},
        cold=cold,
        pair=pair,
        shown=outcomes if (case.trace, case.pool, case.load) == SHOWN else None,
    )


class Grid:
    """All that was found, by trace, pool and load."""

    def __init__(self, found: Sequence[Found]) -> None:
        self._found: dict[tuple[str, str, float], list[Found]] = {}
        for one in sorted(found, key=lambda one: one.case.seed):
            key = (one.case.trace, one.case.pool, one.case.load)
            self._found.setdefault(key, []).append(one)

    def places(self) -> Iterator[tuple[str, str, float]]:
        """Trace, pool and load of every row."""
        for trace in FILES:
            for pool in POOLS:
                for load in LOADS:
                    yield trace, pool, load

    def values(self, place: tuple[str, str, float], policy: str, figure: str) -> list[float]:
        """One figure of every run."""
        return [getattr(one.figures[policy], figure) for one in self._found[place]]

    def estimate(self, place: tuple[str, str, float], policy: str, figure: str) -> Estimate:
        """The same with its interval."""
        return estimate(self.values(place, policy, figure))

    def pairs(self, place: tuple[str, str, float], figure: str) -> list[tuple[float, float]]:
        """One figure of every longer run, with one dialer and with many."""
        return [
            (getattr(one.pair[0], figure), getattr(one.pair[1], figure))
            for one in self._found[place]
            if one.pair is not None
        ]

    def cold(self, place: tuple[str, str, float], figure: str) -> list[tuple[float, float]]:
        """The same of the runs in which nobody has had time to learn."""
        return [
            (getattr(one.figures[OURS], figure), getattr(one.cold, figure))
            for one in self._found[place]
            if one.cold is not None
        ]

    def shown(self) -> dict[str, list[Outcome]]:
        """What the picture shows."""
        outcomes: dict[str, list[Outcome]] = {}
        for one in self._found[SHOWN]:
            for name, outcome in (one.shown or {}).items():
                outcomes.setdefault(name, []).append(outcome)
        return outcomes


@attrs.frozen
class Check:
    """One target of the issue at one place."""

    what: str
    found: str
    met: bool


def ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Ratio of the means over the runs."""
    return statistics.fmean(ours) / statistics.fmean(others)


def checks(grid: Grid) -> list[Check]:
    """The targets, each at every place where it is demanded."""
    found = []
    for place in grid.places():
        trace, pool, load = place
        where = f"{trace}, {pool}, {load:.0%}"
        p99 = grid.values(place, OURS, "p99")
        if pool == "1:4:10":
            times = ratio(grid.values(place, "round-robin", "p99"), p99)
            what = f"{where}: p99 at least 3x better than round-robin"
            found.append(Check(what, f"{number(times)}x", times >= 3))
        worse = []
        for other in POLICY_NAMES:
            if other in (OURS, ORACLE):
                continue
            # The same requests for both, so what matters is the difference within each run.
            pairs = zip(p99, grid.values(place, other, "p99"), strict=True)
            gap = estimate([ours - theirs for ours, theirs in pairs])
            if gap.mean > gap.margin:
                worse.append(f"{other} is better by {gap} s")
        what = f"{where}: p99 not worse than any other policy, beyond the interval"
        found.append(Check(what, "; ".join(worse) or "never", not worse))
        if load == LOADED_SHARE:
            for figure, name in (("p99", "p99"), ("mean", "mean")):
                times = ratio(grid.values(place, OURS, figure), grid.values(place, ORACLE, figure))
                what = f"{where}: {name} within 1.25x of the oracle"
                found.append(Check(what, f"{number(times)}x", times <= 1.25))
            for figure in ("mean", "p99"):
                one, many = zip(*grid.pairs(place, figure), strict=True)
                excess = estimate([m - 1.1 * o for o, m in grid.pairs(place, figure)])
                what = f"{where}: {figure} with ten dialers at most 10 % above that with one"
                what += ", beyond the interval"
                met = excess.mean <= excess.margin
                found.append(Check(what, f"{ratio(many, one) - 1:+.1%}", met))
    return [*found, *pooled(grid)]


def pooled(grid: Grid) -> list[Check]:
    """Ten dialers against one over all runs: single runs differ by 15 % for no reason at all.

    Which of two equal peers gets a request decides about everything that follows, so the same
    run with another seed, or one dialer with a little more delay, is another run.
    """
    found = []
    for figure in ("mean", "p99"):
        excess = excess_of([pair for place in LOADED for pair in grid.pairs(place, figure)])
        what = f"both traces, all pools, 80 %: {figure} with ten dialers at most 5 % above one"
        found.append(Check(what, in_percent(excess), excess.mean <= math.log(1 + MAX_EXCESS)))
    return found


def excess_of(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """By how much the second ones are above the first, as a logarithm."""
    return estimate([math.log(many / one) for one, many in pairs])


def in_percent(excess: Estimate) -> str:
    """The same with its interval, as text."""
    low, middle, high = (math.exp(excess.mean + sign * excess.margin) - 1 for sign in (-1, 0, 1))
    return f"{middle:+.1%} ({low:+.1%} to {high:+.1%})"


def cold_start(grid: Grid) -> str:
    """What ten dialers lose while they know nothing."""
    mean, p99 = (
        in_percent(excess_of([pair for place in LOADED for pair in grid.cold(place, figure)]))
        for figure in ("mean", "p99")
    )
    return (
        f"The rows of ten dialers compare runs {LONGER} times as long as the others. In runs as\n"
        "short as those, from a start at which nobody knows a machine, the mean with ten dialers\n"
        f"is {mean} and the 99th percentile {p99} above that with one:\n"
        "each learns the machines for itself."
    )


def matrix(grid: Grid, trace: str, figure: str) -> str:
    """One figure of every policy, at every pool and load."""
    lines = [
        f"| {trace} | {' | '.join(POLICY_NAMES)} |",
        f"| --- |{' --- |' * len(POLICY_NAMES)}",
    ]
    for place in grid.places():
        if place[0] == trace:
            cells = [str(grid.estimate(place, name, figure)) for name in POLICY_NAMES]
            lines.append(f"| {place[1]}, {place[2]:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def full_table(grid: Grid) -> str:
    """Every figure of every policy at every place."""
    lines = [
        f"| where | policy | {' | '.join(COLUMNS.values())} |",
        f"| --- | --- |{' --- |' * len(COLUMNS)}",
    ]
    for place in grid.places():
        for name in POLICY_NAMES:
            cells = [str(grid.estimate(place, name, figure)) for figure in COLUMNS]
            where = f"{place[0]}, {place[1]}, {place[2]:.0%}"
            lines.append(f"| {where} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def section(grid: Grid, *, command: str, source: str, seeds: int, requests: int) -> str:
    """What goes into RESULTS.md."""
    targets = checks(grid)
    lines = [
        "## Policies, side by side",
        "",
        f"`{command}`: {requests} requests a run, {seeds} seeds, {source}, scaled to prompts of",
        f"{PROMPT_TOKENS:.0f} tokens on the average. Means over the seeds with 95 % intervals;",
        "times in seconds. The load is the share of what the pool completes at full batches with",
        "empty caches. The routers, sessions and listeners are the real ones; the machines are",
        "models (`punch/simulator/_engine.py`). The same command gives the same numbers.",
        "",
        f"![Time to the first text and to the whole answer]({PICTURE.name})",
        "",
    ]
    for title, figure in (
        ("99th percentile of the time to the whole answer", "p99"),
        ("Mean time to the whole answer", "mean"),
        ("99th percentile of the time to the first text", "first_p99"),
        ("Share of the prompt tokens found in a cache", "hit_rate"),
    ):
        lines += [f"### {title}", ""]
        for trace in FILES:
            lines += [matrix(grid, trace, figure), ""]
    lines += ["### Targets", "", "| target | found | met |", "| --- | --- | --- |"]
    lines += [f"| {c.what} | {c.found} | {'yes' if c.met else '**no**'} |" for c in targets]
    lines += [
        "",
        cold_start(grid),
        "",
        "<details><summary>Every figure</summary>",
        "",
        full_table(grid),
        "",
        "</details>",
    ]
    return "\n".join(lines)


def _cases(folder: Path | None, seeds: int, requests: int) -> list[Case]:
    return [
        Case(
            trace=trace,
            source=trace if folder is None else str(folder / FILES[trace]),
            pool=pool,
            load=load,
            seed=seed,
            requests=requests,
        )
        for seed in range(seeds)
        for trace in FILES
        for pool in POOLS
        for load in LOADS
    ]


def _record() -> int:
    """Record what the tests compare with."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import policy_quality

    policy_quality.record()
    print(f"recorded {policy_quality.RECORDED.name}", file=sys.stderr)
    return 0


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two seeds of 150 requests")
    parser.add_argument("--traces", type=Path, metavar="FOLDER", help="the recorded traces")
    parser.add_argument("--seeds", type=int, default=None, metavar="K")
    parser.add_argument("--requests", type=int, default=None, metavar="N")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--write", action="store_true", help="rewrite the section and the picture")
    parser.add_argument("--record", action="store_true", help="record what the tests compare with")
    given = parser.parse_args()
    if given.record:
        return _record()
    seeds = given.seeds or (2 if given.quick else SEEDS)
    requests = given.requests or (150 if given.quick else REQUESTS)
    began = time.perf_counter()
    cases = _cases(given.traces, seeds, requests)
    found: list[Found] = []
    with multiprocessing.get_context("spawn").Pool(given.processes) as processes:
        for one in processes.imap_unordered(run_case, cases):
            found.append(one)
            print(f"\rbench: {len(found)} of {len(cases)}", end="", file=sys.stderr, flush=True)
    print(f"\rbench: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    grid = Grid(found)
    command = "benchmarks/policies.py" + (" --traces FOLDER" if given.traces else "")
    source = "both recorded traces" if given.traces else "both made-up traces"
    text = section(grid, command=command, source=source, seeds=seeds, requests=requests)
    print(text)
    if given.write:
        SECTION.write(text)
        title = f"{SHOWN[0]} on {SHOWN[1]}, load {SHOWN[2]:.0%}: share of the requests done within"
        PICTURE.write_text(picture(grid.shown(), title=title), encoding="utf-8")
        print(f"bench: wrote {PICTURE.name}", file=sys.stderr)
    missed = [check for check in checks(grid) if not check.met]
    for check in missed:
        print(f"bench: not met: {check.what}: {check.found}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
