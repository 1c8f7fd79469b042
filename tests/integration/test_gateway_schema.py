"""Schemathesis against a real gateway: what `/openapi.json` says is what comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from integration.programs import Programs, limit

# Whether a body that fits the description is taken (`positive_data_acceptance`) cannot be asked:
# some fields go only with others, and a mock has one model.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)

# What is rightly a 503 or a 504 where all listeners are mocks on a busy machine: it is left out
# of what is sent, so that every other answer of that kind is a finding.
HOOKS = """
import schemathesis

@schemathesis.hook
def before_call(context, case, kwargs):
    wishes = case.body.get("punch") if isinstance(case.body, dict) else None
    if isinstance(wishes, dict):
        if wishes.get("strict") is True:
            del wishes["strict"]
        timeout = wishes.get("timeout")
        if type(timeout) in (int, float) and 0 < timeout < 10:
            del wishes["timeout"]
"""


@limit(120)
def test_schemathesis_finds_no_5xx_and_no_undeclared_answer(
    programs: Programs, tmp_path: Path
) -> None:
    """Bodies that fit and bodies that do not, on every path, for less than a minute."""
    programs.listeners({}, {})
    gateway = programs.gateway()
    (tmp_path / "hooks.py").write_text(HOOKS)
    said = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--max-time", "35", "--max-examples", "15"),
            *("--phases", "examples,coverage,fuzzing", "--seed", "1", "--no-shrink"),
            *("--continue-on-failure", "--request-timeout", "20", "--no-color"),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks"},
    )
    assert said.returncode == 0, said.stdout[-8000:] + said.stderr[-2000:]
    assert not [line for line in gateway.log if line["level"] in ("error", "critical")]
