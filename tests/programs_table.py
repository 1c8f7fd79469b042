"""Runs the programs of docs/programs.md, and prints a table of what passed; see `bins/programs`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import pytest

if TYPE_CHECKING:
    from integration.page import Row

TESTS = "tests/integration/test_programs.py"
MOCK = ("test_a_library_gets_what_the_table_says", "test_a_command_gets_what_the_table_says")
REAL = "test_a_library_gets_it_from_a_real_model"


@attrs.define
class Table:
    """A plugin of pytest's that runs some programs only, and keeps what came of each."""

    words: Sequence[str]
    """Parts of the names of those that run; of none, all."""

    came: dict[tuple[str, str], str] = attrs.field(factory=dict)
    """`passed`, `failed` or `skipped`, by the program and the test."""

    seconds: dict[str, float] = attrs.field(factory=dict)
    """What each program took; the first time, installing it included."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests of those programs, in the order of the page."""
        kept = []
        for name in _rows():
            if not self.words or any(word.lower() in name.lower() for word in self.words):
                kept += [item for item in items if item.name.endswith(f"[{name}]")]
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what came of one test."""
        found = re.search(r"::(\w+)\[(.*)\]$", report.nodeid)
        if found is None or (report.when != "call" and report.outcome == "passed"):
            return
        self.came[found[2], found[1]] = report.outcome
        self.seconds[found[2]] = self.seconds.get(found[2], 0) + report.duration
        print(f"{found[2]}: {report.outcome}", flush=True)

    def lines(self) -> list[str]:
        """The table, one line for each program that was run."""
        lines = [f"{'program':31}{'version':11}{'mock':8}{'model':8}{'s':>5}  what"]
        for name, row in _rows().items():
            mock = next((self.came[name, test] for test in MOCK if (name, test) in self.came), "-")
            real = self.came.get((name, REAL), "-")
            if (mock, real) != ("-", "-"):
                start = f"{name:31}{row.version or 'ours':11}{mock:8}{real:8}"
                lines.append(f"{start}{self.seconds[name]:5.0f}  {', '.join(row.kinds)}")
        return lines


def _rows() -> Mapping[str, Row]:
    # Not before pytest has begun: it rewrites what a test imports, and warns of what is there.
    from integration.page import ROWS

    return ROWS


def main(arguments: Sequence[str]) -> int:
    """Run what is named; the exit code."""
    table = Table(words=[word for word in arguments if word != "--mock"])
    tests = MOCK if "--mock" in arguments else (*MOCK, REAL)
    options = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    code = pytest.main([*options, *(f"{TESTS}::{test}" for test in tests)], plugins=[table])
    if not table.came:
        print("no program of docs/programs.md has such a name", file=sys.stderr)
        return 2
    print("\n".join(["", *table.lines()]))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
