"""Writes the decision log from a thread, so that a slow disk never delays an answer."""

from __future__ import annotations

import json
import os
import queue
import secrets
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from .._logs import get_logger
from ..capability import PeerId
from ..routing import Decision
from ..wire import CommandResponse, Segment, bounded
from ._entries import KIND_OF, LOG_VERSION, Attempted, Dropped, Entry, decided, ended
from ._tap import WAITING_LINES, Tap, TappedLine, Taps
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
USUAL_BYTES = 16 << 20

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
    """What became of the lines so far."""

    written: int
    """Lines that are in the file."""

    dropped: int
    """Lines that are not and will not be: the queue was full, or the disk did not take them."""


class _File:
    """The file, with several processes writing to it."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor: int | None = None
        self._look_at = 0.0
        self._left = 0

    def append(self, line: bytes) -> None:
        """Write one line, in one piece. Raises `OSError` if the disk does not take it."""
        now = time.monotonic()
        descriptor = self._descriptor
        if descriptor is None or now >= self._look_at or len(line) > self._left:
            descriptor = self._ready(len(line))
            # Of a line that was cut short, by a full disk say, nothing must stick to this one.
            line = line if self._is_whole(descriptor) else b"\n" + line
            self._look_at = now + LOOK_SECONDS
            self._left = self._room(descriptor)
        self._left -= len(line)
        if os.write(descriptor, line) != len(line):
            self._look_at = 0.0
            raise OSError(None, "the disk is full", str(self._path))

    def _room(self, descriptor: int) -> int:
        """Bytes that may be written until the next look."""
        room = self._max_bytes - os.fstat(descriptor).st_size
        return min(room, int(self._max_bytes * LOOK_SHARE))

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
        """False if another process has renamed the file meanwhile, or somebody removed it."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self, descriptor: int) -> bool:
        """Rename the file. False if that was not to be: then it grows until the next time.

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
                # Windows renames no file that somebody has open.
                return False
        self.close()
        return True

    def _is_whole(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        if status.st_size == 0 or not stat.S_ISREG(status.st_mode):
            return True
        os.lseek(descriptor, -1, os.SEEK_END)
        return os.read(descriptor, 1) == b"\n"


Make = Callable[[], Entry]


class DecisionLog:
    """Takes notes of decisions. Made by `open_decision_log`.

    Its methods are quick, never wait and never raise; what cannot be written is counted.
    """

    def __init__(self, path: Path | None, *, max_bytes: int, queue_limit: int) -> None:
        self.path = path
        self._file = None if path is None else _File(path, max_bytes)
        self._taps = Taps()
        self._run = secrets.token_hex(4)
        self._queue: queue.Queue[tuple[float, float, Make] | None] = queue.Queue(queue_limit)
        # Counts are only ever changed under the lock: both sides drop.
        self._lock = threading.Lock()
        self._written = 0
        self._dropped = 0
        self._unsaid = 0
        self._warned = False
        self._closed = False
        self._was_asked_to_stop = False
        self._given_up = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="decision log", daemon=True)
        self._thread.start()

    def subscribe(self, *, limit: int = WAITING_LINES) -> AbstractContextManager[Tap]:
        """Hear every line from now on, in this process, whether or not there is a file.

        ::

            with log.subscribe() as tap:
                while True:
                    for line in await tap.receive():
                        ...

        Args:
          limit: Lines that may wait for the subscriber; further ones are dropped and counted.

        """
        return self._taps.open(limit)

    def decided(self, request_id: str, decision: Decision, *, reason: str) -> None:
        """Note a decision, whoever was chosen."""
        # Everything in a decision is frozen: making the line can be left to the thread.
        self._put(lambda: decided(request_id, decision, reason=reason))

    def attempted(
        self,
        request_id: str,
        *,
        peer_id: PeerId,
        reason: str,
        outcome: str,
        error: str | None,
        seconds: float,
        first_text: float | None,
        tokens: int,
        characters: int,
    ) -> None:
        """Note what came of asking one peer; *error* is a text that went through `scrubbed`."""
        entry = Attempted(
            request_id=request_id,
            peer_id=peer_id,
            reason=reason,
            outcome=outcome,
            error=bounded(error),
            seconds=seconds,
            first_text=first_text,
            tokens=tokens,
            characters=characters,
        )
        self._put(lambda: entry)

    def ended(
        self,
        request_id: str,
        *,
        status: str,
        error: str | None,
        seconds: float,
        first_text: float | None,
        response: CommandResponse | None,
        segments: Sequence[Segment],
    ) -> None:
        """Note the end of a request; *error* is a text that went through `scrubbed`."""
        entry = ended(
            request_id,
            status=status,
            error=error,
            seconds=seconds,
            first_text=first_text,
            response=response,
            segments=segments,
        )
        self._put(lambda: entry)

    def statistics(self) -> DecisionLogStatistics:
        """What became of the lines so far; those that wait for the disk are neither."""
        with self._lock:
            return DecisionLogStatistics(written=self._written, dropped=self._dropped)

    async def close(self) -> None:
        """Write what waits, and close the file: within seconds, however the disk is."""
        self._closed = True
        self._closing.set()
        # A moment is nearly always enough, and costs less than a thread that waits for one.
        if self._stop(QUICK_CLOSE):
            return
        with trio.CancelScope(shield=True):
            # The limit is the thread's own: in a test, trio's clock may leap meanwhile.
            done = await trio.to_thread.run_sync(self._stop, CLOSE_SECONDS)
        if not done:
            self._given_up.set()
            left = max(0, self._queue.qsize() - self._was_asked_to_stop)
            self._drop(left)
            log.warning(
                "the decision log was closed unfinished: the disk is too slow",
                path=str(self.path),
                lost=left,
            )

    def _stop(self, seconds: float) -> bool:
        """Ask the thread to finish; whether it did so in this time."""
        until = time.monotonic() + seconds
        try:
            if not self._was_asked_to_stop:
                self._queue.put(None, timeout=seconds)
                self._was_asked_to_stop = True
        except queue.Full:
            return False
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def _put(self, make: Make) -> None:
        if self._file is None and not self._taps:
            return
        if self._closed:
            self._drop(1)
            return
        try:
            self._queue.put_nowait((time.time(), trio.current_time(), make))
        except queue.Full:
            self._drop(1)

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
            self._unsaid += count

    # ---- in the thread ----

    def _work(self) -> None:
        try:
            while not self._given_up.is_set() and (item := self._queue.get()) is not None:
                self._take(*item)
                if self._queue.empty():
                    # To wake up for each line takes longer than to write it.
                    self._closing.wait(GATHER_SECONDS)
            self._say_dropped(time.time(), 0.0)
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self._warn(error)

    def _take(self, now: float, monotonic: float, make: Make) -> None:
        try:
            self._say_dropped(now, monotonic)
            written = self._write(make(), now, monotonic)
        except Exception as error:  # noqa: BLE001 - no value must end the log, or the program
            self._drop(1)
            self._warn(error)
            return
        with self._lock:
            self._written += written

    def _write(self, entry: Entry, now: float, monotonic: float) -> bool:
        """Whether the line is in the file. Who listens hears it first: a disk may be slow."""
        line = self._line(entry, now, monotonic)
        self._taps.put(lambda: TappedLine(entry=entry, time=now, line=line))
        if self._file is None:
            return False
        self._file.append(line)
        return True

    def _say_dropped(self, now: float, monotonic: float) -> None:
        with self._lock:
            count = self._unsaid
        if count:
            self._write(Dropped(count=count), now, monotonic)
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
        """Say that lines are lost: once, since a full disk would say it with every request."""
        if not self._warned:
            self._warned = True
            why = getattr(error, "strerror", None) or repr(error)
            log.warning("the decision log cannot be written", path=str(self.path), why=why)


@asynccontextmanager
async def open_decision_log(
    path: Path | None, *, max_bytes: int = USUAL_BYTES, queue_limit: int = QUEUE_LIMIT
) -> AsyncIterator[DecisionLog]:
    """A decision log that appends to *path*, for as long as the context lasts.

    A file that cannot be written is a warning in our own log and nothing more. Everything that
    was noted is in the file when the context has ended, unless the disk takes more than 5 s.

    Args:
      path: The file, made with its folder if it is not there; other processes may write to it.
        `None` for no file: then only those who `subscribe` hear of anything.
      max_bytes: When it would be longer than this it is renamed to ``NAME.1``, replacing that.
      queue_limit: Lines that may wait for the disk; further ones are dropped and counted.

    """
    decisions = DecisionLog(path, max_bytes=max_bytes, queue_limit=queue_limit)
    try:
        yield decisions
    finally:
        await decisions.close()
