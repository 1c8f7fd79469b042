"""``punch logs``: shows the last lines of the log of the running `punch up`, and follows it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import trio

from ...admin import follow
from ...exceptions import NotRunning
from ...settings import SWITCH, Settings, count, of, setting
from .._exits import ExitCode
from .._output import plain
from .._run import run_command
from ._asking import admin_folder, log_path
from ._log_file import last_lines
from ._ring import MAX_LINES

ABOUT = """\
Show the last lines of the log of the running `punch up`.

Where none runs, the end of what the last `punch up --detach` has written is shown."""


@attrs.frozen(kw_only=True)
class LogsSettings(Settings):
    """Settings of ``punch logs``."""

    follow: bool = of(
        setting(
            "follow",
            SWITCH,
            False,
            variable="",
            help="continue with what is written from now on, until Ctrl-C; -f is the same",
        )
    )
    lines: int = of(
        setting(
            "lines",
            count(0, most=MAX_LINES),
            100,
            variable="",
            metavar="N",
            help="lines to begin with",
        )
    )
    json: bool = of(setting("json", SWITCH, False, variable="", help="one JSON object a line"))


def shown(line: Mapping[str, Any]) -> str:
    """A line of the log as people read it."""
    fields = line.get("fields")
    said = dict(fields) if isinstance(fields, Mapping) else {}
    level = str(line.get("level", ""))
    parts = [
        _time_of(line.get("time")),
        f"{level:<8}",
        str(line.get("event", "")),
        *(f"{name}={value}" for name, value in said.items()),
    ]
    return plain(" ".join(parts)).replace("\n", "\n    ")


def _time_of(seconds: object) -> str:
    try:
        if isinstance(seconds, int | float):
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        pass
    return "-"


def _print(value: Mapping[str, Any], *, as_json: bool) -> None:
    lost = value.get("lost")
    if lost:
        print(f"punch: {lost} lines are no longer there", file=sys.stderr)
    for line in value.get("lines", ()):
        print(json.dumps(line, ensure_ascii=False) if as_json else shown(line))
    sys.stdout.flush()


async def _show(settings: LogsSettings) -> ExitCode:
    arguments = {"lines": settings.lines, "follow": settings.follow}
    is_there = False
    try:
        async with follow(admin_folder(), "logs", **arguments) as replies:
            async for value in replies:
                is_there = True
                _print(value, as_json=settings.json)
    except NotRunning as error:
        lines = [] if is_there else last_lines(log_path(), settings.lines)
        if not lines:
            raise
        # As they stand in the file: JSON, whoever reads them.
        print(*map(plain, lines), sep="\n")
        print(f"punch: {error} (these lines are the end of {log_path()})", file=sys.stderr)
        return ExitCode.NOT_RUNNING
    return ExitCode.OK


def _logs(settings: LogsSettings) -> ExitCode:
    return trio.run(_show, settings)


def logs(arguments: Sequence[str]) -> int:
    """Run ``punch logs``; its exit code."""
    # `-f` is what fingers type after `logs`; no other flag of punch is short.
    given = ["--follow" if each == "-f" else each for each in arguments]
    return run_command("punch logs", ABOUT, LogsSettings, _logs, given)
