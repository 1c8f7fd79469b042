"""What one peer that misbehaves costs honest callers, by kind, time-out and policy: simulated.

    benchmarks/misbehaving.py                  the whole table, on two processes
    benchmarks/misbehaving.py --quick          the default policy alone, one seed; less exact
    benchmarks/misbehaving.py --write          ... and rewrites the section of RESULTS.md
    benchmarks/misbehaving.py --kind silent --policy completion-time     only these

Two machines do what they should and a third does not; 1,000 requests come at half of what the two
can do. Then the third is mended, and more requests come. The same arrivals without the third are
what all is compared with. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import pickle
import statistics
import sys
import textwrap
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import attrs
from _results import Report, Row, Section

from punch.routing import POLICIES
from punch.simulator import (
    KINDS,
    Figures,
    Harm,
    Outcome,
    Trace,
    at_load,
    number,
    open_trace,
    parse_pool,
    simulate,
)

RESULTS = Path(__file__).parent / "RESULTS.md"
SECTION = Section("misbehaving peers")

OURS = "completion-time"
POLICY_NAMES = tuple(
    name
    for name in (
        *(OURS, "least-seconds", "prefix-affinity", "capability"),
        *("least-requests", "two-choices", "round-robin", "random"),
    )
    if name in POLICIES
)

TIMEOUTS = (6.0, 15.0, 300.0)
GOOD = "good-1=4 good-2=4"
LOAD = 0.5
PROMPT_TOKENS = 1000.0

# Requests while the third machine misbehaves, and after it was mended: at the pace of these runs
# a minute and a half.
REQUESTS = 1000
AFTERWARDS = 260

# Runs of the default policy, whose targets are checked, and of each other one; the latter shorter.
SEEDS = 3
OTHER_SEEDS = 1
OTHER_REQUESTS = 150

# A third machine that is well: how far two runs of the same requests differ by chance.
WELL = "well"

# How the third machine is written down, but for its kind. One that boasts is slow, and claims to
# be as fast as the others: what a machine is that is really fast and claims more, is their equal.
SPEED = {"boasting": "0.4"}
USUAL_SPEED = "4"

ABOUT = f"""
`benchmarks/misbehaving.py`: {REQUESTS} requests of the made-up conversations, at half of what two
machines can do, and a third machine that misbehaves; then it is mended, and {AFTERWARDS} more come.
{{kinds}}. A boasting machine is a tenth as fast as it says and as the others are; `{WELL}` is a
third machine like the others, and shows how far two runs of the same requests differ by chance.
Routers, sessions and listeners are the real ones.
"""
FIGURES = f"""
*lost* is the share of the requests that failed or took more than 2 s longer than the same requests
with the two good machines alone (*failed*: only those that failed), *share* what the third machine
got of all tries after ten of its own, *found after* the time from its mending to the first whole
answer asked for after that, p50 and p95 the seconds to the whole answer (in parentheses: without
the third). Of `{OURS}` {SEEDS} run with each kind and time-out (of several: means, and of *found
after* the longest); of each other policy {OTHER_SEEDS}, with {OTHER_REQUESTS} requests.
"""

MAX_LOST = 0.01
MAX_SHARE = 0.02
MAX_FOUND_SECONDS = 60.0


@attrs.frozen(kw_only=True)
class Case:
    """One run: what a process does at a time."""

    kind: str
    """One of `KINDS`, or `WELL`."""

    timeout: float
    """Seconds after which a caller gives up."""

    policy: str
    """Name of the policy."""

    seed: int
    """Which requests, and what chance begins from."""

    requests: int = REQUESTS
    """Requests while the third machine misbehaves."""


@attrs.frozen(kw_only=True)
class Found:
    """What became of one case."""

    case: Case
    harm: Harm
    figures: Figures
    """Of the requests while the third machine misbehaved."""
    reference: Figures
    """Of the same requests without it."""


@cache
def arrivals(requests: int, seed: int) -> tuple[Trace, float]:
    """The requests of a run, and when the third machine is mended."""
    rng = Random(f"misbehaving {seed}")
    count = requests + AFTERWARDS
    trace = open_trace("conversation", count, rng, prompt_tokens=PROMPT_TOKENS)
    trace = at_load(trace, parse_pool(GOOD), LOAD)
    return trace, trace.requests[requests].arrival


@cache
def reference_of(timeout: float, policy: str, seed: int, requests: int) -> Outcome:
    """The requests of a run without the third machine."""
    trace, _ = arrivals(requests, seed)
    return simulate(trace, parse_pool(GOOD), policy, seed, timeout=timeout)


def cut(outcome: Outcome, requests: int) -> Outcome:
    """*outcome* of the first *requests* alone."""
    return attrs.evolve(outcome, requests=outcome.requests[:requests])


def run_case(case: Case) -> Found:
    """One run, and what it is compared with."""
    logging.disable(logging.CRITICAL)
    trace, mended_at = arrivals(case.requests, case.seed)
    third = f"bad={SPEED.get(case.kind, USUAL_SPEED)}"
    if case.kind != WELL:
        third += f",kind={case.kind},mended={mended_at}"
    pool = parse_pool(f"{GOOD} {third}")
    outcome = simulate(trace, pool, case.policy, case.seed, timeout=case.timeout)
    reference = reference_of(case.timeout, case.policy, case.seed, case.requests)
    outcome, reference = cut(outcome, case.requests), cut(reference, case.requests)
    unwell = {peer.name: peer.mended_at for peer in pool.unwell}
    return Found(
        case=case,
        harm=Harm.of(outcome, reference, unwell),
        figures=Figures.of(outcome),
        reference=Figures.of(reference),
    )


@attrs.frozen(kw_only=True)
class Line:
    """What was found of one kind, time-out and policy."""

    kind: str
    timeout: float
    policy: str
    runs: Sequence[Found]

    def mean(self, of: str) -> float:
        """Mean over the runs of a figure of `Harm`."""
        return statistics.fmean(getattr(run.harm, of) for run in self.runs)

    @property
    def found(self) -> float:
        """The longest time until the machine was found well again, of all runs."""
        return max(run.harm.found for run in self.runs)

    def cells(self) -> list[str]:
        """As a row of the table."""
        found = self.found
        said = "-" if math.isnan(found) else "never" if math.isinf(found) else f"{number(found)} s"
        seconds = [
            f"{number(statistics.fmean(getattr(run.figures, name) for run in self.runs))} "
            f"({number(statistics.fmean(getattr(run.reference, name) for run in self.runs))})"
            for name in ("p50", "p95")
        ]
        return [
            self.kind,
            f"{self.timeout:.0f} s",
            self.policy,
            f"{self.mean('lost'):.1%}",
            f"{self.mean('failed'):.1%}",
            "-" if self.kind == WELL else f"{self.mean('share'):.1%}",
            said,
            *seconds,
        ]


HEADINGS = (
    *("third machine", "time-out", "policy", "lost", "failed", "share", "found after"),
    *("p50", "p95"),
)


def lines(found: Sequence[Found]) -> list[Line]:
    """What was found, by kind, time-out and policy, in the order of the table."""
    grouped: dict[tuple[str, float, str], list[Found]] = {}
    for one in sorted(found, key=lambda one: one.case.seed):
        case = one.case
        grouped.setdefault((case.kind, case.timeout, case.policy), []).append(one)
    order = (WELL, *KINDS)
    keys = sorted(
        grouped, key=lambda key: (order.index(key[0]), key[1], POLICY_NAMES.index(key[2]))
    )
    return [
        Line(kind=kind, timeout=timeout, policy=policy, runs=grouped[kind, timeout, policy])
        for kind, timeout, policy in keys
    ]


def rows(table: Sequence[Line]) -> tuple[Row, ...]:
    """The targets of the default policy, each with what was found."""
    found = []
    for line in table:
        if line.policy != OURS or line.kind == WELL:
            continue
        where = f"{line.kind}, {line.timeout:.0f} s"
        lost, share = line.mean("lost"), line.mean("share")
        found += [
            Row(
                what=f"{where}: requests that failed or lost more than 2 s",
                ours=f"{lost:.1%}",
                target=f"at most {MAX_LOST:.0%}",
                met=lost <= MAX_LOST,
            ),
            Row(
                what=f"{where}: its share of the traffic after ten requests",
                ours=f"{share:.1%}",
                target=f"at most {MAX_SHARE:.0%}",
                met=share <= MAX_SHARE,
            ),
            Row(
                what=f"{where}: found well again after",
                ours="never" if math.isinf(line.found) else f"{number(line.found)} s",
                target=f"at most {MAX_FOUND_SECONDS:.0f} s",
                met=line.found <= MAX_FOUND_SECONDS,
            ),
        ]
    return tuple(found)


def in_markdown(table: Sequence[Line]) -> str:
    """Every line of the table."""
    head = f"| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}"
    return "\n".join([head, *(f"| {' | '.join(line.cells())} |" for line in table)])


def section(table: Sequence[Line]) -> str:
    """What goes into RESULTS.md."""
    kinds = "; ".join(f"`{kind}` {what}" for kind, what in KINDS.items())
    targets = [
        f"| {row.what} | {row.ours} | {row.target} | {'yes' if row.met else '**no**'} |"
        for row in rows(table)
    ]
    return "\n".join(
        [
            SECTION.begin,
            "## One peer that misbehaves among three",
            "",
            textwrap.fill(ABOUT.format(kinds=kinds), 98),
            "",
            textwrap.fill(FIGURES, 98),
            "",
            in_markdown(table),
            "",
            "### Targets of the default policy",
            "",
            "| target | found | at most | met |",
            "| --- | --- | --- | --- |",
            *targets,
            SECTION.end,
            "",
        ]
    )


def _cases(
    kinds: Sequence[str],
    policies: Sequence[str],
    seeds: int,
    timeouts: Sequence[float] = TIMEOUTS,
) -> list[Case]:
    return [
        Case(
            kind=kind,
            timeout=timeout,
            policy=policy,
            seed=seed,
            requests=REQUESTS if policy == OURS else OTHER_REQUESTS,
        )
        for policy in policies
        for timeout in timeouts
        for kind in kinds
        for seed in range(seeds if policy == OURS else min(seeds, OTHER_SEEDS))
    ]


def run_all(cases: Sequence[Case], processes: int) -> list[Found]:
    """Every case, on several processes."""
    found: list[Found] = []
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        for one in workers.imap_unordered(run_case, cases, chunksize=1):
            found.append(one)
            print(f"\rbench: {len(found)} of {len(cases)}", end="", file=sys.stderr, flush=True)
    print(f"\rbench: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return found


def measure(*, quick: bool) -> Report:
    """The targets of the default policy, for `run.py`."""
    found = run_all(_cases([WELL, *KINDS], [OURS], 1 if quick else SEEDS), 2)
    return Report(title="One peer that misbehaves among three", rows=rows(lines(found)))


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the default policy, one seed")
    parser.add_argument("--kind", action="append", choices=[WELL, *KINDS], metavar="KIND")
    parser.add_argument("--policy", action="append", choices=POLICY_NAMES, metavar="NAME")
    parser.add_argument("--timeout", action="append", type=float, metavar="SECONDS")
    parser.add_argument("--seeds", type=int, default=None, metavar="K")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add what is found to this file")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    if given.write and (given.quick or given.kind or given.policy or given.timeout):
        parser.error("--write is for the whole table: leave out what makes it smaller")
    policies = given.policy or ((OURS,) if given.quick else POLICY_NAMES)
    seeds = given.seeds or (1 if given.quick else SEEDS)
    kinds, timeouts = given.kind or [WELL, *KINDS], given.timeout or TIMEOUTS
    found = run_all(_cases(kinds, policies, seeds, timeouts), given.processes)
    if given.keep is not None:
        earlier = pickle.loads(given.keep.read_bytes()) if given.keep.is_file() else []
        found = [*earlier, *found]
        given.keep.write_bytes(pickle.dumps(found))
    table = lines(found)
    print(in_markdown(table))
    if given.write:
        before = RESULTS.read_text(encoding="utf-8")
        RESULTS.write_text(SECTION.replaced(before, section(table)), encoding="utf-8")
        print(f"bench: wrote {RESULTS.name}", file=sys.stderr)
    missed = [row for row in rows(table) if not row.met]
    for row in missed:
        print(f"bench: not met: {row.what}: {row.ours}, {row.target}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
