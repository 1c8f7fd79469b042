"""What a measurement found, as values, and the table they make."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

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

    why: str = ""
    """One sentence, for a target that is not met: what the profile shows."""


@attrs.frozen(kw_only=True)
class Report:
    """What one module measured."""

    title: str
    """What it was about, in a few words."""

    rows: tuple[Row, ...]
    """The numbers."""

    notes: tuple[str, ...] = ()
    """How they were measured, and where the time went; a sentence each."""


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


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _line(row: Row) -> str:
    met = {None: "", True: "yes", False: "**no**"}[row.met]
    cells = (row.what, row.ours, row.other, row.ratio, row.target, met)
    return f"| {' | '.join(map(_cell, cells))} |"


def table(reports: Sequence[Report]) -> str:
    """The rows of all reports, in Markdown."""
    lines = ["| what | punch | alternative | ratio | target | met |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for report in reports:
        lines.append(f"| **{_cell(report.title)}** | | | | | |")
        lines += map(_line, report.rows)
    return "\n".join(lines)


def remarks(reports: Sequence[Report]) -> str:
    """The notes of all reports, and a sentence for each target that was not met."""
    lines = []
    missed = [row for report in reports for row in report.rows if row.met is False]
    if missed:
        lines += ["## Not met", ""]
        lines += [
            f"- {row.what}: {row.ratio or row.ours}, {row.target}. {row.why}" for row in missed
        ]
        lines.append("")
    lines += ["## How, and where the time goes"]
    for report in reports:
        lines += ["", f"{report.title}:", ""]
        lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines)


def document(reports: Sequence[Report], *, command: str, load: float | None) -> str:
    """The whole of RESULTS.md."""
    busy = "" if load is None else f" Load average when it began: {load:.1f}."
    return "\n".join(
        (
            "# What punch costs",
            "",
            f"`{command}` measured this on {datetime.now(UTC):%Y-%m-%d} and wrote it. Every number",
            "stands beside the alternative's from the same run, in interleaved rounds; ratios are",
            "medians over the rounds. Compare ratios, not machines.",
            "",
            f"Machine: {machine()}.{busy}",
            "",
            table(reports),
            "",
            remarks(reports),
            "",
        )
    )
