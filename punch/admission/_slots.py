"""The slots: decides which request is answered now, which waits and which is refused.

* A request that could not be answered in time is refused at once, and told when to ask again.
  With a slot free there is only its own prompt to read, and most of it may be cached: it is
  refused if that would take twice the time it has.
* Tokens are charged as they are made: what is expected of an answer when it begins, and what goes
  beyond that as it comes. What was charged and not made is given back as it was charged.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ._line import WEIGHT, Line, NoRoom, Ticket

# How often a waiting claimant gets a report, in seconds: it takes a longer silence for a fault.
PROGRESS_SECONDS = 5.0

# How often what is made is charged while a slot is free. A token weighs more the later it is
# charged, so that much is less than a fiftieth too much.
CHARGE_SECONDS = 1.0

# When to ask again before anything was measured, in seconds.
DEFAULT_RETRY_SECONDS = 1.0

# A prompt is predicted as if none of it was cached: only one that would take so many times the time
# that is left is clearly too long.
CLEARLY_TOO_LONG = 2.0

# Asking again sooner only adds to the load.
MIN_RETRY_SECONDS = 0.1


class Slots:
    """Slots, and the queue for them.

    Args:
      slots: Requests to answer side by side.
      queue_limit: Requests that may wait.

    """

    def __init__(self, slots: int, queue_limit: int) -> None:
        self.slots = slots
        self.queue_limit = queue_limit
        self.busy = 0
        """Slots in use."""
        self.line = Line(queue_limit, slots)
        """The requests that wait."""
        self.usual_seconds: float | None = None
        """How long a request holds its slot, on the average."""
        self._running: set[Ticket] = set()
        self._idle: trio.Event | None = None
        self._busy_seconds = 0.0
        self._busy_since = 0.0
        self._charged_at = -math.inf

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self.line)

    def busy_seconds(self, now: float) -> float:
        """Slot-seconds in use up to *now*: two slots for one second are two."""
        return self._busy_seconds + self.busy * (now - self._busy_since)

    def wait_seconds(self, ahead: int) -> float | None:
        """Seconds until *ahead* requests and one more have got a slot; `None` before experience."""
        if self.usual_seconds is None:
            return None
        return self.usual_seconds * (ahead + 1) / self.slots

    def admit(self, ticket: Ticket, *, limit: float, own_seconds: float, now: float) -> bool:
        """Give *ticket* a slot, or a place in the queue; whether it has its slot.

        Args:
          ticket: The request.
          limit: Seconds that it has left.
          own_seconds: Of these, what its own prompt will take (expected).
          now: The time.

        Raises:
          NoRoom: if the queue is full, or the request could not be answered in time: with a
            slot free, if its prompt alone takes `CLEARLY_TOO_LONG` times that.

        """
        self._charge_running(now)
        if self.busy < self.slots:
            if own_seconds > CLEARLY_TOO_LONG * limit:
                raise NoRoom(
                    f"the prompt takes {own_seconds:.1f} s: no answer within {limit:.1f} s"
                )
            self.line.arrive(ticket)
            self._change(1, now)
            self._begin(ticket, now)
            return True
        wait = self.wait_seconds(self.line.ahead(ticket, now=now))
        if wait is not None and wait + own_seconds > limit:
            raise NoRoom(
                f"the wait is {wait:.1f} s and the prompt takes {own_seconds:.1f} s: "
                f"no answer within {limit:.1f} s",
                retry_after=max(MIN_RETRY_SECONDS, min(wait, wait + own_seconds - limit)),
            )
        try:
            pushed = self.line.enter(ticket, now=now)
        except NoRoom as error:
            raise self._full(error.why) from None
        if pushed is not None:
            pushed.refusal = self._full(
                f"{len(self.line)} requests are queued, and another claimant has fewer of them"
            )
            pushed.turn.set()
        return False

    async def acquire(
        self,
        ticket: Ticket,
        waiting: Callable[[int, float | None], None],
        *,
        limit: float,
        own_seconds: float,
    ) -> None:
        """Acquire a slot, or wait for one.

        While it must wait, *waiting* is called at first and every 5 s with the number of requests
        ahead and the seconds that are expected. The rest is as in `admit`.
        """
        now = trio.current_time()
        if self.admit(ticket, limit=limit, own_seconds=own_seconds, now=now):
            return
        try:
            while not ticket.turn.is_set():
                now = trio.current_time()
                self._charge_running(now)
                ahead = self.line.ahead(ticket, now=now)
                waiting(ahead, self.wait_seconds(ahead))
                with trio.move_on_after(PROGRESS_SECONDS):
                    await ticket.turn.wait()
        except trio.Cancelled:
            if not self.line.leave(ticket) and ticket.refusal is None:
                self.release(ticket, output_tokens=0)
            raise
        if ticket.refusal is not None:
            raise ticket.refusal

    def release(self, ticket: Ticket, *, output_tokens: int, finished: bool = False) -> None:
        """Give a slot back, to the next in the queue if there is one.

        Args:
          ticket: Whose slot it was.
          output_tokens: Tokens of the answer that were made.
          finished: The answer is whole; an embedding is, without any tokens.

        """
        now = trio.current_time()
        self._running.discard(ticket)
        self._charge_running(now)
        self.line.depart(ticket, served=True)
        surplus = output_tokens - ticket.charged
        if surplus:
            # Given back at the weight that it was charged at: a token weighs more the later it is.
            self.line.charge(ticket, surplus, now=now if surplus > 0 else ticket.taken_at)
        if output_tokens or finished:
            # A request that was cancelled before its first token says nothing about the others.
            self._learn(now - ticket.taken_at, ticket.prompt_tokens + output_tokens)
        following = self.line.next() if self.busy <= self.slots else None
        if following is not None:
            self._begin(following, now)
            following.turn.set()
            return
        self._change(-1, now)
        if not self.busy and self._idle is not None:
            self._idle.set()
            self._idle = None

    def resize(self, slots: int) -> None:
        """Answer *slots* requests side by side from now on; those under way are not touched."""
        self.slots = self.line.slots = slots
        while self.busy < self.slots and (following := self.line.next()) is not None:
            now = trio.current_time()
            self._change(1, now)
            self._begin(following, now)
            following.turn.set()

    async def idle(self) -> None:
        """Wait until no request has a slot, and so none waits for one."""
        while self.busy:
            self._idle = self._idle or trio.Event()
            await self._idle.wait()

    def _begin(self, ticket: Ticket, now: float) -> None:
        ticket.taken_at = now
        ticket.charged = ticket.output_tokens
        self._running.add(ticket)
        # At once, or a claimant's burst would be over before it counted.
        self.line.charge(ticket, ticket.prompt_tokens + ticket.output_tokens, now=now)

    def _charge_running(self, now: float) -> None:
        """Charge what was made beyond what was expected, before claimants are compared.

        While a slot is free none is compared, and once a second is often enough.
        """
        if self.busy < self.slots and now - self._charged_at < CHARGE_SECONDS:
            return
        self._charged_at = now
        for ticket in self._running:
            surplus = ticket.made() - ticket.charged
            if surplus > 0:
                ticket.charged += surplus
                self.line.charge(ticket, surplus, now=now)

    def _change(self, by: int, now: float) -> None:
        self._busy_seconds = self.busy_seconds(now)
        self._busy_since = now
        self.busy += by

    def _learn(self, seconds: float, tokens: int) -> None:
        self.line.learn(tokens)
        before = self.usual_seconds
        self.usual_seconds = seconds if before is None else before + WEIGHT * (seconds - before)

    def _full(self, why: str) -> NoRoom:
        # A place in the queue is free as soon as the next slot is.
        wait = self.wait_seconds(0) or DEFAULT_RETRY_SECONDS
        return NoRoom(
            f"all {self.slots} slots are busy and {why}",
            retry_after=max(MIN_RETRY_SECONDS, wait),
        )
