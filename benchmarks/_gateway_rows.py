"""What is demanded of the gateway: the measures of all sides, and the rows that judge them.

`gateway.py` measures; nothing is measured here.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from _results import Row, median_ratio, milliseconds, times

PUNCH, SAME, LITELLM, DIRECT = "punch", "punch, same server", "LiteLLM", "the server itself"

MAX_ADDED = 1 / 5
MAX_P99 = 1 / 4
MIN_RATE = 10.0
MAX_SPREAD = 5.0
MIN_STREAMS = 5.0
MAX_MEMORY = 1 / 2

# Requests a second, and tokens of a stream, that sides are asked for.
LOW, HIGH = 30.0, 300.0
STREAM_TOKENS = 100

Found = Mapping[str, Mapping[str, Sequence[float]]]
"""Side and measure to the numbers of the rounds, or to all of them where a percentile is wanted."""


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100)[98]


# How the numbers of a measure make one.
_WHOLE = {"low": p99, "high": p99, "lost": sum, "failed": sum}


def whole(measure: str, values: Sequence[float]) -> float:
    """The one number of a measure; a median if nothing else is said."""
    return float(_WHOLE.get(measure, statistics.median)(values))


# Measure -> how it is called in the table of all sides, and how it is written.
MEASURES = {
    "alone": ("one client, median", milliseconds),
    "low": (f"p99 at {LOW:g} requests/s", milliseconds),
    "high": (f"p99 at {HIGH:g} requests/s", milliseconds),
    "rate": ("requests/s without an error", "{:,.0f}".format),
    "cpu": ("CPU a request, saturated", milliseconds),
    "streams": ("tokens/s of many streams", "{:,.0f}".format),
    "lost": ("tokens lost or out of order", "{:,.0f}".format),
    "memory": ("resident after them", lambda value: f"{value / 1e6:,.0f} MB"),
    "failed": ("answers that failed, of all", "{:,.0f}".format),
}


def rows_of(found: Found, *, streams: int, why: str) -> list[Row]:
    """The demands, as far as what they are compared with is there.

    Args:
      found: All numbers.
      streams: How many there were at a time.
      why: What is said of a demand that is missed.

    """
    if PUNCH not in found:
        return []
    punch, direct = found[PUNCH], found[DIRECT]
    middle = {
        side: {measure: whole(measure, values) for measure, values in measures.items()}
        for side, measures in found.items()
    }
    ours = middle[PUNCH]
    rows = []
    if LITELLM in found:
        theirs, other = middle[LITELLM], found[LITELLM]
        added = {
            side: [a - b for a, b in zip(found[side]["alone"], direct["alone"], strict=True)]
            for side in (PUNCH, LITELLM)
        }

        def row(what: str, measure: str, *, least: float = 0.0, most: float = 0.0) -> Row:
            ratio = (
                ours[measure] / theirs[measure]
                if measure in _WHOLE
                else median_ratio(punch[measure], other[measure])
            )
            show = MEASURES[measure][1]
            found = Row(
                what=what,
                ours=show(ours[measure]),
                other=f"{show(theirs[measure])}, LiteLLM",
                ratio=f"{ratio:.2f}x",
                why=why,
            )
            if least:
                return found.at_least(ratio, least, times)
            return found.at_most(ratio, most, times)

        ratio = median_ratio(added[PUNCH], added[LITELLM])
        rows += [
            Row(
                what="added to the server's own time, one client, median",
                ours=milliseconds(statistics.median(added[PUNCH])),
                other=f"{milliseconds(statistics.median(added[LITELLM]))}, LiteLLM",
                ratio=f"{ratio:.2f}x",
                why=why,
            ).at_most(ratio, MAX_ADDED, times),
            row(f"99th percentile at {LOW:g} requests a second", "low", most=MAX_P99),
            row("requests per second without an error", "rate", least=MIN_RATE),
            row(
                f"tokens per second of {streams} streams at once",
                "streams",
                least=MIN_STREAMS,
            ),
            row("resident memory after them", "memory", most=MAX_MEMORY),
        ]
    spread = ours["high"] / ours["low"]
    lost = sum(punch["lost"])
    tokens = len(punch["lost"]) * STREAM_TOKENS * streams
    rows += [
        Row(
            what=f"99th percentile at {HIGH:g} requests a second",
            ours=milliseconds(ours["high"]),
            other=f"{milliseconds(ours['low'])}, its own at {LOW:g} a second",
            ratio=f"{spread:.2f}x",
            why=why,
        ).at_most(spread, MAX_SPREAD, times),
        Row(
            what="tokens of the streams that were lost or out of order",
            ours=f"{lost:.0f} of {tokens}",
            target="none",
            met=lost == 0,
            why="A token that is lost is a defect, not a matter of speed.",
        ),
    ]
    return rows


def all_sides(found: Found) -> str:
    """Every measure of every side, in Markdown."""
    names = list(found)
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for measure, (what, show) in MEASURES.items():
        numbers = [found[name].get(measure) for name in names]
        cells = [show(whole(measure, each)) if each else "" for each in numbers]
        lines.append(f"| {' | '.join((what, *cells))} |")
    return "\n".join(lines)
