"""What the tests of the judges share: a moment, and the one finding of a judge."""

from __future__ import annotations

from punch.doctor import Finding

NOW = 1_800_000_000.0
DAY = 86_400.0


def only(findings: list[Finding]) -> Finding:
    """The one finding; with a remedy if something is wrong."""
    (finding,) = findings
    assert finding.state != "wrong" or str(finding.remedy)
    return finding
