"""Measures punch beside the alternatives, and writes what it found.

    benchmarks/run.py                 what punch costs without a gateway, in 18 minutes
    benchmarks/run.py cost            all that is demanded of its cost, judged, in 45 minutes
    benchmarks/run.py hop decide      only these
    benchmarks/run.py ... --quick     a quarter of it and less; less exact
    benchmarks/run.py ... --write     and rewrites the sections of benchmarks/RESULTS.md
    benchmarks/run.py --against REV   not beside the alternatives but beside punch at that commit

`benchmarks/against.py` says how two commits are compared. A section is written as soon as its
measurement is over, so that a later one that fails takes none with it.

The exit status is 1 if a target is missed or something needed is not there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback

import _program
import admission
import admits
import against
import at_once
import churn
import cost
import decide
import dialers
import gaps
import gateway
import hop
import imports
import inference
import lone_tokens
import memory
import misbehaving
import pool
import processes
import streams
import sweep
from _results import Report, Section, UnavailableError, say, section

USUAL = {
    module.__name__: module
    for module in (
        *(hop, at_once, streams, lone_tokens, inference, decide),
        *(admission, admits, churn, gaps, imports, memory),
    )
}

# Measured only if they are named.
APART = {
    module.__name__: module for module in (gateway, sweep, processes, dialers, pool, misbehaving)
}
KNOWN = {**USUAL, **APART}

# Written by its own program, which shows more than its targets.
NOT_WRITTEN = "misbehaving"


def _measure(names: list[str], *, quick: bool, write: bool, command: str) -> list[Report | None]:
    """What was measured; `None` in the place of what could not be."""
    found: list[Report | None] = []
    for name in names:
        began = time.perf_counter()
        try:
            report = KNOWN[name].measure(quick=quick)
        except UnavailableError as error:
            say(f"{name}: {error}")
            found.append(None)
        except Exception:  # noqa: BLE001  # What was measured before it, and what comes, is kept.
            say(f"{name}: {traceback.format_exc()}")
            found.append(None)
        else:
            say(f"{name}: {time.perf_counter() - began:.0f} s")
            found.append(report)
            if write:
                Section(name).write(section(report, command=command))
    return found


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ["cost", *KNOWN]
    parser.add_argument("name", nargs="*", help=f"what to measure: {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--write", action="store_true", help="rewrite sections of RESULTS.md")
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
    if unknown := [name for name in given.name if name not in known]:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(known)}")
    is_cost = given.name == ["cost"]
    if "cost" in given.name and not is_cost:
        parser.error("cost is a table of its own: name it alone")
    if given.write and (given.quick or NOT_WRITTEN in given.name):
        parser.error(f"--write is for exact numbers, and not for {NOT_WRITTEN}")
    names = list(cost.NAMES) if is_cost else given.name or list(USUAL)
    command = " ".join(("bins/bench", *given.name, *["--quick"] * given.quick))
    if hasattr(os, "getloadavg"):
        say(f"load average when it begins: {os.getloadavg()[0]:.1f}")
    began = time.monotonic()
    found = _measure(names, quick=given.quick, write=given.write, command=command)
    reports = [report for report in found if report is not None]
    absent = [name for name, report in zip(names, found, strict=True) if report is None]
    for report in reports:
        print(section(report, command=command), end="\n\n")
    if is_cost:
        minutes = (time.monotonic() - began) / 60
        text = cost.summary(reports, absent=absent, command=command, minutes=minutes)
        print(text)
        if given.write:
            cost.SECTION.write(text)
    if absent:
        say(f"not measured: {', '.join(absent)}")
    return 1 if _program.verdict(reports) or absent else 0


if __name__ == "__main__":
    sys.exit(main())
