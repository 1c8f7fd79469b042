"""What is demanded of punch's cost: which measurements that takes, and how the demands stand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from _results import Report, Section, machine, table

SECTION = Section("cost")

NAMES = (
    *("hop", "at_once", "decide", "admission", "gateway", "lone_tokens"),
    *("sweep", "dialers", "gaps", "imports", "memory"),
)

# What the demands allow themselves: firm ones (see `Row.firm`) must all be met; of the others this
# many may be missed, none by more than this share of its bound.
MAX_MISSED = 3
MAX_MISSED_BY = 0.2


def demands(reports: Sequence[Report]) -> list[Report]:
    """The same reports with no other rows than those of which something is demanded."""
    return [
        Report(
            title=report.title,
            rows=tuple(row for row in report.rows if row.met is not None),
            missing=report.missing,
        )
        for report in reports
    ]


def judgement(reports: Sequence[Report]) -> list[str]:
    """How the demands stand, a sentence each."""
    rows = [row for report in demands(reports) for row in report.rows]
    missed = [row for report in reports for row in report.missed]
    firm = [row.what for row in missed if row.firm]
    others = [row for row in missed if not row.firm]
    far = [row.what for row in others if row.missed_by > MAX_MISSED_BY or not row.missed_by]
    return [
        f"{len(rows) - len(missed)} of {len(rows)} demands are met.",
        f"Those that must be: {'; '.join(firm) + ' missed' if firm else 'all met'}.",
        f"Of the others at most {MAX_MISSED} may be missed: {len(others)} missed.",
        f"None may be missed by more than {MAX_MISSED_BY:.0%}: {'; '.join(far) or 'none is'}.",
    ]


def summary(
    reports: Sequence[Report], *, absent: Sequence[str], command: str, minutes: float
) -> str:
    """What stands at the head of RESULTS.md."""
    missing = [*(f"{name} could not be measured." for name in absent)]
    missing += [line for report in reports for line in report.missing]
    lines = [
        "## All that is demanded",
        "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, in {minutes:.0f} minutes, on: {machine()}.",
        "",
        table(demands(reports)),
        "",
        *(f"- {line}" for line in (*judgement(reports), *missing)),
    ]
    return "\n".join(lines)
