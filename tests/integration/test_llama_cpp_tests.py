"""llama.cpp's own server tests against a gateway: all that are about shape and status pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from integration.programs import ROOT, limit


@pytest.mark.long
@limit(1200)
def test_llama_cpps_own_tests_pass(
    tmp_path: Path, model_path: Path, llama_cpp_folder: Path
) -> None:
    """The benchmark's table says which cannot; it fails for any other."""
    said = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "llama_cpp_tests.py"), "--reasons"],
        capture_output=True,
        text=True,
        timeout=1100,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PUNCH_TEST_MODEL": str(model_path),
            "PUNCH_TEST_LLAMA_CPP": str(llama_cpp_folder),
        },
    )
    assert said.returncode == 0, said.stdout[-8000:] + said.stderr[-2000:]
    (line,) = (line for line in said.stdout.splitlines() if line.startswith("| all |"))
    assert int(line.split("|")[2]) >= 55
