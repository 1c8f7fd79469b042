"""Who is answered now, who waits, and who is refused.

`Line` decides and does no I/O; `Slots` waits for what it decides.

* The highest priority goes first; then the dialer that was served the fewest tokens lately;
  then who came first.
* A full queue still takes a dialer that holds at least two places less than the greediest one:
  that one's last request is refused in its place, unless it is of a higher priority.
* Who could not be answered in time is refused at once, and told when to ask again. With a slot
  free there is only his own prompt to read, and most of it may be cached: he is refused if that
  would take twice the time he has.
* Tokens are charged as they are made: what is expected of an answer when it begins, and what goes
  beyond that as it comes. What was charged and not made is given back as it was charged.

A priority is a dialer's own word, and anybody may say 100. It is for dialers who trust each other,
as those of one namespace do; against greed there is fairness, among requests of one priority.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import attrs
import trio

from ..capability import PeerId
from ..exceptions import PeerRefused

# A waiting dialer is told so this often: it takes a longer silence for a fault.
PROGRESS_SECONDS = 5.0

# What was served a minute ago counts half. Longer than a burst of questions, short enough that a
# night's batch does not make its dialer wait all morning.
HALF_LIFE_SECONDS = 60.0

# How often what is made is charged while nobody waits. A token weighs more the later it is charged,
# so that much is less than a fiftieth too much.
CHARGE_SECONDS = 1.0

# After so many half-lives the counters start again from small numbers, long before a float is full.
MOST_HALVINGS = 40.0

# Dialers that the table remembers. The least served are forgotten first: that changes the least.
MOST_DIALERS = 1024

# Weight of the newest holding time; about the last ten matter, as for `punch.peers.Rates`.
WEIGHT = 0.2

# What a request costs before anything was measured, in tokens and in seconds of `retry_after`.
USUAL_TOKENS = 400.0
USUAL_RETRY_SECONDS = 1.0

# A prompt is predicted as if none of it was cached: only one that would take so many times the time
# that is left is clearly too long.
CLEARLY_TOO_LONG = 2.0

# Asking again sooner only adds to the load.
LEAST_RETRY_SECONDS = 0.1


class Fairness:
    """Tokens that each dialer was served lately: what was served long ago counts less and less.

    The idea is the counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI
    2024), with decay in place of its lift for newcomers.
    """

    def __init__(self) -> None:
        self._weighed: dict[PeerId, float] = {}
        self._since = -math.inf

    def weight(self, now: float) -> float:
        """What a token served at *now* counts. It grows, so that nothing else has to shrink."""
        halvings = (now - self._since) / HALF_LIFE_SECONDS
        if halvings > MOST_HALVINGS:
            self._rebase(now, halvings)
            return 1.0
        return float(2.0**halvings)

    def weighed(self, dialer: PeerId) -> float:
        """What *dialer* was served, for comparing with others at any one time."""
        return self._weighed.get(dialer, 0.0)

    def served(self, dialer: PeerId, now: float) -> float:
        """Tokens that *dialer* was served lately."""
        weight = self.weight(now)
        return self.weighed(dialer) / weight

    def add(self, dialer: PeerId, tokens: float, now: float) -> None:
        """*dialer* was served *tokens* at *now*; negative if it was less than was thought then."""
        weight = self.weight(now)
        self._weighed[dialer] = max(0.0, self.weighed(dialer) + tokens * weight)
        if len(self._weighed) > MOST_DIALERS:
            del self._weighed[min(self._weighed, key=self.weighed)]

    def _rebase(self, now: float, halvings: float) -> None:
        self._since = now
        factor = 0.5**halvings
        shrunk = {dialer: value * factor for dialer, value in self._weighed.items()}
        self._weighed = {dialer: value for dialer, value in shrunk.items() if value >= 1.0}

    def __len__(self) -> int:
        return len(self._weighed)


@attrs.define(kw_only=True, eq=False)
class Ticket:
    """One request at the door."""

    dialer: PeerId
    """Who asks."""

    priority: int = 0
    """Higher goes first."""

    prompt_tokens: int = 0
    """Length of the prompt, in tokens (estimated)."""

    output_tokens: int = 0
    """Length of the answer, in tokens (expected)."""

    made: Callable[[], int] = lambda: 0
    """Says how many tokens of the answer there are."""

    arrival: int = 0
    """How many came before."""

    charged: int = 0
    """Tokens of the answer that its dialer was charged for."""

    taken_at: float = 0.0
    """When it got its slot, in seconds."""

    turn: trio.Event = attrs.field(factory=trio.Event)
    """Set when it has its slot, or was pushed out."""

    refusal: PeerRefused | None = None
    """Why it was pushed out."""


class Line:
    """The queue: who goes next, who is pushed out. No I/O, no clock.

    Args:
      limit: Requests that may wait.

    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.fairness = Fairness()
        self.prompt_tokens = 0
        """Prompt tokens of the requests that wait (estimated)."""
        self.output_tokens = 0
        """Answer tokens of the requests that wait (expected)."""
        self._levels: dict[int, dict[PeerId, deque[Ticket]]] = {}
        self._held: dict[PeerId, int] = {}
        self._length = 0
        self._arrivals = 0
        self._usual_tokens = USUAL_TOKENS

    def __len__(self) -> int:
        return self._length

    def enter(self, ticket: Ticket) -> Ticket | None:
        """Let *ticket* wait; the one that is pushed out for it, if any.

        Raises:
          PeerRefused: if the queue is full and *ticket* has no better claim than anybody.

        """
        pushed = None
        if self._length >= self.limit:
            pushed = self._less_deserving(ticket)
            if pushed is None:
                raise PeerRefused(f"{self._length} requests are queued")
            self.leave(pushed)
        self._arrivals += 1
        ticket.arrival = self._arrivals
        level = self._levels.setdefault(ticket.priority, {})
        level.setdefault(ticket.dialer, deque()).append(ticket)
        self._held[ticket.dialer] = self._held.get(ticket.dialer, 0) + 1
        self._count(ticket, 1)
        return pushed

    def leave(self, ticket: Ticket) -> bool:
        """Take *ticket* out; whether it was there."""
        waiting = self._levels.get(ticket.priority, {}).get(ticket.dialer)
        if waiting is None or ticket not in waiting:
            return False
        waiting.remove(ticket)
        self._left(ticket, waiting)
        return True

    def next(self) -> Ticket | None:
        """Take out whoever goes next."""
        if not self._length:
            return None
        level = self._levels[max(self._levels)]
        fairness = self.fairness

        def claim(dialer: PeerId) -> tuple[float, int]:
            return fairness.weighed(dialer), level[dialer][0].arrival

        waiting = level[min(level, key=claim)]
        ticket = waiting.popleft()
        self._left(ticket, waiting)
        return ticket

    def ahead(self, ticket: Ticket, *, now: float) -> int:
        """Requests that go before *ticket*, which waits or may: as it looks now.

        Those of one dialer cost it what a request usually does, so another dialer's go first as
        long as that one was served less.
        """
        before = 0
        for priority, level in self._levels.items():
            if priority > ticket.priority:
                before += sum(map(len, level.values()))
        level = self._levels.get(ticket.priority, {})
        own = level.get(ticket.dialer, ())
        if ticket.arrival:
            mine = sum(1 for other in own if other.arrival < ticket.arrival)
        else:
            mine = len(own)
        before += mine
        cost = self._usual_tokens * self.fairness.weight(now)
        claim = self.fairness.weighed(ticket.dialer) + mine * cost
        for dialer, waiting in level.items():
            lead = claim - self.fairness.weighed(dialer)
            if dialer != ticket.dialer and lead >= 0:
                turns = int(lead / cost)
                if turns < len(waiting):
                    earlier = waiting[turns].arrival < (ticket.arrival or self._arrivals + 1)
                    # At the same number of tokens, arrival decides.
                    turns += 1 if lead % cost > 0 or earlier else 0
                before += min(len(waiting), turns)
        return before

    def charge(self, ticket: Ticket, tokens: float, *, now: float) -> None:
        """The dialer of *ticket* was served *tokens* more."""
        self.fairness.add(ticket.dialer, tokens, now)

    def learn(self, tokens: float) -> None:
        """A request has taken so many tokens in all."""
        self._usual_tokens += WEIGHT * (max(1.0, tokens) - self._usual_tokens)

    def _less_deserving(self, ticket: Ticket) -> Ticket | None:
        """The last request of the greediest dialer, if *ticket* has the better claim."""
        most = max(self._held.values(), default=0)
        if self._held.get(ticket.dialer, 0) + 2 > most:
            return None
        greedy = [dialer for dialer, held in self._held.items() if held == most]
        dialer = max(greedy, key=self.fairness.weighed)
        for priority in sorted(self._levels):
            if priority > ticket.priority:
                return None
            if waiting := self._levels[priority].get(dialer):
                return waiting[-1]
        return None

    def _left(self, ticket: Ticket, waiting: deque[Ticket]) -> None:
        self._count(ticket, -1)
        self._held[ticket.dialer] -= 1
        if not self._held[ticket.dialer]:
            del self._held[ticket.dialer]
        if not waiting:
            level = self._levels[ticket.priority]
            del level[ticket.dialer]
            if not level:
                del self._levels[ticket.priority]

    def _count(self, ticket: Ticket, sign: int) -> None:
        self._length += sign
        self.prompt_tokens += sign * ticket.prompt_tokens
        self.output_tokens += sign * ticket.output_tokens


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
        """Slots that are taken."""
        self.line = Line(queue_limit)
        """Who waits."""
        self.usual_seconds: float | None = None
        """How long a request holds its slot, on the average."""
        self._running: set[Ticket] = set()
        self._idle = trio.Event()
        self._busy_seconds = 0.0
        self._busy_since = 0.0
        self._charged_at = -math.inf

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self.line)

    def busy_seconds(self, now: float) -> float:
        """Seconds that slots were taken, all together, up to *now*."""
        return self._busy_seconds + self.busy * (now - self._busy_since)

    def wait_seconds(self, ahead: int) -> float | None:
        """How long it takes until *ahead* requests and one more have got a slot, by experience."""
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
          PeerRefused: if the queue is full, or the request could not be answered in time: with a
            slot free, if its prompt alone takes `CLEARLY_TOO_LONG` times that.

        """
        self._charge_running(now)
        if self.busy < self.slots:
            if own_seconds > CLEARLY_TOO_LONG * limit:
                raise PeerRefused(
                    f"the prompt takes {own_seconds:.1f} s: no answer within {limit:.1f} s"
                )
            self._change(1, now)
            self._begin(ticket, now)
            return True
        wait = self.wait_seconds(self.line.ahead(ticket, now=now))
        if wait is not None and wait + own_seconds > limit:
            raise PeerRefused(
                f"the wait is {wait:.1f} s and the prompt takes {own_seconds:.1f} s: "
                f"no answer within {limit:.1f} s",
                retry_after=max(LEAST_RETRY_SECONDS, min(wait, wait + own_seconds - limit)),
            )
        try:
            pushed = self.line.enter(ticket)
        except PeerRefused as error:
            raise self._full(error.message) from None
        if pushed is not None:
            pushed.refusal = self._full(
                f"{len(self.line)} requests are queued, and another dialer has fewer of them"
            )
            pushed.turn.set()
        return False

    async def take(
        self,
        ticket: Ticket,
        waiting: Callable[[int, float | None], None],
        *,
        limit: float,
        own_seconds: float,
    ) -> None:
        """Take a slot, or wait for one.

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
                self.give(ticket, output_tokens=0)
            raise
        if ticket.refusal is not None:
            raise ticket.refusal

    def give(self, ticket: Ticket, *, output_tokens: int, finished: bool = False) -> None:
        """Give a slot back, to the next in the queue if there is one.

        Args:
          ticket: Whose slot it was.
          output_tokens: Tokens of the answer that were made.
          finished: The answer is whole; an embedding is, without any tokens.

        """
        now = trio.current_time()
        self._running.discard(ticket)
        self._charge_running(now)
        surplus = output_tokens - ticket.charged
        # Given back at the weight that it was charged at: a token weighs more the later it is.
        self.line.charge(ticket, surplus, now=now if surplus > 0 else ticket.taken_at)
        if output_tokens or finished:
            # One that was cancelled before its first word says nothing about the others.
            self._learn(now - ticket.taken_at, ticket.prompt_tokens + output_tokens)
        following = self.line.next()
        if following is not None:
            self._begin(following, now)
            following.turn.set()
            return
        self._change(-1, now)
        if not self.busy:
            self._idle.set()
            self._idle = trio.Event()

    async def idle(self) -> None:
        """Wait until nobody has a slot, and so nobody waits for one."""
        while self.busy:
            await self._idle.wait()

    def _begin(self, ticket: Ticket, now: float) -> None:
        ticket.taken_at = now
        ticket.charged = ticket.output_tokens
        self._running.add(ticket)
        # At once, or a dialer's burst would be over before it counted.
        self.line.charge(ticket, ticket.prompt_tokens + ticket.output_tokens, now=now)

    def _charge_running(self, now: float) -> None:
        """Charge what was made beyond what was expected, before anybody is compared.

        Where nobody waits, nobody is: once a second keeps the moment of each token near enough.
        """
        if not self.line and now - self._charged_at < CHARGE_SECONDS:
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

    def _full(self, why: str) -> PeerRefused:
        # Room is there as soon as one more slot is free.
        wait = self.wait_seconds(0) or USUAL_RETRY_SECONDS
        return PeerRefused(
            f"all {self.slots} slots are busy and {why}",
            retry_after=max(LEAST_RETRY_SECONDS, wait),
        )
