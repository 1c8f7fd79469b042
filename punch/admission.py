"""Who is answered now, who waits, and who is refused."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import trio

from .exceptions import PeerRefused
from .routing import route_request
from .wire import CommandRequest

# A waiting dialer is told so this often: it takes a longer silence for a fault.
PROGRESS_SECONDS = 5.0


class Slots:
    """Slots and the bounded queue for them: the highest priority first, then who came first.

    Args:
      slots: Requests to answer side by side.
      queue_limit: Requests that may wait; further ones are refused.

    """

    def __init__(self, slots: int, queue_limit: int) -> None:
        self.slots = slots
        self.queue_limit = queue_limit
        self.busy = 0
        """Slots that are taken."""
        self.queued_prompt_tokens = 0
        """Prompt tokens of the requests that wait (estimated)."""
        self._queue: list[tuple[int, int, trio.Event]] = []
        self._arrivals = 0
        self._idle = trio.Event()

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    async def take(self, request: CommandRequest, waiting: Callable[[], None]) -> None:
        """Take a slot, or wait for one; *waiting* is called at first and every 5 s if it must.

        Raises:
          PeerRefused: if the queue is full.

        """
        if self.busy < self.slots:
            self.busy += 1
            return
        if len(self._queue) >= self.queue_limit:
            raise PeerRefused(
                f"all {self.slots} slots are busy and {len(self._queue)} requests are queued"
            )
        self._arrivals += 1
        turn = trio.Event()
        entry = (-request.priority, self._arrivals, turn)
        tokens = route_request(request).prompt_tokens
        heapq.heappush(self._queue, entry)
        self.queued_prompt_tokens += tokens
        try:
            while not turn.is_set():
                waiting()
                with trio.move_on_after(PROGRESS_SECONDS):
                    await turn.wait()
        except trio.Cancelled:
            if entry in self._queue:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
            else:
                self.give()
            raise
        finally:
            self.queued_prompt_tokens -= tokens

    def give(self) -> None:
        """Give a slot back, to the next in the queue if there is one."""
        if self._queue:
            heapq.heappop(self._queue)[2].set()
            return
        self.busy -= 1
        if not self.busy:
            self._idle.set()
            self._idle = trio.Event()

    async def idle(self) -> None:
        """Wait until nobody has a slot, and so nobody waits for one."""
        while self.busy:
            await self._idle.wait()
