"""A poll loop: calls back when a socket is ready, a time has come, or another thread says so.

It moves the bytes of tunnels in a process of its own (`_process`). Trio's scheduling is what a
tunnel through trio costs; here a byte that has arrived is two calls away from the next socket.
One thread, and no lock.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ._polling import READ, WRITE, open_poller

__all__ = ["READ", "WRITE", "Loop", "Timer"]

Callback = Callable[[], None]

_BOTH: Final = READ | WRITE

_ROOM_BYTES: Final = 80 << 10


class Timer:
    """A call that is to come. Made by `Loop.call_at`."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


class _Watched:
    """A socket that is waited for."""

    __slots__ = ("callback", "mask", "number")

    def __init__(self, number: int, callback: Callable[[int], None]) -> None:
        self.number = number
        self.callback = callback
        self.mask = 0


class Loop:
    """Sockets, times, and calls of other threads."""

    def __init__(self) -> None:
        self._poller = open_poller()
        self._sockets: dict[socket.socket, _Watched] = {}
        self._numbers: dict[int, _Watched] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._soon: deque[Callback] = deque()
        self._others: deque[Callback] = deque()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self.add(self._woken, READ, self._wake_up)
        self.now = time.monotonic()
        """Seconds on `clock` when the loop last woke up."""
        self.room = memoryview(bytearray(_ROOM_BYTES))
        """Where a callback may put bytes until it returns."""

    @staticmethod
    def clock() -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def add(self, sock: socket.socket, mask: int, callback: Callable[[int], None]) -> None:
        """Call back with what *sock* is ready for, out of *mask*, until `remove`."""
        number = sock.fileno()
        self._sockets[sock] = self._numbers[number] = _Watched(number, callback)
        self.set(sock, mask)

    def set(self, sock: socket.socket, mask: int) -> None:
        """From now on call back for what is in *mask*; 0 for nothing."""
        watched = self._sockets[sock]
        before = watched.mask
        if mask == before:
            return
        watched.mask = mask
        if not before:
            self._poller.register(watched.number, mask)
        elif mask:
            self._poller.modify(watched.number, mask)
        else:
            self._poller.unregister(watched.number)

    def remove(self, sock: socket.socket) -> None:
        """Call back no more; before the socket is closed."""
        if sock in self._sockets:
            self.set(sock, 0)
            del self._numbers[self._sockets.pop(sock).number]

    def rest(self, listener: socket.socket, seconds: float) -> None:
        """Accept nothing at *listener* for a while: what waits there cannot be accepted now."""

        def again() -> None:
            if listener in self._sockets:
                self.set(listener, READ)

        self.set(listener, 0)
        self.call_at(self.now + seconds, again)

    def call_at(self, when: float, callback: Callback) -> Timer:
        """Call when the clock shows *when*."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_soon(self, callback: Callback) -> None:
        """Call after what is ready now had its turn."""
        self._soon.append(callback)

    def call_from_thread(self, callback: Callback) -> None:
        """Call in the loop's own thread; any thread may say so."""
        self._others.append(callback)
        with suppress(BlockingIOError):  # Full of wake-ups that are as good.
            self._waker.send(b"w")

    def _wake_up(self, mask: int) -> None:
        del mask
        self._woken.recv(4096)
        while self._others:
            self._others.popleft()()

    def run(self) -> None:
        """Run for ever; what a callback raises ends it."""
        while True:
            self.turn()

    def turn(self, longest: float | None = None) -> None:
        """Wait for what is next, at most *longest* seconds, and do it."""
        wait = longest
        if self._soon:
            wait = 0.0
        elif self._timers:
            due = max(0.0, self._timers[0][0] - time.monotonic())
            wait = due if longest is None else min(longest, due)
        ready = self._poller.poll(wait)
        self.now = time.monotonic()
        # A callback may remove a socket, and another may get its number, in the same turn.
        for watched, mask in [(self._numbers[number], mask) for number, mask in ready]:
            if mask > _BOTH:
                mask = _BOTH  # It has failed: whoever reads or sends is told.
            if mask & watched.mask:
                watched.callback(mask & watched.mask)
        for _ in range(len(self._soon)):
            self._soon.popleft()()
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                timer.callback()

    def close(self) -> None:
        """Call back nobody any more; the sockets are their owners' to close."""
        self._poller.close()
        self._woken.close()
        self._waker.close()
