"""``punch down``: ends the programs of punch that run on this machine, and nothing else.

Each is told to end as by its service manager, and drains; what does not end in time is told once
more, which cancels what it does, and is killed at last. Its children end with it in any case.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence

import attrs

from ...settings import Settings, number, of, setting
from .._exits import ExitCode
from .._run import run_command
from ._ledger import Running, running_here

ABOUT = """\
End the programs of punch that run on this machine: those of this user that stay until they are
told to end, such as a listener or a gateway, with the engines that they have started.

They finish what they have begun, for as long as --patience says. Nothing else is ended: each
program is known by its process id, when it started and in which boot of the machine."""

# How often it is looked who is left.
LOOK_SECONDS = 0.05

MAX_PATIENCE_SECONDS = 3600.0

# After the second word nothing is finished any more, and after the third nobody is asked.
MORE_SECONDS = 5.0

# What is said to a program that has not ended, one after the other.
_WORDS = (signal.SIGTERM, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM))


@attrs.frozen(kw_only=True)
class DownSettings(Settings):
    """Settings of ``punch down``."""

    patience: float = of(
        setting(
            "patience",
            number(0, MAX_PATIENCE_SECONDS),
            20.0,
            variable="",
            metavar="SECONDS",
            help="how long they may finish what they have begun",
        )
    )


def end(programs: Sequence[Running], *, patience: float) -> tuple[Running, ...]:
    """End *programs*; those that would not.

    Args:
      programs: What to end.
      patience: Seconds that each may finish what it has begun.

    """
    left = list(programs)
    for word, seconds in zip(_WORDS, (patience, MORE_SECONDS, MORE_SECONDS), strict=True):
        left = [each for each in left if _tell(each, word)]
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            left = [each for each in left if each.mark.is_running]
    return tuple(left)


def _tell(program: Running, word: signal.Signals) -> bool:
    """Send a signal; whether there is anybody to wait for."""
    try:
        return program.mark.send(word)
    except PermissionError:
        # Made another user's since it was written down: it is waited for, and named.
        return True


def _down(settings: DownSettings) -> ExitCode:
    programs = running_here()
    if not programs:
        print("punch: no program of punch runs here", file=sys.stderr)
        return ExitCode.OK
    for each in programs:
        print(f"punch: ending `{each.name}` (process {each.mark.pid})", file=sys.stderr)
    left = end(programs, patience=settings.patience)
    for each in left:
        print(
            f"punch: `{each.name}` (process {each.mark.pid}) has not ended: it hangs in the "
            "system, or is another user's",
            file=sys.stderr,
        )
    return ExitCode.BACKEND if left else ExitCode.OK


def down(arguments: Sequence[str]) -> int:
    """Run ``punch down``; its exit code."""
    return run_command("punch down", ABOUT, DownSettings, _down, arguments)
