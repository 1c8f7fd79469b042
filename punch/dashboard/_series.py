"""Counts requests and tokens by the second and by the minute, for the charts. No I/O.

Every second remembers the requests that it counts, so that a number on the page can be followed
to them. A minute, of which a day's worth is kept, has numbers only.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

# Ten minutes of seconds: what the charts show.
SERIES_SECONDS = 600

# A day of minutes: what the charts show beyond that, in some 300 KB of memory.
MINUTE_SECONDS = 60
DAY_SECONDS = 24 * 60 * 60

# Request ids that a second remembers. Of a gateway that answers thousands a second the rest are
# counted only.
MAX_IDS = 16

# Times to first token that a second remembers; beyond that many, more change no percentile.
MAX_FIRSTS = 256


@attrs.define(kw_only=True, eq=False)
class Point:
    """The sums of one second."""

    second: int
    """The second, since 1970."""

    version: int = 0
    """The feed's version at its last change."""

    requests: int = 0
    """Requests that ended."""

    failed: int = 0
    """Requests that ended with an error."""

    tokens: int = 0
    """Tokens delivered, of all the requests under way."""

    firsts: list[float] = attrs.field(factory=list)
    """Seconds to first text of the requests that gave theirs."""

    ids: dict[str, None] = attrs.field(factory=dict)
    """Ids of the requests that were counted here, the first 16 of them."""

    more: int = 0
    """Requests beyond these ids, counted once for each thing they did."""

    def of(self, request_id: str) -> None:
        """Remember the id of a request that was counted here."""
        if request_id in self.ids:
            return
        if len(self.ids) < MAX_IDS:
            self.ids[request_id] = None
        else:
            self.more += 1

    def as_data(self) -> dict[str, Any]:
        """The point as the page gets it."""
        return {
            "t": self.second,
            "requests": self.requests,
            "failed": self.failed,
            "tokens": self.tokens,
            "firsts": len(self.firsts),
            "p50": _percentile(self.firsts, 0.5),
            "p95": _percentile(self.firsts, 0.95),
            "ids": list(self.ids),
            "more": self.more,
        }


class _Sample:
    """Values of a whole minute, evenly thinned: each of them is as likely to be kept."""

    def __init__(self) -> None:
        self.seen = 0
        self.values: list[float] = []
        self._every = 1

    def add(self, value: float) -> None:
        if self.seen % self._every == 0:
            self.values.append(value)
            if len(self.values) > MAX_FIRSTS:
                self.values = self.values[::2]
                self._every *= 2
        self.seen += 1


@attrs.define(kw_only=True, eq=False)
class Minute:
    """The sums of one minute. What percentiles need is kept while the minute lasts."""

    second: int
    """Its first second, since 1970."""

    requests: int = 0
    """Requests that ended."""

    failed: int = 0
    """Requests that ended with an error."""

    tokens: int = 0
    """Tokens delivered, of all the requests under way."""

    _sample: _Sample | None = attrs.field(factory=_Sample)
    _closed: tuple[int, float | None, float | None] = (0, None, None)

    def first_text(self, seconds: float) -> None:
        """Count a first text after *seconds*."""
        if self._sample is not None:
            self._sample.add(seconds)

    def close(self) -> None:
        """Keep the percentiles alone, since the minute is over."""
        self._closed, self._sample = self._firsts(), None

    def _firsts(self) -> tuple[int, float | None, float | None]:
        sample = self._sample
        if sample is None:
            return self._closed
        return sample.seen, _percentile(sample.values, 0.5), _percentile(sample.values, 0.95)

    def as_data(self) -> dict[str, Any]:
        """The minute as the page gets it: a point that names no requests."""
        firsts, median, slow = self._firsts()
        return {
            "t": self.second,
            "requests": self.requests,
            "failed": self.failed,
            "tokens": self.tokens,
            "firsts": firsts,
            "p50": median,
            "p95": slow,
        }


class Series:
    """The last ten minutes by the second, and the last day by the minute.

    Seconds and minutes in which nothing happened are left out.
    """

    def __init__(self) -> None:
        self._points: deque[Point] = deque()
        self._minutes: deque[Minute] = deque()

    def minutes(self, now: float) -> list[Minute]:
        """The minutes of the day before *now*, oldest first."""
        return [each for each in self._minutes if each.second > now - DAY_SECONDS]

    def since(self, version: int) -> list[Point]:
        """Every point that changed after *version*, oldest first."""
        return [point for point in self._points if point.version > version]

    def ended(
        self, request_id: str, *, failed: bool, tokens: int, now: float, version: int
    ) -> None:
        """Count a request that ended, with the *tokens* that were not counted yet."""
        point = self._point(now, version)
        point.requests += 1
        point.failed += failed
        point.tokens += tokens
        point.of(request_id)
        minute = self._minute(now)
        minute.requests += 1
        minute.failed += failed
        minute.tokens += tokens

    def first_text(self, request_id: str, *, seconds: float, now: float, version: int) -> None:
        """Count a first text after *seconds*."""
        point = self._point(now, version)
        if len(point.firsts) < MAX_FIRSTS:
            point.firsts.append(seconds)
        point.of(request_id)
        self._minute(now).first_text(seconds)

    def delivered(self, request_id: str, *, tokens: int, now: float, version: int) -> None:
        """Count *tokens* more of a request under way."""
        point = self._point(now, version)
        point.tokens += tokens
        point.of(request_id)
        self._minute(now).tokens += tokens

    def _minute(self, now: float) -> Minute:
        second = int(now) // MINUTE_SECONDS * MINUTE_SECONDS
        if not self._minutes or self._minutes[-1].second < second:
            if self._minutes:
                self._minutes[-1].close()
            self._minutes.append(Minute(second=second))
            while self._minutes[0].second <= second - DAY_SECONDS:
                self._minutes.popleft()
        # As with the seconds, a clock that was set back counts into the newest one.
        return self._minutes[-1]

    def _point(self, now: float, version: int) -> Point:
        second = int(now)
        if not self._points or self._points[-1].second < second:
            self._points.append(Point(second=second))
            while self._points[0].second <= second - SERIES_SECONDS:
                self._points.popleft()
        # A clock that was set back counts into the newest second.
        point = self._points[-1]
        point.version = version
        return point


def _percentile(values: list[float], share: float) -> float | None:
    """The smallest value that at least *share* of them do not exceed: the nearest rank."""
    if not values:
        return None
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)
    return round(ordered[max(0, min(len(ordered), rank) - 1)], 4)
