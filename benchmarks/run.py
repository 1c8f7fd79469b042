"""Measures punch beside the alternatives, and writes the table.

    benchmarks/run.py                 everything, in less than 16 minutes
    benchmarks/run.py hop decide      only these
    benchmarks/run.py --quick         everything, in less than three minutes; less exact
    benchmarks/run.py --write         everything, and rewrites benchmarks/RESULTS.md
    benchmarks/run.py gateway         what takes longer, and is measured only if it is named
    benchmarks/run.py --against REV   not beside the alternatives but beside punch at that commit

`benchmarks/against.py` says how two commits are compared.

The exit status is 1 if a target is missed or something needed is not there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import admission
import admits
import against
import at_once
import churn
import decide
import gaps
import gateway
import hop
import inference
import lone_tokens
import memory
import misbehaving
import misbehaving_real
import policies
import pool
import processes
import streams
import sweep
import two_listeners
from _results import Report, Section, UnavailableError, document, remarks, table

RESULTS = Path(__file__).parent / "RESULTS.md"

MEASUREMENTS = {
    module.__name__: module
    for module in (
        *(hop, at_once, streams, lone_tokens, inference, decide),
        *(admission, admits, churn, gaps, memory),
    )
}

# With programs and sections of their own.
APART = {
    "gateway": gateway,
    "sweep": sweep,
    "processes": processes,
    "misbehaving": misbehaving,
    "pool": pool,
}

# Written by hand: what was changed to make it quicker, and what each change brought.
CHANGES = Section("what each change brought")


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _measure(names: list[str], *, quick: bool) -> tuple[list[Report], bool]:
    """What was measured, and whether all of it could be."""
    known = {**MEASUREMENTS, **APART}
    reports = []
    complete = True
    for name in names:
        began = time.perf_counter()
        try:
            reports.append(known[name].measure(quick=quick))
        except UnavailableError as error:
            _say(f"{name}: {error}")
            complete = False
        else:
            _say(f"{name}: {time.perf_counter() - began:.0f} s")
    return reports, complete


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*MEASUREMENTS, *APART]
    parser.add_argument("name", nargs="*", help=f"what to measure: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--write", action="store_true", help="rewrite benchmarks/RESULTS.md")
    parser.add_argument("--against", metavar="REV", help="a commit to be compared with")
    parser.add_argument(
        "--rounds", type=int, default=against.MIN_ROUNDS, metavar="N", help="with --against"
    )
    given = parser.parse_args()
    if given.against is not None:
        if unknown := [name for name in given.name if name not in against.GROUPS]:
            parser.error(f"no {', '.join(unknown)} to compare; {', '.join(against.GROUPS)}")
        if given.quick or given.write or given.rounds < 1:
            parser.error("--against takes names and --rounds, which is at least 1")
        return against.compare(given.against, given.name or against.USUAL, given.rounds)
    if unknown := [name for name in given.name if name not in names]:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(names)}")
    if given.write and (given.name or given.quick):
        parser.error("--write is for the whole table: leave names and --quick out")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    reports, complete = _measure(given.name or list(MEASUREMENTS), quick=given.quick)
    print(f"{table(reports)}\n\n{remarks(reports)}")
    if given.write and complete:
        before = RESULTS.read_text(encoding="utf-8")
        own = (
            CHANGES,
            two_listeners.SECTION,
            gateway.SECTION,
            sweep.SECTION,
            processes.SECTION,
            misbehaving.SECTION,
            misbehaving_real.SECTION,
            pool.SECTION,
            gaps.SECTION,
        )
        sections = (policies.kept_section(before), *(each.kept(before) for each in own))
        text = document(reports, command="bins/bench --write", load=load)
        text = "\n".join((text, *filter(None, sections)))
        RESULTS.write_text(text, encoding="utf-8")
        _say(f"wrote {RESULTS.name}")
    missed = [row.what for report in reports for row in report.rows if row.met is False]
    if missed:
        _say(f"not met: {'; '.join(missed)}")
    return 0 if complete and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
