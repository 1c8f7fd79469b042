"""Computes what machines that do not do what they should cost those who ask: against a reference.

The reference is the same arrivals on the same pool without these machines.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ._report import for_json, number
from ._run import Outcome

# What a request may lose without harm, in seconds: about what people notice of an answer's begin.
LOST_SECONDS = 2.0

# How many requests a machine may have of its own before it should be known for what it is.
LEARNING_REQUESTS = 10


@attrs.frozen(kw_only=True)
class Harm:
    """What the machines of some kind cost in a run."""

    lost: float
    """Share of the requests that failed, or took more than `LOST_SECONDS` longer than in the
    reference; those that failed there left out."""

    failed: float
    """Share of the requests that failed, and did not in the reference."""

    share: float
    """Share of all tries that these machines got, each after `LEARNING_REQUESTS` of its own."""

    asked: int
    """Tries that they got in all."""

    found: float
    """Seconds from the mending to the first whole answer that was asked for after it; infinite if
    there was none, not a number if no machine was mended."""

    extra_hops: float
    """Most tries that one request lost beyond the one that ended it, where it got its answer."""

    def as_plain_data(self) -> dict[str, Any]:
        """The same for JSON: what is infinite or no number is null."""
        return {name: for_json(value) for name, value in attrs.asdict(self).items()}

    @classmethod
    def of(cls, outcome: Outcome, reference: Outcome, mended_at: Mapping[str, float]) -> Harm:
        """The harm in one run.

        Args:
          outcome: The run.
          reference: The same requests without the machines.
          mended_at: Name of each of these machines to when it was mended, in seconds from the
            first request; infinite for never.

        """
        pairs = [
            (before, now)
            for before, now in zip(reference.requests, outcome.requests, strict=True)
            if before.completion is not None
        ]
        failed = sum(now.completion is None for _, now in pairs)
        late = sum(
            now.completion - before.completion > LOST_SECONDS
            for before, now in pairs
            if before.completion is not None and now.completion is not None
        )
        done = [one.attempts for one in outcome.requests if one.completion is not None]
        return cls(
            lost=(failed + late) / max(1, len(pairs)),
            failed=failed / max(1, len(pairs)),
            share=_share(outcome, mended_at),
            asked=sum(one.peer in mended_at for one in outcome.asked),
            found=_found(outcome, mended_at),
            extra_hops=float(max(done, default=0)),
        )


def _share(outcome: Outcome, mended_at: Mapping[str, float]) -> float:
    """The share of the tries after each machine has had its first ones, until it was mended."""
    shares = []
    for name, until in mended_at.items():
        own = [one for one in outcome.asked if one.peer == name]
        if len(own) <= LEARNING_REQUESTS:
            shares.append(0.0)
            continue
        since = own[LEARNING_REQUESTS - 1].at
        later = [one for one in outcome.asked if since < one.at < until]
        shares.append(sum(one.peer == name for one in later) / max(1, len(later)))
    return sum(shares)


def _found(outcome: Outcome, mended_at: Mapping[str, float]) -> float:
    """The longest of all mended machines."""
    longest = math.nan
    for name, mended in mended_at.items():
        answers = [
            one.at + one.seconds - mended
            for one in outcome.asked
            if one.peer == name and one.at >= mended and one.outcome == "success"
        ]
        if mended < math.inf:
            found = min(answers, default=math.inf)
            longest = found if math.isnan(longest) else max(longest, found)
    return longest


HARM_COLUMNS: Mapping[str, str] = {
    "lost": "lost",
    "failed": "failed",
    "share": "share",
    "found": "found after",
}
"""Field of `Harm` to the heading of its column."""


def harm_table(harms: Mapping[str, Sequence[Harm]]) -> str:
    """A table with a line for each policy; means over the runs."""
    rows = [["policy", *HARM_COLUMNS.values()]]
    for policy, runs in harms.items():
        rows.append([policy, *(harm_cell(name, runs) for name in HARM_COLUMNS)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def harm_cell(name: str, runs: Sequence[Harm]) -> str:
    """One figure as text: the mean over *runs*; of how long a machine was lost, the longest."""
    if name == "found":
        longest = max(run.found for run in runs)
        return "never" if math.isinf(longest) else f"{number(longest)} s"
    return f"{statistics.fmean(getattr(run, name) for run in runs):.1%}"
