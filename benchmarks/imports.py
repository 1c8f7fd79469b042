"""What it takes to import a program of punch, beside `import libp2p`, which each of them needs.

Fresh processes of Python that import and end; their CPU, which a busy machine changes less than the
time by the clock. All files of all sides are read once before.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import defaultdict

from _results import Report, Row, median_ratio, milliseconds, times

TITLE = "Imports"

BASELINE = "libp2p"

# What it was when it was demanded that it stay so (commit fa67984), and a twentieth.
MAX_RATIOS = {"punch.dialer": 0.81, "punch.listener": 1.08, "punch.gateway": 1.71}


def _seconds(module: str) -> float:
    """CPU seconds of a process that imports a module, and of nothing else."""
    arguments = [sys.executable, "-c", f"import {module}"]
    process = os.posix_spawn(sys.executable, arguments, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{module} could not be imported; why is above")
    return usage.ru_utime + usage.ru_stime


def measure(*, quick: bool) -> Report:
    """CPU seconds of the imports, in turns."""
    rounds = 3 if quick else 9
    found: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for module in (BASELINE, *MAX_RATIOS):
            seconds = _seconds(module)
            if number:
                found[module].append(seconds)
    base = statistics.median(found[BASELINE])
    rows = []
    for module, most in MAX_RATIOS.items():
        ratio = median_ratio(found[module], found[BASELINE])
        row = Row(
            what=f"`import {module}`, CPU",
            ours=milliseconds(statistics.median(found[module])),
            other=f"{milliseconds(base)}, `import {BASELINE}` alone",
            ratio=f"{ratio:.2f}x",
            why="`python -X importtime` shows which modules are new.",
        )
        rows.append(row.at_most(ratio, most, times))
    notes = (f"{rounds} rounds. {' '.join((__doc__ or '').partition('.')[2].split())}",)
    return Report(title=TITLE, rows=tuple(rows), notes=notes)
