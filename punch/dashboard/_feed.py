"""Keeps the state that the dashboard shows, and gives watchers what changed since their last look.

Nothing is queued for a watcher. The feed holds the newest state, bounded, and each part of it
remembers the version in which it changed; a watcher is a number, the version that it has seen.
What it gets next is whatever is newer than that. So a thousand changes between two looks cost a
watcher as much as one, a slow one costs no memory, and one that comes back continues where it was.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import count, islice
from typing import Any, Protocol

import attrs
import trio

from .._background import open_background
from .._log_events import open_log_events
from .._logs import get_logger
from .._subscribers import Subscriber, open_subscriber
from .._version import __version__
from ..capability import PeerId
from ..decision_log import Attempted, Decided, Ended, LineMade, LogLine
from ..events import (
    Bus,
    Event,
    Logged,
    PromptRead,
    RequestEnded,
    RequestStarted,
)
from ..exceptions import PunchError
from ..peers import PeerRecord
from ..routing import Policy
from ._requests import ShownRequests
from ._rows import Row, event_row, peer_row
from ._series import MINUTE_SECONDS
from ._splits import SPLIT_EVENTS, ShownSplits, SplitEvent
from ._stories import Stories

log = get_logger(__name__)

# Events and log lines that are remembered: some screens of each.
MAX_EVENTS = 500
MAX_LOGS = 500

# Events that one update has; of more, only the newest.
MAX_NEW_EVENTS = 100

# Watchers at a time: a wall of screens. Each costs a connection and, at most, four frames a second.
MAX_WATCHERS = 32

# Seconds between two frames of one watcher: as often as an eye reads a number that changes.
FRAME_SECONDS = 0.25

# Listeners out of reach that the page names, and the characters of each reason.
MAX_UNREACHABLE = 16
MAX_REASON = 300

# Peers measure themselves each second: more often there is nothing new.
LOOK_SECONDS = 1.0


@attrs.frozen(kw_only=True)
class Frame:
    """A server-sent event for a watcher."""

    id: str
    """The run of the feed and the version: what a watcher that comes back has seen."""

    event: str
    """``snapshot`` is everything and replaces what was known; ``update`` adds to it."""

    data: dict[str, Any]
    """What has changed, by part of the page: see `Feed.since`."""


@attrs.frozen(kw_only=True)
class FeedStatistics:
    """Counts of watchers, missed events and stories."""

    watchers: int
    """Connected watchers."""

    missed: int
    """Events and lines of the decision log that came too fast for the feed."""

    stories: int
    """Requests whose decisions and attempts are held."""

    story_bytes: int
    """Bytes of these stories."""


@attrs.define(kw_only=True, eq=False)
class _Kept:
    """A shown row, and the version in which it last changed."""

    version: int
    row: Row


@attrs.frozen(kw_only=True, eq=False)
class _Event:
    """An event; its row is made only when a watcher asks, which most gateways never see."""

    version: int
    serial: int
    time: float
    source: LineMade | Row

    def as_data(self) -> Row:
        source = self.source
        row = event_row(source.whole) if isinstance(source, LineMade) else source
        return {"n": self.serial, "time": round(self.time, 3)} | row


class Watched(Protocol):
    """The part of a `Router` that the feed reads."""

    @property
    def peers(self) -> tuple[PeerRecord, ...]:
        """A snapshot of the listeners that are connected."""

    @property
    def policy(self) -> Policy:
        """How a peer is chosen."""

    @property
    def strict(self) -> bool:
        """Whether only real inference will do."""

    @property
    def unreachable(self) -> Mapping[PeerId, str]:
        """The listeners that there is no session with, each with the reason."""

    @property
    def trouble(self) -> PunchError | None:
        """Why the router is not in the namespace; `None` if it is."""


class Feed:
    """Follows what the gateway does, for any number of watchers. Made by `open_feed`.

    A subscriber of `KINDS`, and of `PromptRead` if questions are to be shown. How a request changes
    on its way is looked up when a watcher is to see it: most gateways never have one.
    """

    KINDS = (RequestStarted, RequestEnded, LineMade, Logged, *SPLIT_EVENTS)

    def __init__(
        self,
        router: Watched,
        *,
        show_prompts: bool = False,
        join: Mapping[str, str | None] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.show_prompts = show_prompts
        """Whether questions are kept and shown."""
        self._router = router
        self._join = dict(join or {})
        self._wall = wall
        self._run = secrets.token_hex(4)
        self._began = wall()
        self._version = 0
        self._changed = trio.Event()
        self._closed = False
        self._watchers = 0
        self._requests = ShownRequests(self._bump, wall)
        self._peers: dict[PeerId, _Kept] = {}
        self._members_version = 0
        self._unreachable: list[Row] = []
        self._events: deque[_Event] = deque(maxlen=MAX_EVENTS)
        self._event_serial = 0
        self._logs: deque[_Kept] = deque(maxlen=MAX_LOGS)
        self._stories = Stories()
        self._splits = ShownSplits(self._bump)
        self._subscriber: Subscriber | None = None
        self._missed = 0

    # ---- events ----

    def hear(self, event: Event) -> None:
        """Bring the state up to date with an event."""
        if isinstance(event, LineMade):
            self._hear_line(event)
        elif isinstance(event, RequestStarted):
            self._requests.start(event.request)
        elif isinstance(event, RequestEnded):
            self._requests.end(event.request)
        elif isinstance(event, Logged):
            self._logs.append(_Kept(version=self._bump(), row=dict(event.line)))
        elif isinstance(event, PromptRead) and self.show_prompts:
            self._requests.ask(event.request, event.text)
        elif isinstance(event, SplitEvent) and (row := self._splits.hear(event)) is not None:
            self._add_event(self._wall(), row)

    def lose(self, count: int) -> None:
        """Count lost events, and end the requests whose end may have been among them."""
        self._missed += count
        self._requests.end_lost()

    def _hear_line(self, made: LineMade) -> None:
        self._missed += made.missed
        self._bump()
        self._add_event(made.time, made)
        entry = made.entry
        if isinstance(entry, Decided | Attempted | Ended):
            self._stories.add(entry.request_id, made)
        if isinstance(entry, Decided) and entry.chosen is not None:
            self._requests.chose(entry.request_id, entry.chosen)

    def look(self) -> None:
        """Compare the peers with their rows, and count tokens; called each second."""
        now = trio.current_time()
        found = {peer.peer_id: peer for peer in self._router.peers}
        for peer_id, peer in found.items():
            row, kept = peer_row(peer, now), self._peers.get(peer_id)
            if kept is None:
                self._members_changed("joined", peer_id, row)
                self._peers[peer_id] = _Kept(version=self._version, row=row)
            elif kept.row != row:
                kept.version, kept.row = self._bump(), row
        for peer_id in [known for known in self._peers if known not in found]:
            row = self._peers.pop(peer_id).row
            self._members_changed("left", peer_id, row)
        unreachable = [
            {"id": peer_id, "why": why[:MAX_REASON]}
            for peer_id, why in islice(self._router.unreachable.items(), MAX_UNREACHABLE)
        ]
        if unreachable != self._unreachable:
            self._bump()
            self._unreachable = unreachable
        self._requests.count_tokens()

    def _members_changed(self, kind: str, peer_id: PeerId, row: Row) -> None:
        self._members_version = self._bump()
        self._add_event(self._wall(), {"kind": kind, "peer": peer_id, "backend": row["backend"]})

    def _add_event(self, at: float, source: LineMade | Row) -> None:
        self._event_serial += 1
        self._events.append(
            _Event(version=self._version, serial=self._event_serial, time=at, source=source)
        )

    # ---- watchers ----

    @property
    def splits(self) -> list[Row]:
        """The rows of the splits of this process."""
        return self._splits.since(0)

    @property
    def watching(self) -> int:
        """How many watchers there are."""
        return self._watchers

    def statistics(self) -> FeedStatistics:
        """Counts of watchers, missed events and stories."""
        return FeedStatistics(
            watchers=self._watchers,
            missed=self._missed,
            stories=len(self._stories),
            story_bytes=self._stories.size,
        )

    def history(self) -> dict[str, Any]:
        """The last day, a point for each minute in which something happened."""
        now = self._wall()
        return {
            "time": round(now, 3),
            "seconds": MINUTE_SECONDS,
            "points": [minute.as_data() for minute in self._requests.series.minutes(now)],
        }

    def row_of(self, request_id: str) -> tuple[Row | None, str | None]:
        """The row of the newest request of that id, and its question if questions are shown."""
        return self._requests.row_of(request_id)

    def lines_of(self, request_id: str) -> list[LogLine]:
        """The lines of the decision log for a recent request; empty for an older one."""
        return self._stories.find(request_id)

    def choices_of(self, request_id: str) -> list[tuple[str, list[LogLine]]]:
        """The lines of its further answers, if it asked for several: ``ID#1`` and so on."""
        found = []
        for index in count(1):
            choice = f"{request_id}#{index}"
            if not (lines := self._stories.find(choice)):
                break
            found.append((choice, lines))
        return found

    def since(self, version: int) -> dict[str, Any]:
        """What has changed after *version*; everything if that is 0.

        Keys with nothing to say are left out, but ``time``. ``members`` is the ids of all peers,
        there if a peer came or left; ``live`` the serial numbers of all requests under way. Events
        are numbered without gaps: a gap means that there were more than one update has.
        """
        if self._subscriber is not None:
            self._subscriber.catch_up()
        self._requests.follow()
        data: dict[str, Any] = {"time": round(self._wall(), 3)}
        if version == 0:
            data["about"] = {
                "punch": __version__,
                "policy": self._router.policy.name,
                "began": round(self._began, 3),
                "show_prompts": self.show_prompts,
                "strict": self._router.strict,
                "join": self._join,
            }
        if self._members_version > version or version == 0:
            data["members"] = list(self._peers)
        data["splits"] = self._splits.since(version)
        data["peers"] = [kept.row for kept in self._peers.values() if kept.version > version]
        data["requests"] = self._requests.since(version)
        newest = list(self._events)[-MAX_EVENTS if version == 0 else -MAX_NEW_EVENTS :]
        data["events"] = [event.as_data() for event in newest if event.version > version]
        data["logs"] = [kept.row for kept in self._logs if kept.version > version]
        data["points"] = [point.as_data() for point in self._requests.series.since(version)]
        data = {name: value for name, value in data.items() if value or name == "members"}
        data["live"] = self._requests.live()
        data["totals"] = self._requests.totals()
        if self._router.trouble is not None and not self._peers:
            data["trouble"] = str(self._router.trouble)[:MAX_REASON]
        if self._unreachable:
            data["unreachable"] = self._unreachable
        return data

    @contextmanager
    def watch(self, last_event_id: str | None = None) -> Iterator[Watcher]:
        """Watch, for as long as the context lasts, from where *last_event_id* left off.

        Raises:
          BlockingIOError: if there are `MAX_WATCHERS` already.

        """
        if self._watchers >= MAX_WATCHERS:
            raise BlockingIOError(f"{MAX_WATCHERS} watch already")
        self._watchers += 1
        try:
            yield Watcher(self, self._version_of(last_event_id))
        finally:
            self._watchers -= 1

    def close(self) -> None:
        """End every watcher's stream, so that a server can drain. May be called again."""
        self._closed = True
        self._changed.set()

    def _version_of(self, last_event_id: str | None) -> int:
        """The version in a frame's id; 0, for a snapshot, if the id is not of this run."""
        run, _, version = (last_event_id or "").partition("-")
        if run != self._run or not version.isascii() or not version.isdigit():
            return 0
        number = int(version[:18])
        return number if number <= self._version else 0

    def _bump(self) -> int:
        self._version += 1
        if self._watchers and not self._changed.is_set():
            self._changed.set()
        return self._version

    async def _watch_peers(self) -> None:
        while True:
            self.look()
            await trio.sleep(LOOK_SECONDS)


