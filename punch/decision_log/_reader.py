"""Reads the decision log: its lines as values, and the story of each request from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from ..exceptions import ConfigurationError
from ._entries import KIND_OF, KINDS, LOG_VERSION, Attempted, Decided, Ended, Entry
from ._values import from_plain

# Much longer than any line that is written; a longer one is skipped without reading it into memory.
MAX_LINE_BYTES = 8 << 20


@attrs.frozen(kw_only=True)
class LogLine:
    """A line of the log, read."""

    entry: Entry
    """The entry."""

    run: str
    """The `run` that wrote the line."""

    time: float
    """When it was written, in seconds since 1970."""

    monotonic: float
    """When it was written, in seconds of the router's clock."""


@attrs.frozen(kw_only=True)
class BadLine:
    """A line that cannot be read."""

    path: Path
    """The file of the line."""

    number: int
    """Number of the line in its file, from 1."""

    problem: str
    """Why the line cannot be read."""


@attrs.frozen(kw_only=True)
class Story:
    """Everything that the log has of one request, in order."""

    request_id: str
    """The request."""

    lines: tuple[LogLine, ...]
    """Its lines, never empty."""

    @property
    def time(self) -> float:
        """When it began, in seconds since 1970."""
        return self.lines[0].time

    @property
    def decisions(self) -> tuple[Decided, ...]:
        """The decisions, in order."""
        return tuple(line.entry for line in self.lines if isinstance(line.entry, Decided))

    @property
    def attempts(self) -> tuple[Attempted, ...]:
        """The attempts, in order of their ends."""
        return tuple(line.entry for line in self.lines if isinstance(line.entry, Attempted))

    @property
    def end(self) -> Ended | None:
        """The end of the request; `None` if the log has none (yet)."""
        ends = [line.entry for line in self.lines if isinstance(line.entry, Ended)]
        return ends[-1] if ends else None


def story_as_data(story: Story) -> dict[str, Any]:
    """A story as plain data: every line, with nothing left out."""
    return {
        "request_id": story.request_id,
        "lines": [
            {"kind": KIND_OF[type(line.entry)], "run": line.run}
            | {"time": line.time, "monotonic": line.monotonic}
            | attrs.asdict(line.entry, value_serializer=_plain)
            for line in story.lines
        ],
    }


def _plain(_: Any, __: Any, value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return dict(value) if isinstance(value, Mapping) else value


def read_log(path: Path, *, request_id: str | None = None) -> Iterator[LogLine | BadLine]:
    """Every line of the older file and of *path*, in this order.

    The last line of a file may be torn, by a crash or since it is being written now: it is left
    out and is no `BadLine`.

    Args:
      path: The file; the older one has ``.1`` at the end of its name.
      request_id: Leave out the lines of other requests; they are not even looked at.

    Raises:
      ConfigurationError: if neither file can be read.

    """
    found = False
    needle = None if request_id is None else json.dumps(request_id).encode("ascii")
    for part in (path.with_name(path.name + ".1"), path):
        try:
            yield from _read_file(part, needle)
            found = True
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigurationError(
                f"the decision log {part} cannot be read: {error.strerror}"
            ) from error
    if not found:
        raise ConfigurationError(
            f"there is no decision log {path}; a dialer writes one unless it has "
            "--decision-log none"
        )


def _read_file(path: Path, needle: bytes | None) -> Iterator[LogLine | BadLine]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if not line.endswith(b"\n"):
                if len(line) < MAX_LINE_BYTES:
                    # Torn: the writer crashed here, or is still writing it.
                    return
                yield BadLine(path=path, number=number, problem="it is far too long")
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
            # Searching the bytes first spares parsing nearly all lines of other requests.
            elif not line.isspace() and (needle is None or needle in line):
                try:
                    yield read_line(line)
                except ValueError as error:
                    yield BadLine(path=path, number=number, problem=str(error))


def read_line(line: bytes) -> LogLine:
    """*line* as a value.

    Raises:
      ValueError: saying what is wrong with it.

    """
    try:
        return _read_data(json.loads(line))
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _read_data(data: object) -> LogLine:
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    if data.get("v") != LOG_VERSION:
        raise ValueError(f"it is of version {data.get('v')!r}, not {LOG_VERSION}")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"it is of the unknown kind {kind!r}")
    entry: Entry = from_plain(KINDS[kind], data)
    _check(entry)
    return LogLine(
        entry=entry,
        run=from_plain(str, data.get("run", "")),
        time=from_plain(float, data.get("time", 0.0)),
        monotonic=from_plain(float, data.get("monotonic", 0.0)),
    )


def _check(entry: Entry) -> None:
    """Check the rules that the types cannot express."""
    if isinstance(entry, Decided):
        for candidate in entry.weighed:
            wanted = len(entry.term_names) if candidate.removed_by is None else 0
            if len(candidate.terms) != wanted:
                raise ValueError(f"weighed: {len(candidate.terms)} terms instead of {wanted}")


def stories(lines: Iterable[LogLine | BadLine]) -> list[Story]:
    """The requests of *lines*, oldest first.

    A request id that was used again begins another story. The end of an attempt may come after
    that of its request, if a peer was slow to confirm a cancel, and belongs to the same story.
    """
    begun: list[tuple[str, list[LogLine]]] = []
    latest: dict[tuple[str, str], list[LogLine]] = {}
    over: set[tuple[str, str]] = set()
    for line in lines:
        if isinstance(line, BadLine) or not isinstance(line.entry, Decided | Attempted | Ended):
            continue
        request_id = line.entry.request_id
        key = (line.run, request_id)
        if key not in latest or (key in over and isinstance(line.entry, Decided)):
            latest[key] = []
            begun.append((request_id, latest[key]))
            over.discard(key)
        latest[key].append(line)
        if isinstance(line.entry, Ended):
            over.add(key)
    return [Story(request_id=request_id, lines=tuple(found)) for request_id, found in begun]
