"""``punch status``: shows what the running `punch up` of this user is, and what is wrong."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence

import attrs

from ...exceptions import NotRunning
from ...settings import SWITCH, Settings, of, setting
from .._exits import ExitCode
from .._run import run_command
from ._asking import ask
from ._ledger import running_here
from ._table import USUAL_COLUMNS, table_of

ABOUT = """\
Show what the running `punch up` is: its namespace, members, models, lanes and workers, where
programs ask, and what is wrong. The exit code is 10 if none runs."""


@attrs.frozen(kw_only=True)
class StatusSettings(Settings):
    """Settings of ``punch status``."""

    json: bool = of(setting("json", SWITCH, False, variable="", help="one JSON object"))


def _status(settings: StatusSettings) -> ExitCode:
    try:
        said = ask("status")
    except NotRunning:
        for each in running_here():
            print(f"punch: `{each.name}` runs (process {each.mark.pid})", file=sys.stderr)
        raise
    if settings.json:
        print(json.dumps(said, ensure_ascii=False))
        return ExitCode.OK
    width = shutil.get_terminal_size((USUAL_COLUMNS, 24)).columns
    print(*table_of(said, width), sep="\n")
    return ExitCode.OK


def status(arguments: Sequence[str]) -> int:
    """Run ``punch status``; its exit code."""
    return run_command("punch status", ABOUT, StatusSettings, _status, arguments)
