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

import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import _program
import attrs
from _gateway_rows import DIRECT, LITELLM, PUNCH, SAME
from _http_client import question
from _results import Report, Row, milliseconds
from _sides import NAMES, Loaded, in_turns, load, open_sides, two_cores

TITLE = "The gateway, a sweep: 1 to 64 clients before a server that takes 21 ms"

# Its own mock does not take 21 ms.
SIDES = tuple(name for name in NAMES if name != PUNCH)

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

    left_out: frozenset[str] = frozenset()
    """Of `SIDES`."""


QUICK = Plan(rounds=2, seconds=1.0)


Found = Mapping[tuple[str, int], Sequence[Loaded]]
"""Side and clients to what was seen in each round."""


def carry_out(plan: Plan) -> Report:
    """Measure what *plan* says."""
    found: defaultdict[tuple[str, int], list[Loaded]] = defaultdict(list)
    wanted = [name for name in SIDES if name not in plan.left_out]
    with two_cores(), tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        sides, missing = open_sides(stack, Path(name), wanted, delay=SERVER_SECONDS)
        for turn in in_turns(sides, plan.rounds):
            for clients in CLIENTS:
                for side in turn:
                    asked = question(side.address, "How are you?", 1)
                    seen = load(side, asked, clients, plan.seconds, warm_up=WARM_UP)
                    found[side.name, clients].append(seen)
    missing += [f"{name} was left out." for name in sorted(plan.left_out)]
    added = _all_sides(found, [side.name for side in sides])
    return Report(
        title=TITLE,
        rows=tuple(_rows(found)),
        notes=(f"{plan.rounds} rounds of {plan.seconds:g} s each.", _program.how(__doc__)),
        details=f"What each side adds to the server itself, medians over the rounds:\n\n{added}",
        missing=tuple(missing),
    )


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
        other, ratio = "", ""
        if (LITELLM, clients) in found:
            theirs = _added(found, LITELLM, clients, "median")
            other, ratio = f"{milliseconds(theirs)}, LiteLLM", f"{ours / theirs:.2f}x"
        row = Row(
            what=f"added at the median, {clients} clients",
            ours=milliseconds(ours),
            other=other,
            ratio=ratio,
            why="Gateway, listener, server and client share two cores.",
        )
        if clients == JUDGED_CLIENTS:
            row = row.at_most(ours, MAX_ADDED_SECONDS, milliseconds)
        rows.append(row)
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
    return carry_out(QUICK if quick else Plan())


def main() -> int:
    """Run the program; its exit code."""
    return _program.run("sweep", __doc__, carry_out, usual=Plan(), quick=QUICK, sides=SIDES)


if __name__ == "__main__":
    sys.exit(main())
