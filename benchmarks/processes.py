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

import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import _program
import attrs
from _alternatives import Side
from _http_client import Address, question
from _programs import Programs
from _results import Report, Row, milliseconds
from _sides import Loaded, in_turns, load, two_cores

TITLE = "The gateway, of several processes"

PROCESSES = (1, 2)
CLIENTS = (1, 16, 64)
KINDS = ("questions", "lists")

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


def _asked(address: Address, kind: str) -> bytes:
    if kind == "questions":
        return question(address, "How are you?", 1)
    return f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\n\r\n".encode()


def carry_out(plan: Plan) -> Report:
    """Measure what *plan* says."""
    found: defaultdict[tuple[str, str, int], list[Loaded]] = defaultdict(list)
    with two_cores(), tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        programs = Programs(Path(name))
        stack.enter_context(programs.mock_listener())
        sides = []
        for number in PROCESSES:
            side = stack.enter_context(programs.gateway("--processes", str(number)))
            _as_one_session(side)
            sides.append(attrs.evolve(side, name=f"{number}"))
        for turn in in_turns(sides, plan.rounds):
            for kind in KINDS:
                for clients in CLIENTS:
                    for side in turn:
                        seen = load(
                            side,
                            _asked(side.address, kind),
                            clients,
                            plan.seconds,
                            warm_up=WARM_UP,
                            is_fine=lambda answer: answer.status == 200,
                        )
                        found[side.name, kind, clients].append(seen)
    rows = [
        row
        for kind in KINDS
        for clients in CLIENTS
        for row in _rows(found["1", kind, clients], found["2", kind, clients], kind, clients)
    ]
    notes = (f"{plan.rounds} rounds of {plan.seconds:g} s each.", _program.how(__doc__))
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


def _rows(one: Sequence[Loaded], two: Sequence[Loaded], kind: str, clients: int) -> list[Row]:
    """Two processes beside one, medians of the rounds; ratios within a round."""

    def of(cells: Sequence[Loaded], measure: str) -> float:
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
    return carry_out(QUICK if quick else Plan())


def main() -> int:
    """Run the program; its exit code."""
    return _program.run("processes", __doc__, carry_out, usual=Plan(), quick=QUICK)


if __name__ == "__main__":
    sys.exit(main())
