"""The examples that need a network, on a real one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from integration.programs import Programs, limit, open_programs

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Programs of this test alone."""
    with open_programs(tmp_path) as programs:
        yield programs


@limit(60)
def test_the_example_listener_answers_the_example_dialer(programs: Programs) -> None:
    """A backend of one's own is asked like any other, and says that it is simulated."""
    programs.bootstrap()
    listener = programs.start_script(EXAMPLES / "listener.py", programs.address, "home")
    listener.wait_out("12D3")
    peer = listener.out.strip()

    asked = programs.start_script(EXAMPLES / "ask.py", "are you there?", programs.address, "home")
    result = asked.wait()

    assert result.out == f"ARE YOU THERE?\n-- shout (simulated), by {peer}\n"
    assert result.code == 0


@limit(60)
def test_the_example_of_a_closed_namespace_says_what_its_head_promises(programs: Programs) -> None:
    """With a membership alone: neither a namespace nor an identity is said twice."""
    result = programs.start_script(EXAMPLES / "closed_namespace.py").wait()
    assert result.out.splitlines() == [
        "joined home as laptop",
        "asked a member, and it is success",
        "members: desk, laptop",
        "removed, and nobody is asked any more: 0 peers",
    ]
    assert result.code == 0


@limit(120)
def test_the_demo_does_what_the_readme_shows(model_path: Path) -> None:
    """One command: set up, four processes, a real answer, who gave it and why; nothing is left."""
    done = subprocess.run(
        [EXAMPLES.parent / "bins" / "demo"],
        capture_output=True,
        text=True,
        timeout=110,
        # It decides nothing that the user of this machine would want to read of later.
        env={**os.environ, "PUNCH_DECISION_LOG": "none"},
    )
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any("demo" in part for part in process.info["cmdline"] or [])
        and "punch." in " ".join(process.info["cmdline"] or [])
    ]

    assert done.returncode == 0, done.stderr
    assert "demo: strong is up\ndemo: weak is up\n" in done.stdout
    assert "Paris" in done.stdout
    assert done.stderr.count("<- chosen") == 1
    assert left == []
