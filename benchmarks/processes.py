"""What several processes of one gateway bring: requests a second, and CPU of each.

    benchmarks/processes.py              in 3 minutes, on a machine that does nothing else
    benchmarks/processes.py --quick      in a minute; less exact
    benchmarks/processes.py --write      ... and rewrites its section of RESULTS.md

A gateway with ``--processes`` 1 and 2 before the same listener, which answers at once with one
token, asked by a closed loop of clients; the two take turns within a round and change their order.
Clients, listener and gateway share two cores, so that the second process gets only what the others
leave of the second one: the CPU of a request, of the gateway's processes together, says what a
machine with more cores has of it. Beside questions there is what a gateway answers from what it
knows, ``/v1/models``, which no listener is asked for.

The exit status is 1 if something needed is not there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import repeat
from pathlib import Path

import attrs
from _alternatives import Side
from _http_client import Address, closed_loop, question
from _programs import Programs
from _results import Report, Row, Section, machine, milliseconds, remarks, table
from gateway import say, two_cores

TITLE = "A gateway of one process, and of two"
RESULTS = Path(__file__).with_name("RESULTS.md")
SECTION = Section("gateway processes")

PROCESSES = (1, 2)
CLIENTS = (1, 16, 64)

# Of each measurement, the first part is its beginning, when all clients ask at one moment.
WARM_UP = 0.2


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int = 9
    """Both gateways, with every number of clients."""

    seconds: float = 1.2
    """Of each."""


QUICK = Plan(rounds=3, seconds=2.0)


@attrs.frozen(kw_only=True)
class Cell:
    """One gateway with one number of clients, in one round."""

    rate: float
    """Answers a second."""

    median: float
    """Seconds of an answer."""

    p99: float
    """The same, of the slowest hundredth."""

    cpu: float
    """CPU seconds of the gateway's processes for each answer."""

    failed: int
    """Answers that were none."""


def _asked(address: Address, kind: str) -> bytes:
    if kind == "questions":
        return question(address, "How are you?", 1)
    return f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\n\r\n".encode()


def _cell(side: Side, kind: str, clients: int, seconds: float) -> Cell:
    cpu = side.cpu()
    answers = closed_loop(side.address, repeat(_asked(side.address, kind)), clients, seconds)
    cpu = side.cpu() - cpu
    began = min(answer.due for answer in answers)
    window = (began + WARM_UP * seconds, began + seconds)
    steady = [each.seconds for each in answers if each.due >= window[0]]
    ended = sum(window[0] <= each.ended < window[1] for each in answers)
    failed = sum(each.status != 200 for each in answers)
    if failed:
        say(f"{side.name}: {failed} of {len(answers)} failed")
    return Cell(
        rate=ended / (window[1] - window[0]),
        median=statistics.median(steady),
        p99=statistics.quantiles(steady, n=100)[98],
        cpu=cpu / len(answers),
        failed=failed,
    )


def _measure(plan: Plan) -> Report:
    found: defaultdict[tuple[str, str, int], list[Cell]] = defaultdict(list)
    with two_cores(), tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        programs = Programs(Path(name))
        stack.enter_context(programs.mock_listener())
        sides = []
        for number in PROCESSES:
            side = stack.enter_context(programs.gateway("--processes", str(number)))
            _as_one_session(side)
            sides.append(attrs.evolve(side, name=f"{number}"))
        for number in range(plan.rounds):
            turn = number % len(sides)
            for kind in ("questions", "lists"):
                for clients in CLIENTS:
                    for side in (*sides[turn:], *sides[:turn]):
                        cell = _cell(side, kind, clients, plan.seconds)
                        found[side.name, kind, clients].append(cell)
            say(f"round {number + 1} of {plan.rounds}")
    rows = [
        row
        for kind in ("questions", "lists")
        for clients in CLIENTS
        for row in _rows(found["1", kind, clients], found["2", kind, clients], kind, clients)
    ]
    how = " ".join((__doc__ or "").split("\n\n")[2].split())
    notes = (f"{plan.rounds} rounds of {plan.seconds:g} s each.", how)
    return Report(title=TITLE, rows=tuple(rows), notes=notes)


def _as_one_session(side: Side) -> None:
    """Have the kernel weigh all processes of *side* as it weighs the first one.

    Each front leads a session, and Linux shares processors between sessions first (sched(7), the
    autogroup feature): on a machine that does something else, too, they would get less.
    """
    nice = os.nice(0)
    for process in side.processes:
        for child in process.children(recursive=True):
            with suppress(OSError):
                Path(f"/proc/{child.pid}/autogroup").write_text(str(nice), encoding="ascii")


def _rows(one: Sequence[Cell], two: Sequence[Cell], kind: str, clients: int) -> list[Row]:
    """Two processes beside one, medians of the rounds; ratios within a round."""

    def of(cells: Sequence[Cell], measure: str) -> float:
        return statistics.median(getattr(cell, measure) for cell in cells)

    def ratio(measure: str) -> str:
        pairs = zip(two, one, strict=True)
        middle = statistics.median(getattr(a, measure) / getattr(b, measure) for a, b in pairs)
        return f"{middle:.2f}x"

    what = f"{kind}, {clients} client{'s' if clients > 1 else ''}"
    return [
        Row(
            what=f"{what}, answers a second",
            ours=f"{of(two, 'rate'):,.0f}",
            other=f"{of(one, 'rate'):,.0f}, one process",
            ratio=ratio("rate"),
        ),
        *(
            Row(
                what=f"{what}, {words}",
                ours=milliseconds(of(two, measure)),
                other=f"{milliseconds(of(one, measure))}, one process",
                ratio=ratio(measure),
            )
            for words, measure in (("median", "median"), ("p99", "p99"), ("CPU", "cpu"))
        ),
    ]


def measure(*, quick: bool) -> Report:
    """For `run.py processes`."""
    return _measure(QUICK if quick else Plan())


def section(report: Report, *, command: str) -> str:
    """What goes into RESULTS.md."""
    told = remarks([report]).replace("## ", "### ")
    return "\n".join(
        (
            SECTION.begin,
            "## The gateway, of several processes",
            "",
            f"`{command}`, on: {machine()}.",
            "",
            table([report]),
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
    parser.add_argument("--quick", action="store_true", help="less exact, in a minute")
    parser.add_argument("--write", action="store_true", help="rewrite the section of RESULTS.md")
    given = parser.parse_args()
    report = measure(quick=given.quick)
    told = section(report, command=f"benchmarks/processes.py{' --quick' * given.quick}")
    print(told)
    if given.write:
        document = RESULTS.read_text(encoding="utf-8")
        RESULTS.write_text(SECTION.replaced(document, told), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
