"""All findings as one value: for people, for scripts, and for strangers without names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ._finding import CHECKS, Finding, State
from ._text import Disguise, Text

_STATES: tuple[State, ...] = ("wrong", "note", "unknown", "well")


@attrs.frozen(kw_only=True)
class Report:
    """What `punch doctor` has found."""

    findings: tuple[Finding, ...]
    """Everything, what is wrong first; see `report_of`."""

    about: Mapping[str, str] = attrs.field(factory=dict)
    """Versions and the kind of system: our own words, and nothing of a person."""

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return all(each.state != "wrong" for each in self.findings)

    def as_data(self, disguise: Disguise | None = None) -> dict[str, Any]:
        """The report as JSON has it.

        Args:
          disguise: Leaves out names, addresses and what others said; `None` for all of it.

        """
        shown = str if disguise is None else disguise.of
        return {
            "well": self.is_well,
            "about": dict(self.about),
            "findings": [_as_data(each, shown) for each in self.findings],
        }


def _as_data(finding: Finding, shown: Any) -> dict[str, Any]:
    def sentence(said: Text) -> str:
        found: str = shown(said)
        return found

    return {
        "check": finding.check,
        "state": finding.state,
        "said": sentence(finding.said),
        "remedy": sentence(finding.remedy) or None,
    }


def report_of(findings: Iterable[Finding], about: Mapping[str, str]) -> Report:
    """The report of *findings*: by how bad they are, and then in the order of the checks."""

    def place(finding: Finding) -> tuple[int, int]:
        return _STATES.index(finding.state), CHECKS.index(finding.check)

    return Report(findings=tuple(sorted(findings, key=place)), about=about)
