"""Computes the figures of a run, and their means and 95 % intervals over several runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ._run import Outcome

# Student's t for a 95 % interval of both sides, by degrees of freedom; beyond, the normal's.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
_T95_MANY = 1.96


@attrs.frozen(kw_only=True)
class Figures:
    """The figures of a run; times are those of the requests that were answered."""

    throughput: float
    """Answer tokens per second, from the first request to the last answer."""

    first_p50: float
    """Median time to the first text, in seconds."""

    first_p95: float
    """The time to the first text that 95 % of the requests keep within, in seconds."""

    first_p99: float
    """The same for 99 %."""

    mean: float
    """Mean time to the whole answer, in seconds."""

    p50: float
    """Median time to the whole answer, in seconds."""

    p95: float
    """The time to the whole answer that 95 % of the requests keep within, in seconds."""

    p99: float
    """The same for 99 %."""

    hit_rate: float
    """Share of the prompt tokens that were found in a cache."""

    imbalance: float
    """Use of the busiest peer's slots, as a multiple of the mean over the peers; 1 is even."""

    failures: float
    """Requests that got no answer."""

    @classmethod
    def of(cls, outcome: Outcome) -> Figures:
        """The figures of one run."""
        done = [request for request in outcome.requests if request.completion is not None]
        first = sorted(r.first_text for r in done if r.first_text is not None)
        whole = sorted(r.completion for r in done if r.completion is not None)
        prompts = sum(request.prompt_tokens for request in done)
        use = list(outcome.usage.values())
        return cls(
            throughput=sum(request.output_tokens for request in done) / outcome.seconds,
            first_p50=quantile(first, 0.50),
            first_p95=quantile(first, 0.95),
            first_p99=quantile(first, 0.99),
            mean=statistics.fmean(whole) if whole else math.nan,
            p50=quantile(whole, 0.50),
            p95=quantile(whole, 0.95),
            p99=quantile(whole, 0.99),
            hit_rate=sum(request.cached_tokens for request in done) / prompts if prompts else 0.0,
            imbalance=max(use) / statistics.fmean(use) if any(use) else 1.0,
            failures=float(len(outcome.requests) - len(done)),
        )


@attrs.frozen
class Estimate:
    """A mean over several runs."""

    mean: float
    """The mean."""

    margin: float
    """Half of the 95 % interval around it; 0 where there was one run only."""

    def __str__(self) -> str:
        text = number(self.mean)
        return f"{text} ±{number(self.margin)}" if self.margin else text


COLUMNS: Mapping[str, str] = {
    "throughput": "tokens/s",
    "first_p50": "first p50",
    "first_p95": "first p95",
    "first_p99": "first p99",
    "mean": "mean",
    "p50": "p50",
    "p95": "p95",
    "p99": "p99",
    "hit_rate": "hit rate",
    "imbalance": "imbalance",
    "failures": "failures",
}
"""Field of `Figures` to the heading of its column."""


def quantile(ordered: Sequence[float], level: float) -> float:
    """The smallest value that a share of *level* keeps within; not a number if there is none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(level * len(ordered)) - 1)]


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of *values* with its 95 % interval (Student's t)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Estimate(mean, 0.0)
    freedom = len(values) - 1
    factor = _T95[freedom - 1] if freedom <= len(_T95) else _T95_MANY
    return Estimate(mean, factor * statistics.stdev(values) / math.sqrt(len(values)))


def estimates(outcomes: Sequence[Outcome]) -> dict[str, Estimate]:
    """Field of `Figures` to its estimate over the runs."""
    figures = [Figures.of(outcome) for outcome in outcomes]
    return {name: estimate([getattr(one, name) for one in figures]) for name in COLUMNS}


def number(value: float) -> str:
    """*value* with three significant digits."""
    if value != value:
        return "-"
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:.0f}"


def table(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """A table with a line for each policy; times in seconds."""
    rows = [["policy", *COLUMNS.values()]]
    for policy, runs in outcomes.items():
        found = estimates(runs)
        rows.append([policy, *(str(found[name]) for name in COLUMNS)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_plain_data(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """The same for JSON: figure to mean and margin, and the figures of every run."""
    return {
        policy: {
            "estimates": {
                name: {"mean": for_json(one.mean), "margin": for_json(one.margin)}
                for name, one in estimates(runs).items()
            },
            "runs": [
                {
                    "seed": run.seed,
                    **{k: for_json(v) for k, v in attrs.asdict(Figures.of(run)).items()},
                    "use": dict(run.usage),
                }
                for run in runs
            ],
        }
        for policy, runs in outcomes.items()
    }


def for_json(value: float) -> float | None:
    """*value*, or `None` for what JSON has no number for."""
    return value if math.isfinite(value) else None