class Watcher:
    """A watcher's place in the feed. Made by `Feed.watch`."""

    def __init__(self, feed: Feed, version: int) -> None:
        self._feed = feed
        self._version = version
        self._sent_at = -FRAME_SECONDS
        self._has_snapshot = False

    async def receive(self) -> Frame | None:
        """The next frame; `None` when the feed is closed.

        Waits until there is something new, and for a moment after the frame before. May be
        cancelled without losing anything.
        """
        feed = self._feed
        await trio.sleep_until(self._sent_at + FRAME_SECONDS)
        while not feed._closed and self._has_snapshot and not self._is_behind():
            if feed._changed.is_set():
                feed._changed = trio.Event()
            with trio.move_on_after(FRAME_SECONDS):
                # What a request does on its way is no event here, and must be looked for.
                await feed._changed.wait()
        if feed._closed:
            return None
        return self._frame()

    def start_over(self) -> None:
        """Make the next frame a snapshot, in place of what was missed."""
        self._version = 0

    def _is_behind(self) -> bool:
        self._feed._requests.follow()
        return self._feed._version > self._version

    def _frame(self) -> Frame:
        feed = self._feed
        whole = self._version == 0
        data = feed.since(self._version)
        self._has_snapshot = True
        self._version = feed._version
        self._sent_at = trio.current_time()
        return Frame(
            id=f"{feed._run}-{feed._version}",
            event="snapshot" if whole else "update",
            data=data,
        )


@asynccontextmanager
async def open_feed(
    router: Watched,
    *,
    events: Bus,
    show_prompts: bool = False,
    join: Mapping[str, str | None] | None = None,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[Feed]:
    """A feed for as long as the context lasts.

    Args:
      router: Whose peers are shown.
      events: Where the gateway publishes, and a decision log its lines: without one no decision is
        shown, and one without a file will do. The process's own log goes there too.
      show_prompts: Keep the questions, and show them.
      join: What to type so that a listener joins: ``here``, and ``elsewhere``, on another machine,
        `None` if none could.
      wall: The time, in seconds since 1970.

    """
    feed = Feed(router, show_prompts=show_prompts, join=join, wall=wall)
    kinds = (*feed.KINDS, PromptRead) if show_prompts else feed.KINDS
    try:
        async with (
            open_background() as nursery,
            open_subscriber(events, *kinds, handle=feed.hear, lost=feed.lose) as subscriber,
        ):
            feed._subscriber = subscriber
            with open_log_events(events):
                nursery.start_soon(feed._watch_peers)
                yield feed
    finally:
        feed.close()
