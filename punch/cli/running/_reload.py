"""``punch reload``: has the running `punch up` read its settings again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...settings import Settings
from .._exits import ExitCode
from .._output import plain
from .._run import run_command
from ._asking import ask

ABOUT = """\
Have the running `punch up` read its settings file again, and say what has changed and what needs a
restart. A file with a fault changes nothing. What was typed and its variables stay as they are."""


def lines_of(said: Mapping[str, Any]) -> list[str]:
    """What came of it, in lines."""
    lines = [
        f"{word} {each.get('name')}: {each.get('before')} -> {each.get('after')}"
        for word, key in (("changed", "changed"), ("needs a restart:", "restart"))
        for each in said.get(key, ())
    ]
    return [plain(line) for line in lines] or ["nothing has changed"]


def _reload(settings: Settings) -> ExitCode:
    print(*lines_of(ask("reload")), sep="\n")
    return ExitCode.OK


def reload(arguments: Sequence[str]) -> int:
    """Run ``punch reload``; its exit code."""
    return run_command("punch reload", ABOUT, Settings, _reload, arguments)
