"""A link between two ports of this machine that is as long and as thin as one likes.

    benchmarks/_slow_link.py TARGET_PORT DELAY_SECONDS BYTES_A_SECOND

Prints the port that it listens on. A byte leaves DELAY after its turn has come, and turns come at
the rate of the link, each way by itself: several messages may be under way, as on a long cable. No
more than `MAX_HELD` bytes wait for their turn in one direction; then the sender has to.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable

MAX_HELD = 4 * 2**20
PIECE = 64 * 1024


class Way:
    """One direction of a connection."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, delay: float, rate: float
    ) -> None:
        self.source = source
        self.sink = sink
        self._delay = delay
        self._seconds_per_byte = 1 / rate
        self._held: deque[tuple[float, memoryview]] = deque()
        self._count = 0
        self._free_at = 0.0
        self._is_ended = False
        self._is_shut = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come, and all has gone."""
        return self._is_shut

    @property
    def reads(self) -> bool:
        """Whether it takes more bytes."""
        return not self._is_ended and self._count < MAX_HELD

    def due(self) -> float | None:
        """When the next bytes leave."""
        return self._held[0][0] if self._held else None

    def read(self, now: float) -> None:
        """Take what is there."""
        try:
            data = self.source.recv(PIECE)
        except BlockingIOError:
            return
        if not data:
            self._is_ended = True
            self._held.append((max(now, self._free_at) + self._delay, memoryview(b"")))
            return
        self._free_at = max(now, self._free_at) + len(data) * self._seconds_per_byte
        self._held.append((self._free_at + self._delay, memoryview(data)))
        self._count += len(data)

    def write(self, now: float) -> bool:
        """Send what is due; whether some of that has to wait for the sink."""
        while self._held and self._held[0][0] <= now:
            due, data = self._held[0]
            if not data:
                self._held.popleft()
                self._is_shut = True
                with contextlib.suppress(OSError):
                    self.sink.shutdown(socket.SHUT_WR)
                break
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                return True
            self._count -= sent
            if sent < len(data):
                self._held[0] = (due, data[sent:])
                return True
            self._held.popleft()
        return False


def accept(listener: socket.socket, target: int, delay: float, rate: float) -> list[Way]:
    """Both ways of a new connection."""
    near, _ = listener.accept()
    far = socket.create_connection(("127.0.0.1", target))
    for each in (near, far):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.setblocking(False)
    return [Way(near, far, delay, rate), Way(far, near, delay, rate)]


def wait(listener: socket.socket, ways: Iterable[Way], blocked: set[Way]) -> set[socket.socket]:
    """Sleep until something can be done; the sockets that can be read."""
    now = time.monotonic()
    dues = [due for way in ways if way not in blocked and (due := way.due()) is not None]
    # `select` alone of them all sleeps to the microsecond.
    readable, _, _ = select.select(
        [listener, *(way.source for way in ways if way.reads)],
        [way.sink for way in blocked],
        [],
        max(0.0, min(dues) - now) if dues else None,
    )
    return set(readable)


def main() -> None:
    """Carry connections until the process is ended."""
    target, delay, rate = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    pairs: list[list[Way]] = []
    blocked: set[Way] = set()
    while True:
        readable = wait(listener, [way for pair in pairs for way in pair], blocked)
        if listener in readable:
            pairs.append(accept(listener, target, delay, rate))
        now = time.monotonic()
        for pair in list(pairs):
            try:
                for way in pair:
                    if way.source in readable:
                        way.read(now)
                    if way.write(now):
                        blocked.add(way)
                    else:
                        blocked.discard(way)
                is_over = all(way.is_over for way in pair)
            except OSError:
                is_over = True
            if is_over:
                pairs.remove(pair)
                blocked -= set(pair)
                for way in pair:
                    way.source.close()


if __name__ == "__main__":
    main()
