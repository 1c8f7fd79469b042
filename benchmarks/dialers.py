"""Ten dialers that share nothing, beside one that has all their requests.

The policies' own simulation (`policies.py`), of the default policy alone: both traces on all pools
at 80 % of what they can do, in long runs, so that all dialers know the machines. The traces are
those in the folder that PUNCH_BENCH_TRACES names, or made-up ones without it. The same command
gives the same numbers.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from pathlib import Path

from _results import Report, Row
from policies import (
    FILES,
    LOADED,
    LONGER,
    MANY_DIALERS,
    MAX_EXCESS,
    REQUESTS,
    SEEDS,
    Case,
    excess_of,
    in_percent,
    pair_of,
)

TITLE = "Ten dialers that share nothing, beside one"

PROCESSES = 2
JUDGED = "p99"


def _cases(folder: str | None, *, quick: bool) -> list[Case]:
    return [
        Case(
            trace=trace,
            source=trace if folder is None else str(Path(folder) / FILES[trace]),
            pool=pool,
            load=load,
            seed=seed,
            requests=50 if quick else REQUESTS,
        )
        for trace, pool, load in LOADED
        for seed in range(2 if quick else SEEDS)
    ]


def measure(*, quick: bool) -> Report:
    """How much longer answers take with ten dialers."""
    folder = os.environ.get("PUNCH_BENCH_TRACES") or None
    cases = _cases(folder, quick=quick)
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as processes:
        pairs = processes.map(pair_of, cases, chunksize=1)
    rows = []
    for figure, what in (("p99", "99th percentile"), ("mean", "mean")):
        excess = excess_of([(getattr(a, figure), getattr(b, figure)) for a, b in pairs])
        share = math.exp(excess.mean) - 1
        row = Row(
            what=f"{what} of an answer, above that with one dialer",
            ours=in_percent(excess),
            why="What one dialer has sent, the others hear of when the listener tells them.",
        )
        if figure == JUDGED:
            row = row.at_most(share, MAX_EXCESS, "{:+.0%}".format)
        rows.append(row)
    traces = "made-up" if folder is None else "recorded"
    notes = (
        f"{len(cases)} pairs of runs, of {LONGER * cases[0].requests} requests each, {traces} "
        f"traces, {MANY_DIALERS} dialers; means with 95 % intervals. "
        f"{' '.join((__doc__ or '').partition('.')[2].split())}",
    )
    return Report(title=TITLE, rows=tuple(rows), notes=notes)
