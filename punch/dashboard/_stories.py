"""Keeps the decision log's lines of the last requests, within a bound of bytes. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import attrs

from ..decision_log import LineMade, LogLine, read_line, stories, story_as_data

# Requests whose whole story is kept in memory; the log file has the earlier ones.
MAX_STORIES = 200

# Bytes of all stories: a decision between sixty peers is a line of some 40 KB.
MAX_BYTES = 16 << 20

# Lines of one request: eight tries make some twenty.
MAX_LINES = 64


@attrs.define(kw_only=True, eq=False)
class _Kept:
    lines: list[bytes] = attrs.field(factory=list)
    size: int = 0


class Stories:
    """Lines by request, as they were written; the oldest requests are dropped for new ones."""

    def __init__(self, *, most: int = MAX_STORIES, most_bytes: int = MAX_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of all lines."""
        return self._size

    def add(self, request_id: str, made: LineMade) -> None:
        """Keep a line."""
        kept = self._kept.get(request_id)
        if kept is None:
            kept = self._kept[request_id] = _Kept()
        elif len(kept.lines) >= MAX_LINES:
            return
        size = len(made.line)
        kept.lines.append(made.line)
        kept.size += size
        self._size += size
        while len(self._kept) > self._most or (
            self._size > self._most_bytes and len(self._kept) > 1
        ):
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.size

    def find(self, request_id: str) -> list[LogLine]:
        """Every line of a request, oldest first; empty if its story is not kept."""
        kept = self._kept.get(request_id)
        return [] if kept is None else [read_line(line) for line in kept.lines]


def story_body(request_id: str, lines: list[LogLine]) -> list[dict[str, Any]]:
    """The last story that *lines* have of a request, as plain data."""
    found = [story for story in stories(lines) if story.request_id == request_id]
    # An id that was used again has several stories; the newest is the one on the page.
    body: list[dict[str, Any]] = story_as_data(found[-1])["lines"] if found else []
    return body
