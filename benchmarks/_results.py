"""What a measurement found, as values, and what they make of RESULTS.md: a section for each."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

RESULTS = Path(__file__).with_name("RESULTS.md")

LIBRARIES = ("libp2p", "trio", "msgpack", "httpx")


class UnavailableError(Exception):
    """Something that a measurement needs is not there; the text says how to get it."""


@attrs.frozen(kw_only=True)
class Row:
    """One number and what it is compared with."""

    what: str
    """What was measured."""

    ours: str
    """Punch's number, with its unit."""

    other: str = ""
    """The alternative's number from the same run, with its unit."""

    ratio: str = ""
    """Ours to the other, or their difference."""

    target: str = ""
    """What the issue demands; empty for numbers that are only told."""

    met: bool | None = None
    """Whether it was; `None` if nothing is demanded."""

    missed_by: float = 0.0
    """Share of a target's bound that is missing or too much; 0 for a target without a number."""

    firm: bool = False
    """Whether the issue is not done without it, however few others are missed."""

    why: str = ""
    """One sentence, for a target that is not met: what the profile shows."""

    def at_most(
        self, value: float, bound: float, show: Callable[[float], str], *, firm: bool = False
    ) -> Row:
        """The same, with the demand that *value* be no more than *bound*."""
        return attrs.evolve(
            self,
            target=f"at most {show(bound)}",
            met=value <= bound,
            missed_by=max(0.0, value / bound - 1),
            firm=firm,
        )

    def at_least(
        self, value: float, bound: float, show: Callable[[float], str], *, firm: bool = False
    ) -> Row:
        """The same, with the demand that *value* be no less than *bound*."""
        return attrs.evolve(
            self,
            target=f"at least {show(bound)}",
            met=value >= bound,
            missed_by=max(0.0, 1 - value / bound),
            firm=firm,
        )


@attrs.frozen(kw_only=True)
class Report:
    """What one module measured."""

    title: str
    """What it was about, in a few words."""

    rows: tuple[Row, ...]
    """The numbers."""

    notes: tuple[str, ...] = ()
    """How they were measured, and where the time went; a sentence each."""

    details: str = ""
    """What stands below the table, in Markdown: numbers of which nothing is demanded."""

    missing: tuple[str, ...] = ()
    """What could not be measured, or was left out; a sentence each."""

    @property
    def missed(self) -> list[Row]:
        """The rows whose target was not met."""
        return [row for row in self.rows if row.met is False]


@attrs.frozen
class Section:
    """A part of RESULTS.md that a program of its own writes; the others keep it."""

    name: str
    """Of the program, in words."""

    @property
    def begin(self) -> str:
        """Its first line."""
        return f"<!-- {self.name}: begin -->"

    @property
    def end(self) -> str:
        """Its last line."""
        return f"<!-- {self.name}: end -->"

    def kept(self, document: str) -> str:
        """The section as it stands in *document*, or nothing."""
        _, begin, rest = document.partition(self.begin)
        inside, end, _ = rest.partition(self.end)
        return f"{begin}{inside}{end}\n" if end else ""

    def replaced(self, document: str, ours: str) -> str:
        """*document* with *ours* in the place of the section that was there."""
        before = self.kept(document)
        return document.replace(before, ours) if before else f"{document.rstrip()}\n\n{ours}"

    def write(self, ours: str) -> None:
        """Put *ours*, without the first and the last line, into RESULTS.md."""
        document = RESULTS.read_text(encoding="utf-8")
        whole = f"{self.begin}\n{ours.strip()}\n{self.end}\n"
        RESULTS.write_text(self.replaced(document, whole), encoding="utf-8")
        say(f"wrote the section {self.name!r} of {RESULTS.name}")


def say(text: str) -> None:
    """Tell how far it is, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def median_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Median of the ratios of rounds that were measured side by side.

    Rounds that a busy machine slowed down slowed both, so this is steadier than the ratio of
    the two medians.
    """
    return statistics.median(a / b for a, b in zip(ours, others, strict=True))


def milliseconds(seconds: float) -> str:
    """As text, with three digits that mean something."""
    return f"{seconds * 1e3:.3g} ms"


def shares(parts: Mapping[str, float], *, least: float = 0.02) -> str:
    """``a 40 %, b 30 %, ...``: what each part has of the sum, the largest first."""
    whole = sum(parts.values()) or 1.0
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{name} {part / whole:.0%}" for name, part in ordered if part / whole >= least
    )


def _cpu() -> str:
    """The model of the processor, as its maker calls it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """What the numbers were measured on. No names of hosts, users or folders."""
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return (
        f"{_cpu()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}, {libraries}"
    )


def times(value: float) -> str:
    """A ratio, as text."""
    return f"{value:.3g}x"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _met(row: Row) -> str:
    by = f", by {row.missed_by:.0%}" if row.missed_by else ""
    return {None: "", True: "yes", False: f"**no**{by}"}[row.met]


def _line(row: Row) -> str:
    cells = (row.what, row.ours, row.other, row.ratio, row.target, _met(row))
    return f"| {' | '.join(map(_cell, cells))} |"


_HEAD = ("| what | punch | alternative | ratio | target | met |", f"|{' --- |' * 6}")


def table(reports: Sequence[Report]) -> str:
    """The rows of all reports, in Markdown."""
    lines = list(_HEAD)
    for report in reports:
        lines.append(f"| **{_cell(report.title)}** | | | | | |")
        lines += map(_line, report.rows)
    return "\n".join(lines)


def remarks(report: Report) -> str:
    """Why targets were not met, what is missing, and how it was measured, in Markdown."""
    parts = {
        "Not met": [
            f"{row.what}: {row.ratio or row.ours}, {row.target}. {row.why}" for row in report.missed
        ],
        "Missing": report.missing,
        "How, and where the time goes": report.notes,
    }
    return "\n\n".join(
        "\n".join((f"{title}:", "", *(f"- {line}" for line in lines)))
        for title, lines in parts.items()
        if lines
    )


def section(report: Report, *, command: str) -> str:
    """All of a report, in Markdown."""
    return "\n\n".join(
        filter(
            None,
            (
                f"## {report.title}",
                f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, on: {machine()}.",
                "\n".join((*_HEAD, *map(_line, report.rows))),
                report.details,
                remarks(report),
            ),
        )
    )
