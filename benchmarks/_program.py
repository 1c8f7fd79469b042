"""A measurement as a program of its own: its options, its table, its section of RESULTS.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs
from _results import Report, Section, say, section

Plan = TypeVar("Plan", bound=attrs.AttrsInstance)


def run(
    name: str,
    about: str | None,
    measure: Callable[[Plan], Report],
    *,
    usual: Plan,
    quick: Plan,
    sides: Sequence[str] = (),
) -> int:
    """Run it; its exit code.

    Args:
      name: The program, and its section of RESULTS.md.
      about: The help, which begins with a line and a paragraph of commands.
      measure: Carries out a plan, which has ``rounds``, and ``left_out`` if there are *sides*.
      usual: How much is measured.
      quick: The same for ``--quick``.
      sides: What ``--leave-out`` takes.

    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many")
    if sides:
        parser.add_argument(
            "--leave-out",
            action="append",
            default=[],
            choices=sides,
            metavar="NAME",
            help=", ".join(sides),
        )
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    changes: dict[str, object] = {"left_out": frozenset(given.leave_out)} if sides else {}
    if given.rounds is not None:
        changes["rounds"] = given.rounds
    report = measure(attrs.evolve(quick if given.quick else usual, **changes))
    text = section(report, command=f"benchmarks/{name}.py{' --quick' * given.quick}")
    print(text)
    if given.write:
        Section(name).write(text)
    return verdict([report])


def verdict(reports: Sequence[Report]) -> int:
    """Say what was missed and what is missing; the exit code that says the same."""
    missed = [row.what for report in reports for row in report.missed]
    missing = [line for report in reports for line in report.missing]
    if missed:
        say(f"not met: {'; '.join(missed)}")
    if missing:
        say(f"missing: {' '.join(missing)}")
    return 1 if missed or missing else 0


def how(about: str | None) -> str:
    """The third paragraph of a program's help, which says how it measures, as one line."""
    return " ".join((about or "").split("\n\n")[2].split())
