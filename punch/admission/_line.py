"""The queue before the slots: decides who goes next, and who is pushed out. Does no I/O.

* The claimant that was served the fewest tokens lately goes first, with its request of the highest
  priority; then the one that came first.
* A priority below 0 yields: such a request waits for those of all claimants that do not yield.
* A full queue still takes a claimant that holds at least two places less than the greediest one:
  that one's last request of its lowest priority is refused in its place, unless the newcomer yields
  more than that.

A priority is a claimant's own word, and anybody may say 100. So one above 0 orders the requests of
its own claimant and nobody else's: what a claimant says of itself can only ever cost itself.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Hashable

import attrs
import trio

from ._fairness import Fairness

# Weight of the newest request in what one usually costs; about the last ten matter, as for
# `punch.peers.Rates`.
WEIGHT = 0.2

# What a request costs before anything was measured, in tokens.
DEFAULT_TOKENS = 400.0


class NoRoom(Exception):
    """A request is refused before it waits. Listener and gateway each make their own error of it.

    Args:
      why: What is full or too late, for a person.
      retry_after: Seconds after which asking again makes sense; `None` if it never does.

    """

    def __init__(self, why: str, *, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after = retry_after


@attrs.define(kw_only=True, eq=False)
class Ticket:
    """A request for a slot."""

    claimant: Hashable
    """The peer that asks, or the key of the gateway; only compared."""

    priority: int = 0
    """Higher goes first among those of its claimant; below 0 it yields to other claimants too."""

    prompt_tokens: int = 0
    """Length of the prompt, in tokens (estimated)."""

    output_tokens: int = 0
    """Length of the answer, in tokens (expected)."""

    made: Callable[[], int] = lambda: 0
    """Gives the number of tokens that the answer has so far."""

    arrival: int = 0
    """Its number in the order of arrival, from 1; 0 before it enters."""

    charged: int = 0
    """Tokens of the answer that the claimant was charged for."""

    taken_at: float = 0.0
    """When the request got its slot, in seconds."""

    turn: trio.Event = attrs.field(factory=trio.Event)
    """Set when the request has its slot, or was pushed out."""

    refusal: NoRoom | None = None
    """Why the request was pushed out; `None` if it was not."""


def _level(ticket: Ticket) -> int:
    """What its priority means to other claimants: how far it yields to them, and no more."""
    return min(ticket.priority, 0)


def _rank(ticket: Ticket) -> tuple[int, int]:
    """A key that orders the requests of one claimant, the next one first."""
    return -ticket.priority, ticket.arrival


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
        # By level and claimant, each list in the order of `_rank`.
        self._levels: dict[int, dict[Hashable, list[Ticket]]] = {}
        self._held: dict[Hashable, int] = {}
        self._length = 0
        self._arrivals = 0
        self._usual_tokens = DEFAULT_TOKENS

    def __len__(self) -> int:
        return self._length

    def enter(self, ticket: Ticket) -> Ticket | None:
        """Let *ticket* wait; the one that is pushed out for it, if any.

        Raises:
          NoRoom: if the queue is full and *ticket* has no better claim than anybody.

        """
        pushed = None
        if self._length >= self.limit:
            pushed = self._less_deserving(ticket)
            if pushed is None:
                raise NoRoom(f"{self._length} requests are queued")
            self.leave(pushed)
        self._arrivals += 1
        ticket.arrival = self._arrivals
        level = self._levels.setdefault(_level(ticket), {})
        insort(level.setdefault(ticket.claimant, []), ticket, key=_rank)
        self._held[ticket.claimant] = self._held.get(ticket.claimant, 0) + 1
        self._count(ticket, 1)
        return pushed

    def leave(self, ticket: Ticket) -> bool:
        """Remove *ticket*; whether it was there."""
        waiting = self._levels.get(_level(ticket), {}).get(ticket.claimant)
        if waiting is None or ticket not in waiting:
            return False
        waiting.remove(ticket)
        self._left(ticket, waiting)
        return True

    def next(self) -> Ticket | None:
        """Remove the request that goes next, and return it; `None` if none waits."""
        if not self._length:
            return None
        level = self._levels[max(self._levels)]
        fairness = self.fairness

        def claim(claimant: Hashable) -> tuple[float, int]:
            return fairness.weighed(claimant), level[claimant][0].arrival

        waiting = level[min(level, key=claim)]
        ticket = waiting.pop(0)
        self._left(ticket, waiting)
        return ticket

    def ahead(self, ticket: Ticket, *, now: float) -> int:
        """Requests that go before *ticket*, which waits or may: as it looks now.

        Those of one claimant cost it what a request usually does, so another claimant's go first as
        long as that one was served less.
        """
        before = 0
        for height, level in self._levels.items():
            if height > _level(ticket):
                before += sum(map(len, level.values()))
        level = self._levels.get(_level(ticket), {})
        arrival = ticket.arrival or self._arrivals + 1
        rank = (-ticket.priority, arrival)
        mine = sum(1 for other in level.get(ticket.claimant, ()) if _rank(other) < rank)
        before += mine
        cost = self._usual_tokens * self.fairness.weight(now)
        claim = self.fairness.weighed(ticket.claimant) + mine * cost
        for claimant, waiting in level.items():
            lead = claim - self.fairness.weighed(claimant)
            if claimant != ticket.claimant and lead >= 0:
                turns = int(lead / cost)
                if turns < len(waiting):
                    earlier = waiting[turns].arrival < arrival
                    # At the same number of tokens, arrival decides.
                    turns += 1 if lead % cost > 0 or earlier else 0
                before += min(len(waiting), turns)
        return before

    def charge(self, ticket: Ticket, tokens: float, *, now: float) -> None:
        """The claimant of *ticket* was served *tokens* more."""
        self.fairness.add(ticket.claimant, tokens, now)

    def learn(self, tokens: float) -> None:
        """Learn what a request usually costs from one that took *tokens* in all."""
        self._usual_tokens += WEIGHT * (max(1.0, tokens) - self._usual_tokens)

    def _less_deserving(self, ticket: Ticket) -> Ticket | None:
        """The last request of the greediest claimant, if *ticket* has the better claim."""
        most = max(self._held.values(), default=0)
        if self._held.get(ticket.claimant, 0) + 2 > most:
            return None
        greedy = [claimant for claimant, held in self._held.items() if held == most]
        claimant = max(greedy, key=self.fairness.weighed)
        for height in sorted(self._levels):
            if height > _level(ticket):
                return None
            if waiting := self._levels[height].get(claimant):
                return waiting[-1]
        return None

    def _left(self, ticket: Ticket, waiting: list[Ticket]) -> None:
        self._count(ticket, -1)
        self._held[ticket.claimant] -= 1
        if not self._held[ticket.claimant]:
            del self._held[ticket.claimant]
        if not waiting:
            level = self._levels[_level(ticket)]
            del level[ticket.claimant]
            if not level:
                del self._levels[_level(ticket)]

    def _count(self, ticket: Ticket, sign: int) -> None:
        self._length += sign
        self.prompt_tokens += sign * ticket.prompt_tokens
        self.output_tokens += sign * ticket.output_tokens
