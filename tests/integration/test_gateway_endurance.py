"""The gateway under load while its listeners die, for a short while."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from integration.programs import ROOT, limit


@limit(240)
def test_the_gateway_loses_nothing_while_listeners_die(tmp_path: Path) -> None:
    """The short version of `benchmarks/gateway_endurance.py`, which checks its own targets."""
    said = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "gateway_endurance.py")),
            *("--minutes", "0.4", "--every", "6", "--share", "0.5"),
        ],
        capture_output=True,
        text=True,
        timeout=220,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert "| requests without an answer, or with two | 0 of " in said.stdout
