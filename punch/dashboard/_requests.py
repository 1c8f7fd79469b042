"""Keeps the rows of requests: those under way, and the last ones that have ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import trio

from ..capability import PeerId
from ..events import RequestRecord
from ._rows import Row, request_row, tokens_of
from ._series import Series

# Ended requests that are remembered: some screens of them. The decision log has older ones.
MAX_REQUESTS = 200

# Characters of a question that are shown, where the operator has turned that on.
MAX_PROMPT_CHARACTERS = 4000


@attrs.define(kw_only=True, eq=False)
class _Request:
    """A shown request; its record, which holds snapshots of all peers, is dropped at its end."""

    serial: int
    version: int
    request_id: str
    record: RequestRecord | None
    row: Row = attrs.field(factory=dict)
    """Made when a watcher looks, and at the end: without watchers, once for each request."""
    is_stale: bool = True
    seen: tuple[object, ...] = ()
    """Of its record, what was there when it was looked at last."""
    counted: int = 0
    """Tokens of the request that are counted in the series."""
    first_counted: bool = False
    prompt: str | None = None
    chosen: PeerId | None = None
    """The peer that was chosen last: the record itself names one only with its first text."""
    chosen_over: PeerId | None = None
    """The peer that the record named then."""


class ShownRequests:
    """Rows of requests and their sums; each row knows the version that changed it.

    Args:
      bump: Gives the feed's next version.
      wall: The time, in seconds since 1970.

    """

    def __init__(self, bump: Callable[[], int], wall: Callable[[], float]) -> None:
        self._bump = bump
        self._wall = wall
        self._serial = 0
        self._requests: deque[_Request] = deque()
        self._under_way: dict[RequestRecord, _Request] = {}
        self._by_id: dict[str, _Request] = {}
        self._totals = {"requests": 0, "failed": 0, "tokens": 0, "continued": 0}
        self.series = Series()
        """Their sums, second by second."""

    def start(self, record: RequestRecord) -> None:
        """Show a request from now on."""
        self._serial += 1
        request = _Request(
            serial=self._serial,
            version=self._bump(),
            request_id=record.request_id,
            record=record,
        )
        self._requests.append(request)
        self._under_way[record] = request
        self._by_id[record.request_id] = request
        self._forget_requests()

    def end(self, record: RequestRecord) -> None:
        """Show how a request ended, and drop its record."""
        request = self._under_way.pop(record, None)
        if request is None:
            return
        if self._by_id.get(request.request_id) is request:
            del self._by_id[request.request_id]
        self._note_first_text(request, record)
        self._touch(request)
        row = self._row(request)
        request.record = None
        # The backend's count at the end may be below the parts that were counted on the way.
        tokens = max(0, tokens_of(record) - request.counted)
        failed = record.error_code is not None
        self.series.ended(
            record.request_id,
            failed=failed,
            tokens=tokens,
            now=self._wall(),
            version=request.version,
        )
        totals = self._totals
        totals["requests"] += 1
        totals["failed"] += failed
        totals["tokens"] += tokens
        totals["continued"] += row["continued"] > 0
        self._forget_requests()

    def end_lost(self) -> None:
        """End the shown requests whose records have ended: their events were lost."""
        for record in [each for each in self._under_way if each.ended_at is not None]:
            self.end(record)

    def ask(self, record: RequestRecord, prompt: str) -> None:
        """Keep the question of a request under way."""
        request = self._under_way.get(record)
        if request is not None:
            request.prompt = prompt[:MAX_PROMPT_CHARACTERS]

    def chose(self, request_id: str, peer_id: PeerId) -> None:
        """Show where a request under way was sent, before that peer has said anything."""
        request = self._by_id.get(request_id)
        if request is not None and request.record is not None:
            request.chosen, request.chosen_over = peer_id, request.record.peer_id
            self._touch(request)

    def count_tokens(self) -> None:
        """Count what requests under way have delivered since the last look."""
        for record, request in self._under_way.items():
            self._note_first_text(request, record)
            tokens = tokens_of(record) - request.counted
            if tokens > 0:
                request.counted += tokens
                self._totals["tokens"] += tokens
                self.series.delivered(
                    record.request_id, tokens=tokens, now=self._wall(), version=self._bump()
                )

    def follow(self) -> None:
        """Renew the rows of requests under way that have changed."""
        for record, request in self._under_way.items():
            self._note_first_text(request, record)
            seen = _changing(record)
            if seen != request.seen:
                request.seen = seen
                self._touch(request)

    def row_of(self, request_id: str) -> tuple[Row | None, str | None]:
        """The row of the newest request of that id, and its question if questions are shown."""
        self.follow()
        for request in reversed(self._requests):
            if request.request_id == request_id:
                return self._row(request), request.prompt
        return None, None

    def since(self, version: int) -> list[Row]:
        """Rows that changed after *version*, oldest first."""
        shown = list(self._requests)[-2 * MAX_REQUESTS :]
        return [self._row(request) for request in shown if request.version > version]

    def live(self) -> list[int]:
        """Serial numbers of the requests under way."""
        return [request.serial for request in self._under_way.values()][-MAX_REQUESTS:]

    def totals(self) -> dict[str, Any]:
        """Sums since the feed began."""
        return dict(self._totals) | {"under_way": len(self._under_way)}

    def _note_first_text(self, request: _Request, record: RequestRecord) -> None:
        first = record.first_text_at
        if first is None or request.first_counted:
            return
        request.first_counted = True
        self.series.first_text(
            record.request_id,
            seconds=first - record.began_at,
            now=self._wall(),
            version=self._bump(),
        )

    def _touch(self, request: _Request) -> None:
        request.is_stale = True
        request.version = self._bump()

    def _row(self, request: _Request) -> Row:
        record = request.record
        if request.is_stale and record is not None:
            # Computed anew each time: trio's clock may stand still while the machine sleeps.
            ahead = self._wall() - trio.current_time()
            row = request_row(record, serial=request.serial, ahead=ahead)
            is_chosen = request.chosen is not None and record.peer_id == request.chosen_over
            if is_chosen and record.ended_at is None:
                row["peer"] = request.chosen
            request.row, request.is_stale = row, False
        return request.row

    def _forget_requests(self) -> None:
        """Forget the oldest ended requests; those under way are bounded by the gateway."""
        while len(self._requests) > MAX_REQUESTS and self._requests[0].record is None:
            self._requests.popleft()
        if len(self._requests) > 2 * MAX_REQUESTS:
            # Passed over: a request that takes hours must not keep all that came after it.
            over = len(self._requests) - MAX_REQUESTS
            kept = deque[_Request]()
            for request in self._requests:
                if request.record is None and over > 0:
                    over -= 1
                else:
                    kept.append(request)
            self._requests = kept


def _changing(record: RequestRecord) -> tuple[object, ...]:
    """What changes of a request on its way."""
    return (
        tokens_of(record),
        record.status,
        record.first_text_at,
        record.peer_id,
        record.progress,
        record.provenance,
        len(record.decisions),
        len(record.attempts),
        len(record.segments),
    )
