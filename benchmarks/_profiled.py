"""Runs a module under cProfile, by CPU time.

    _profiled.py MODULE OPTIONS

The first SIGUSR1 starts the profile, the next one writes it to ``PID.profile`` in the folder
XDG_DATA_HOME. By the clock, whoever is preempted while it wakes another process looks slow.
"""

from __future__ import annotations

import cProfile
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from types import FrameType


def main() -> None:
    """Run it."""
    profile = cProfile.Profile(time.process_time)
    file = Path(os.environ["XDG_DATA_HOME"]) / f"{os.getpid()}.profile"
    running = False

    def turn(number: int, frame: FrameType | None) -> None:
        nonlocal running
        running = not running
        if running:
            profile.enable()
            return
        profile.disable()
        profile.dump_stats(str(part := file.with_suffix(".part")))
        part.rename(file)

    signal.signal(signal.SIGUSR1, turn)
    del sys.argv[0]
    sys.path.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
