"""``punch leave``: takes this machine out of a closed namespace, and tells the other members."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import attrs

from ...exceptions import ConfigurationError
from ...membership import Left, leave_namespace
from ...settings import LOG_LEVEL, SWITCH, ProgramSettings, of, setting
from .._exits import ExitCode
from .._namespace import home_of
from .._output import day_of, plain
from .._run import Shutdown, run_program
from ._namespace import WHICH

ABOUT = """\
Take this machine out of a closed namespace, and the namespace off this machine, with its keys.

The members that can be reached are told, which takes some seconds at most, and tell the others.
Programs of punch that are in the namespace here end."""


@attrs.frozen(kw_only=True)
class LeaveSettings(ProgramSettings):
    """Settings of ``punch leave``."""

    which: str | None = of(WHICH)
    force: bool = of(
        setting("force", SWITCH, False, variable="", help="leave, though the root key goes with it")
    )
    log_level: str = of(LOG_LEVEL, default="warning")


async def _leave(settings: LeaveSettings, shutdown: Shutdown) -> ExitCode:
    del shutdown
    home = home_of(settings.which)
    if home.folder.exists("root.key") and not settings.force:
        raise ConfigurationError(
            f"the root key of {home.namespace} is on this machine and would be lost: take it off "
            "with `punch namespace root export FILE`, or say --force"
        )
    for line in report(await leave_namespace(home)):
        print(f"punch: {plain(line)}", file=sys.stderr)
    return ExitCode.OK


def report(left: Left) -> list[str]:
    """What a person is told of *left*: who knows, who does not, and what to do."""
    lines = [f"left {left.namespace}; its keys are gone from this machine"]
    if left.told:
        others = f"; they tell {', '.join(left.others)}" if left.others else ""
        lines.append(f"told {', '.join(left.told)}{others}")
    if left.missed:
        many = "1 member" if len(left.missed) == 1 else f"{len(left.missed)} members"
        line = f"{many} could not be reached: {', '.join(left.missed)}"
        if left.told or left.others:
            line += "; the others tell them when they come"
        lines.append(line)
    if left.why_untold:
        lines.append(f"nobody was told: {left.why_untold}")
    elif not left.told and left.missed:
        lines.append(
            f"nobody was told: until {day_of(left.ends)} its grant lets in whoever has a copy of "
            f"this machine's keys. On an admin, run: punch members remove {left.name}"
        )
    if left.still_running:
        lines.append(
            f"{left.still_running} programs of punch here have not ended: they are members no "
            "longer, so stop them"
        )
    return lines


def leave(arguments: Sequence[str]) -> int:
    """Run ``punch leave``; its exit code."""
    return run_program("punch leave", ABOUT, LeaveSettings, _leave, arguments)
