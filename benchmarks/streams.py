"""200 token streams at 50 tokens a second, all through one dialer.

The backend makes tokens that carry their number and the time of day, each stream from a random
moment on. The dialer checks that every stream has all its tokens in order, and how old each one
is when the caller has it. One session carries all of them.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from _processes import punch_pair
from _results import Report, Row, milliseconds

TITLE = "200 token streams at 50 tokens a second"

STREAMS = 200
RATE = 50
MAX_CORES = 1.0


def measure(*, quick: bool) -> Report:
    """Cores in use on both sides, tokens lost, and the delay of tokens."""
    rounds, seconds = (2, 4) if quick else (3, 15)
    with ExitStack() as stack:
        listener, dialer = punch_pair(stack, backend="clock")
        dialer.ask("streams", count=STREAMS, rate=RATE, tokens=RATE)
        found = []
        listener_cores = []
        for _ in range(rounds):
            before = listener.cpu()
            found.append(dialer.ask("streams", count=STREAMS, rate=RATE, tokens=RATE * seconds))
            listener_cores.append((listener.cpu() - before) / found[-1]["seconds"])
    cores = statistics.median(one["cpu"] / one["seconds"] for one in found)
    served = statistics.median(listener_cores)
    tokens = sum(one["tokens"] for one in found)
    expected = STREAMS * RATE * seconds * rounds
    faults = sum(one["faults"] for one in found)
    rate = statistics.median(one["tokens"] / one["seconds"] for one in found)
    delays = sorted(delay for one in found for delay in one["delays"])
    percentiles = statistics.quantiles(delays, n=100)
    target = f"under {MAX_CORES:g} core"
    rows = (
        Row(
            what="CPU of the dialer",
            ours=f"{cores:.2f} cores",
            other=f"{cores / rate * 1e6:.0f} µs a token",
            target=target,
            met=cores < MAX_CORES,
            why="The sessions, the codec and trio share it; see `hop`.",
        ),
        Row(
            what="CPU of the listener",
            ours=f"{served:.2f} cores",
            other=f"{served / rate * 1e6:.0f} µs a token",
            target=target,
            met=served < MAX_CORES,
            why="The sessions, the codec and trio share it; see `hop`.",
        ),
        Row(
            what="tokens lost or out of order",
            ours=f"{faults + expected - tokens} of {expected}",
            target="none",
            met=faults == 0 and tokens == expected,
            why="A token that is lost is a defect, not a matter of speed.",
        ),
        Row(
            what="delay of a token, median and 99th percentile",
            ours=f"{milliseconds(percentiles[49])}, {milliseconds(percentiles[98])}",
        ),
    )
    notes = (
        f"{rounds} rounds of {seconds} s; {rate:.0f} tokens a second came through. "
        f"{' '.join(__doc__.partition('.')[2].split())}",
    )
    return Report(title=TITLE, rows=rows, notes=notes)
