"""`punch down` on a machine whose programs run: they drain and end, and nothing else does."""

from __future__ import annotations

import subprocess
import sys

from integration.programs import Programs, limit


@limit(90)
def test_down_ends_what_runs_here_and_nothing_else(programs: Programs) -> None:
    """Two programs of punch end as they do when their manager tells them; a third program stays."""
    bootstrap = programs.bootstrap()
    listener = programs.listener()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        try:
            done = programs.punch("down")
            assert done.code == 0, done.err
            for program, name in ((bootstrap, "punch.bootstrap"), (listener, "punch.listener")):
                assert f"`python -m {name}` (process {program.process.pid})" in done.err
                assert program.wait().code == 0
            assert bystander.poll() is None
        finally:
            bystander.kill()
    assert "no program of punch runs here" in programs.punch("down").err
