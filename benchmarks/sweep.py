"""The sweep by which gateways are compared: 1 to 64 clients before a server that takes its time.

    benchmarks/sweep.py                      in 8 minutes, on a machine that does nothing else
    benchmarks/sweep.py --quick              in a minute; less exact
    benchmarks/sweep.py --write              ... and rewrites its section of RESULTS.md
    benchmarks/sweep.py --leave-out LiteLLM  without one of the sides

The server behind all of them (`_mock_openai.py`) takes 21 ms for an answer of one token, however
many it makes at a time, so what a side takes beyond the server asked directly is its own. Each
client asks again as soon as it has its answer. Client, server and what is between them run on the
same two cores. Punch is its two programs as anybody starts them, ``punch.gateway`` and one
``punch.listener`` with the server behind it, and libp2p between them; the others are as in
`gateway.py`. The sides take turns within a round and change their order.

The exit status is 1 if a target is missed or something needed is not there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

import attrs
from _alternatives import Side
from _gateway_rows import DIRECT, LITELLM, PUNCH, SAME
from _http_client import closed_loop, question
from _results import Report, Row, Section, machine, milliseconds, remarks, table
from gateway import open_sides, say, two_cores

TITLE = "1 to 64 clients before a server that takes 21 ms"
RESULTS = Path(__file__).with_name("RESULTS.md")
SECTION = Section("gateway sweep")

SERVER_SECONDS = 0.021
CLIENTS = (1, 4, 16, 64)

JUDGED_CLIENTS = 16
MAX_ADDED_SECONDS = 0.006

# Of each measurement, the first part is its beginning, when all clients ask at one moment.
WARM_UP = 0.2


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int = 9
    """All sides, with every number of clients."""

    seconds: float = 2.0
    """Of each."""


QUICK = Plan(rounds=2, seconds=1.0)


@attrs.frozen(kw_only=True)
class Cell:
    """One side with one number of clients, in one round."""

    median: float
    """Seconds of an answer."""

    p99: float
    """The same, of the slowest hundredth."""

    rate: float
    """Answers a second."""

    failed: int
    """Answers that were none."""


Found = Mapping[tuple[str, int], Sequence[Cell]]
"""Side and clients to the cells of the rounds."""


def _cell(side: Side, clients: int, seconds: float) -> Cell:
    asked = question(side.address, "How are you?", 1)
    answers = closed_loop(side.address, repeat(asked), clients, seconds)
    began = min(answer.due for answer in answers)
    window = (began + WARM_UP * seconds, began + seconds)
    steady = [each.seconds for each in answers if each.due >= window[0]]
    ended = sum(window[0] <= each.ended < window[1] for each in answers)
    failed = [each for each in answers if not each.fine]
    if failed:
        say(f"{side.name}: {len(failed)} of {len(answers)} failed: {failed[0].raw[:300]!r}")
    return Cell(
        median=statistics.median(steady),
        p99=statistics.quantiles(steady, n=100)[98],
        rate=ended / (window[1] - window[0]),
        failed=len(failed),
    )


def _measure(plan: Plan, left_out: frozenset[str]) -> tuple[Report, str, bool]:
    """The report, the table of all sides, and whether nothing was missing."""
    found: defaultdict[tuple[str, int], list[Cell]] = defaultdict(list)
    with two_cores(), tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        sides, missing = open_sides(stack, Path(name), left_out | {PUNCH}, delay=SERVER_SECONDS)
        for number in range(plan.rounds):
            turn = number % len(sides)
            for clients in CLIENTS:
                for side in (*sides[turn:], *sides[:turn]):
                    found[side.name, clients].append(_cell(side, clients, plan.seconds))
            say(f"round {number + 1} of {plan.rounds}")
    how = " ".join((__doc__ or "").split("\n\n")[2].split())
    notes = (f"{plan.rounds} rounds of {plan.seconds:g} s each.", how, *missing)
    report = Report(title=TITLE, rows=tuple(_rows(found)), notes=notes)
    return report, _all_sides(found, [side.name for side in sides]), not missing


def _added(found: Found, side: str, clients: int, measure: str) -> float:
    """What a side adds to the server asked directly in the same round; the median over them."""
    pairs = zip(found[side, clients], found[DIRECT, clients], strict=True)
    return statistics.median(getattr(a, measure) - getattr(b, measure) for a, b in pairs)


def _rate(found: Found, side: str, clients: int) -> float:
    return statistics.median(cell.rate for cell in found[side, clients])


def _rows(found: Found) -> list[Row]:
    """What is demanded of punch, and what LiteLLM does beside it."""
    if (SAME, JUDGED_CLIENTS) not in found:
        return []
    rows = []
    for clients in CLIENTS:
        ours = _added(found, SAME, clients, "median")
        is_judged = clients == JUDGED_CLIENTS
        other, ratio = "", ""
        if (LITELLM, clients) in found:
            theirs = _added(found, LITELLM, clients, "median")
            other, ratio = f"{milliseconds(theirs)}, LiteLLM", f"{ours / theirs:.2f}x"
        rows.append(
            Row(
                what=f"added at the median, {clients} clients",
                ours=milliseconds(ours),
                other=other,
                ratio=ratio,
                target=f"at most {milliseconds(MAX_ADDED_SECONDS)}" if is_judged else "",
                met=ours <= MAX_ADDED_SECONDS if is_judged else None,
                why="Gateway, listener, server and client share two cores.",
            )
        )
    return rows


def _all_sides(found: Found, names: Sequence[str]) -> str:
    """Every side with every number of clients, in Markdown; medians over the rounds."""
    titles = ["punch" if name == SAME else name for name in names]
    lines = [f"| | {' | '.join(titles)} |", f"| --- |{' --- |' * len(names)}"]
    for clients in CLIENTS:
        for what, measure in (("median", "median"), ("p99", "p99")):
            cells = [
                milliseconds(statistics.median(getattr(c, measure) for c in found[name, clients]))
                if name == DIRECT
                else f"+{milliseconds(_added(found, name, clients, measure))}"
                for name in names
            ]
            lines.append(f"| {clients} clients, {what} | {' | '.join(cells)} |")
        rates = [f"{_rate(found, name, clients):,.0f}" for name in names]
        lines.append(f"| {clients} clients, requests/s | {' | '.join(rates)} |")
    failed = [sum(c.failed for n in CLIENTS for c in found[name, n]) for name in names]
    lines.append(f"| answers that failed, of all | {' | '.join(map(str, failed))} |")
    return "\n".join(lines)


def measure(*, quick: bool) -> Report:
    """For `run.py sweep`."""
    return _measure(QUICK if quick else Plan(), frozenset())[0]


def section(report: Report, sides: str, *, command: str) -> str:
    """What goes into RESULTS.md."""
    told = remarks([report]).replace("## ", "### ")
    return "\n".join(
        (
            SECTION.begin,
            "## The gateway, a sweep",
            "",
            f"`{command}`, on: {machine()}.",
            "",
            table([report]),
            "",
            "What each side adds to the server itself, medians over the rounds:",
            "",
            sides,
            "",
            told,
            SECTION.end,
            "",
        )
    )


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many")
    parser.add_argument("--leave-out", action="append", default=[], metavar="NAME", help="a side")
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    usual = QUICK if given.quick else Plan()
    plan = attrs.evolve(usual, rounds=given.rounds or usual.rounds)
    report, sides, complete = _measure(plan, frozenset(given.leave_out))
    command = "benchmarks/sweep.py" + (" --quick" if given.quick else "")
    text = section(report, sides, command=command)
    print(text)
    if given.write:
        before = RESULTS.read_text(encoding="utf-8")
        RESULTS.write_text(SECTION.replaced(before, text), encoding="utf-8")
        say(f"wrote {RESULTS.name}")
    missed = [row.what for row in report.rows if row.met is False]
    if missed:
        say(f"not met: {'; '.join(missed)}")
    return 0 if complete and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
