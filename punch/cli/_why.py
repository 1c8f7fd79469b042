"""``punch why``: the whole story of one request."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..decision_log import BadLine, LogLine, Story, read_log, stories, story_as_data
from ..exceptions import ConfigurationError, PunchError
from ._exits import ExitCode, exit_code
from ._output import plain
from ._shared import DECISION_LOG, decision_log_path
from ._story import short, tell, when

# Requests that `--list` shows.
LISTED = 20

# Bad lines that are named; a file of another sort has nothing else.
MOST_BAD_LINES = 5


def read_known(path: Path, request_id: str | None = None) -> list[LogLine]:
    """The lines that can be read; the others are named on standard error."""
    lines = list(read_log(path, request_id=request_id))
    bad = [line for line in lines if isinstance(line, BadLine)]
    for line in bad[:MOST_BAD_LINES]:
        say = f"punch: {line.path}, line {line.number}: left out: {line.problem}"
        print(plain(say), file=sys.stderr)
    if len(bad) > MOST_BAD_LINES:
        print(f"punch: and {len(bad) - MOST_BAD_LINES} more such lines", file=sys.stderr)
    return [line for line in lines if isinstance(line, LogLine)]


def log_file(given: str | None) -> Path:
    """The decision log to read.

    Raises:
      ConfigurationError: if the settings say that there is none.

    """
    path = decision_log_path(given)
    if path is None:
        raise ConfigurationError(
            f"{DECISION_LOG.environment} is none: name a decision log with --log"
        )
    return path


def why(arguments: Sequence[str]) -> int:
    """Run ``punch why``; its exit code."""
    parser = argparse.ArgumentParser(
        prog="punch why",
        description="Tell what was decided for a request, why, and what came of it.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "request_id", nargs="?", metavar="REQUEST_ID", help="by default the last request"
    )
    parser.add_argument(
        "--log",
        metavar="FILE",
        help=f"the decision log [{DECISION_LOG.environment}; {DECISION_LOG.shown_default}]",
    )
    parser.add_argument("--list", action="store_true", help="list the last requests")
    parser.add_argument("--json", action="store_true", help="one JSON object a request")
    given = parser.parse_args(arguments)
    try:
        path = log_file(given.log)
        found = _found(path, given.request_id)
    except PunchError as error:
        print(f"punch: {plain(str(error))}", file=sys.stderr)
        return exit_code(error)
    for story in found[-LISTED:] if given.list else found[-1:]:
        if given.json:
            print(json.dumps(story_as_data(story), ensure_ascii=True))
        else:
            print(_row(story) if given.list else tell(story))
    return ExitCode.OK


def _found(path: Path, request_id: str | None) -> list[Story]:
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


def _row(story: Story) -> str:
    end = story.end
    outcome = "running or lost" if end is None else end.status
    took = "" if end is None else f"{end.seconds:8.2f} s"
    last = next(iter(story.attempts[::-1]), None)
    who = short(last.peer_id) if last is not None else "nobody"
    moves = len([a for a in story.attempts if a.outcome != "success"])
    note = f", {moves} failed first" if moves and outcome == "success" else ""
    return plain(f"{when(story.time)}  {story.request_id}  {outcome:9} {took:>10}  {who}{note}")
