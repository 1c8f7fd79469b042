"""Writes the decision log from a thread, so that a slow disk never delays an answer.

Decides when the file is rotated and when lines are dropped. What a line says is `_entries`' part.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from .._logs import get_logger
from ..events import Bus, Event, Subscription
from ._entries import KIND_OF, LOG_VERSION, NOTED, Dropped, Entry, entry_of
from ._line import LineMade, LinePublisher
from ._values import to_plain

if sys.platform == "win32":

    def _lock(descriptor: int) -> bool:
        return True
else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


log = get_logger(__name__)

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

# A thousand continued requests or more, and room for years of a household's.
DEFAULT_BYTES = 16 << 20

# Lines that wait for the disk: some seconds of a busy gateway, and some megabytes of snapshots.
QUEUE_LIMIT = 2048

# How long the thread lets lines gather when it has written all there were.
GATHER_SECONDS = 0.02

# How long a look at the file holds good, and for how much of it: whether it still has its name, and
# room, takes five system calls.
LOOK_SECONDS = 0.02
LOOK_SHARE = 1 / 16

# How long closing waits for the disk, in seconds: at once and, if that was not enough, aside.
QUICK_CLOSE = 0.05
CLOSE_SECONDS = 5.0


@attrs.frozen(kw_only=True)
class DecisionLogStatistics:
    """How many lines were written and lost so far."""

    written: int
    """Lines in the file."""

    dropped: int
    """Lines that were lost: the queue was full, or the disk did not take them."""


class _File:
    """A log file that several processes append to."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: int | None = None
        self._look_at = 0.0
        self._left = 0

    def append(self, line: bytes) -> None:
        """Append a line in one piece; raises `OSError` if the disk does not take it."""
        now = time.monotonic()
        descriptor = self._descriptor
        if descriptor is None or now >= self._look_at or len(line) > self._left:
            descriptor = self._ready(len(line))
            # A line that was cut short, such as by a full disk, must not run into this one.
            line = line if self._is_whole(descriptor) else b"\n" + line
            self._look_at = now + LOOK_SECONDS
            self._left = self._bytes_left(descriptor)
        self._left -= len(line)
        if os.write(descriptor, line) != len(line):
            self._look_at = 0.0
            raise OSError(None, "the disk is full", str(self._path))

    def _bytes_left(self, descriptor: int) -> int:
        """Bytes that may be written before the file is looked at again."""
        left = self._max_bytes - os.fstat(descriptor).st_size
        return min(left, int(self._max_bytes * LOOK_SHARE))

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _ready(self, size: int) -> int:
        """A descriptor of the file of this name, with room for *size* bytes more."""
        while True:
            descriptor = self._opened()
            if not self._is_ours(descriptor):
                self.close()
                continue
            status = os.fstat(descriptor)
            full = status.st_size > 0 and status.st_size + size > self._max_bytes
            if not full or not stat.S_ISREG(status.st_mode):
                return descriptor
            if not self._rotate(descriptor):
                return descriptor

    def _opened(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            descriptor = os.open(self._path, flags, 0o600)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077 and hasattr(os, "fchmod"):
                os.fchmod(descriptor, 0o600)
            self._descriptor = descriptor
        return self._descriptor

    def _is_ours(self, descriptor: int) -> bool:
        """Whether the file still has its name: another process may have rotated it."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self, descriptor: int) -> bool:
        """Rename the file; false if that failed, and the file grows until the next try.

        The lock is on the file itself: of the processes that have it open, one renames it, and
        the others find that the name is another file's.
        """
        if not _lock(descriptor):
            return False
        if self._is_ours(descriptor):
            older = self._path.with_name(self._path.name + ".1")
            try:
                self._path.replace(older)
            except PermissionError:
                # Windows renames no file that is open anywhere.
                return False
        self.close()
        return True

    def _is_whole(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        if status.st_size == 0 or not stat.S_ISREG(status.st_mode):
            return True
        os.lseek(descriptor, -1, os.SEEK_END)
        return os.read(descriptor, 1) == b"\n"


class DecisionLog:
    """Writes decisions, attempts and ends to a file. Made by `open_decision_log`.

    A subscriber of events whose queue a thread empties: the thread makes the lines and writes them,
    and what is published meanwhile beyond the queue is lost and counted.
    """

    def __init__(self, path: Path | None, events: Bus, *, max_bytes: int) -> None:
        self.path = path
        self._file = None if path is None else _File(path, max_bytes)
        self._events = events
        self._lines = LinePublisher(events)
        self._run = secrets.token_hex(4)
        self._subscription: Subscription | None = None
        self._news = threading.Event()
        # What to add to the router's clock for the seconds since 1970. Looked at each time that the
        # thread is woken: a machine that slept, or was set right, has another than before.
        self._ahead = time.time() - trio.current_time()
        # Counts are only ever changed under the lock: both sides drop.
        self._lock = threading.Lock()
        self._written = 0
        self._dropped = 0
        self._unsaid = 0
        self._warned = False
        self._given_up = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="decision log", daemon=True)

    def start(self, subscription: Subscription) -> None:
        """Start the thread, which writes what *subscription* gets."""
        self._subscription = subscription
        self._thread.start()

    def wake(self) -> None:
        """Wake the thread; called by the bus, in trio's thread."""
        self._ahead = time.time() - trio.current_time()
        self._news.set()

    def statistics(self) -> DecisionLogStatistics:
        """Counts of lines so far; those that wait for the disk are in neither."""
        lost = 0 if self._subscription is None else self._subscription.lost
        with self._lock:
            return DecisionLogStatistics(written=self._written, dropped=self._dropped + lost)

    async def close(self) -> None:
        """Write what waits and close the file, within seconds even on a disk that hangs."""
        self._closing.set()
        self._news.set()
        # The thread nearly always ends at once, and a blocking wait costs less than another thread.
        self._thread.join(QUICK_CLOSE)
        if not self._thread.is_alive():
            return
        with trio.CancelScope(shield=True):
            # The limit is the thread's own: in a test, trio's clock may leap meanwhile.
            await trio.to_thread.run_sync(self._thread.join, CLOSE_SECONDS)
        if self._thread.is_alive():
            self._given_up.set()
            left = 0 if self._subscription is None else self._subscription.waiting
            with self._lock:
                self._dropped += left
            log.warning(
                "the decision log was closed unfinished: the disk is too slow",
                path=str(self.path),
                lost=left,
            )

    # ---- in the thread ----

    def _work(self) -> None:
        subscription = self._subscription
        assert subscription is not None, "the thread starts with its subscription"
        try:
            while not self._given_up.is_set():
                # One at a time: what waits is bounded by the queue, and nowhere else.
                batch = subscription.drain(1)
                for event in batch.events:
                    self._log_event(event)
                if batch.lost:
                    with self._lock:
                        self._unsaid += batch.lost
                if batch.events or batch.lost:
                    continue
                self._try_say_dropped()
                if self._closing.is_set():
                    break
                # Waking up for each line takes longer than writing it.
                self._closing.wait(GATHER_SECONDS)
                self._news.wait()
                self._news.clear()
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self._warn(error)

    def _log_event(self, event: Event) -> None:
        try:
            self._say_dropped(event.at)
            written = self._write(lambda: entry_of(event), event.at)
        except Exception as error:  # noqa: BLE001 - no value must end the log, or the program
            with self._lock:
                self._dropped += 1
                self._unsaid += 1
            self._warn(error)
            return
        with self._lock:
            self._written += written
        if written and self._warned:
            self._warned = False
            log.info("the decision log is written again", path=str(self.path))

    def _write(self, make: Callable[[], Entry], monotonic: float) -> bool:
        """Publish the line, then write it; whether it is in the file. A disk may be slow."""
        if self._file is None and not self._events.wants(LineMade):
            return False
        entry, now = make(), monotonic + self._ahead
        line = self._line(entry, now, monotonic)
        self._lines.publish(LineMade(at=monotonic, entry=entry, time=now, line=line))
        if self._file is None:
            return False
        self._file.append(line)
        return True

    def _try_say_dropped(self) -> None:
        try:
            self._say_dropped(0.0)
        except Exception as error:  # noqa: BLE001 - said with the next line, or never
            self._warn(error)

    def _say_dropped(self, monotonic: float) -> None:
        with self._lock:
            count = self._unsaid
        if count:
            self._write(lambda: Dropped(count=count), monotonic or time.time() - self._ahead)
            with self._lock:
                self._unsaid -= count

    def _line(self, entry: Entry, now: float, monotonic: float) -> bytes:
        head = {
            "v": LOG_VERSION,
            "kind": KIND_OF[type(entry)],
            "run": self._run,
            "time": round(now, 6),
            "monotonic": monotonic,
        }
        return _encode(head | to_plain(entry)).encode("ascii") + b"\n"

    def _warn(self, error: Exception) -> None:
        """Log that lines are lost: once, since a full disk would repeat it with every request."""
        if not self._warned:
            self._warned = True
            why = getattr(error, "strerror", None) or repr(error)
            log.warning("the decision log cannot be written", path=str(self.path), why=why)


@asynccontextmanager
async def open_decision_log(
    path: Path | None,
    events: Bus,
    *,
    max_bytes: int = DEFAULT_BYTES,
    queue_limit: int = QUEUE_LIMIT,
) -> AsyncIterator[DecisionLog]:
    """A decision log that appends to *path*, for as long as the context lasts.

    A file that cannot be written is a warning in our own log and nothing more. Everything that
    was published is in the file when the context has ended, unless the disk takes more than 5 s.

    Args:
      path: The file, made with its folder if it is not there; other processes may write to it.
        `None` for no file: then lines are made only for subscribers of `LineMade`.
      events: Where the router publishes; `LineMade` is published there too.
      max_bytes: When it would be longer than this it is renamed to ``NAME.1``, replacing that.
      queue_limit: Events that may wait for the disk; further ones are dropped and counted.

    """
    decisions = DecisionLog(path, events, max_bytes=max_bytes)
    try:
        with events.subscribe(*NOTED, wake=decisions.wake, limit=queue_limit) as subscription:
            decisions.start(subscription)
            yield decisions
    finally:
        await decisions.close()
