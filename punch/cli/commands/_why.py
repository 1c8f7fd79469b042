"""``punch why``: tells the story of a request from the decision log, or lists the last requests."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from ...capability import PeerId
from ...decision_log import BadLine, LogLine, Story, read_log, stories, story_as_data
from ...exceptions import ConfigurationError
from ...membership import homes
from ...settings import DECISION_LOG, SWITCH, TEXT, Settings, of, optional_argument, setting
from .._columns import aligned
from .._exits import ExitCode
from .._namespace import namespaces_folder
from .._output import plain
from .._run import run_command
from .._shared import decision_log_path
from ._story import names_of, tell, when

ABOUT = "Tell what was decided for a request, why, and what came of it."

REQUEST_ID = optional_argument(
    "request_id", TEXT, metavar="REQUEST_ID", about="by default the last request"
)
LIST = setting("list", SWITCH, False, variable="", help="list the last requests")
AS_JSON = setting("json", SWITCH, False, variable="", help="one JSON object a request")


@attrs.frozen(kw_only=True)
class WhySettings(Settings):
    """Settings of ``punch why``."""

    request_id: str | None = of(REQUEST_ID)
    log: str | None = of(DECISION_LOG, flag="--log", about="the decision log")
    listing: bool = of(LIST)
    json: bool = of(AS_JSON)


# Requests that `--list` shows.
LISTED = 20

# Bad lines that are named; a file of another sort has nothing else.
MAX_BAD_LINES = 5


def read_known(path: Path, request_id: str | None = None) -> list[LogLine]:
    """The lines that can be read; the others are named on standard error."""
    lines = list(read_log(path, request_id=request_id))
    bad = [line for line in lines if isinstance(line, BadLine)]
    for line in bad[:MAX_BAD_LINES]:
        say = f"punch: {line.path}, line {line.number}: left out: {line.problem}"
        print(plain(say), file=sys.stderr)
    if len(bad) > MAX_BAD_LINES:
        print(f"punch: and {len(bad) - MAX_BAD_LINES} more such lines", file=sys.stderr)
    return [line for line in lines if isinstance(line, LogLine)]


def log_file(settings: WhySettings) -> Path:
    """The decision log to read.

    Raises:
      ConfigurationError: if the settings say that there is none.

    """
    path = decision_log_path(settings.log)
    if path is None:
        raise ConfigurationError(f"{settings.said('log')} is none: name a decision log with --log")
    return path


def _why(settings: WhySettings) -> ExitCode:
    found = _found(log_file(settings), settings.request_id)
    shown = found[-LISTED:] if settings.listing else found[-1:]
    if settings.json:
        for story in shown:
            print(json.dumps(story_as_data(story), ensure_ascii=True))
    elif settings.listing:
        print(*aligned([_row(story) for story in shown]), sep="\n")
    else:
        print(tell(shown[0], _called))
    return ExitCode.OK


def _called(machine: PeerId) -> str:
    """What this machine is called in the closed namespace in which it has this key."""
    with suppress(ConfigurationError):
        found = {home.machine: home.name for home in homes(namespaces_folder())}
        return found.get(machine, "")
    return ""


def why(arguments: Sequence[str]) -> int:
    """Run ``punch why``; its exit code."""
    return run_command("punch why", ABOUT, WhySettings, _why, arguments)


def _found(path: Path, request_id: str | None) -> Sequence[Story]:
    found = [
        story
        for story in stories(read_known(path, request_id))
        if request_id is None or story.request_id == request_id
    ]
    if not found and request_id is not None:
        raise ConfigurationError(
            f"the decision log {path} has nothing of request {request_id}; "
            "`punch why --list` lists the last ones"
        )
    if not found:
        raise ConfigurationError(f"the decision log {path} has no request")
    return found


def _row(story: Story) -> tuple[str, ...]:
    end = story.end
    outcome = "running or lost" if end is None else end.status
    took = "" if end is None else f"{end.seconds:8.2f} s"
    # A peer's name here is the one that this request knew it by.
    last = next(iter(story.attempts[::-1]), None)
    who = names_of(story)(last.peer_id) if last is not None else "nobody"
    moves = len([a for a in story.attempts if a.outcome != "success"])
    note = f", {moves} failed first" if moves and outcome == "success" else ""
    cells = (when(story.time), story.request_id, outcome, took, f"{who}{note}")
    return tuple(plain(cell).replace("\n", " ") for cell in cells)
