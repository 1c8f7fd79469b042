"""The queue before the slots: decides who goes next, and who is pushed out. Does no I/O.

* Requests go in the order of arrival. Those of a claimant that has more of them here than there are
  slots, with far more tokens than the others have, go in turns: each further one as many rounds
  later as the one before it is usual requests long; a round is a usual request of each claimant.
* A claimant that was served far more tokens lately than the others here goes as many rounds later.
* A claimant's own request of the highest priority takes the first of its places.
* A priority below 0 yields: such a request waits for those of all claimants that do not yield.
* A full queue still takes a claimant that holds at least two places less than the greediest one:
  that one's last request of its lowest priority is refused in its place, unless the newcomer yields
  more than that.

A priority is a claimant's own word, and anybody may say 100. So one above 0 orders the requests of
its own claimant and nobody else's: what a claimant says of itself can only ever cost itself.

To order claimants by the tokens that each was served lately is fair to the token, and dear: a
claimant that was served one long prompt waits for all others. With ten alike dialers in place of
one that is nearly all of what their 99th percentile is above its.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable

import attrs
import trio

from ._fairness import Fairness

# Weight of the newest request in what one usually costs; about the last ten matter, as for
# `punch.peers.Rates`.
WEIGHT = 0.2

# What a request costs before anything was measured, in tokens.
DEFAULT_TOKENS = 400.0

# A claimant has far more than the others if it has so many times what they have on the average; of
# what was served, also that of so many usual requests more: ten alike ones differ by less.
FAR_MORE_FACTOR = 5.0
FAR_MORE_REQUESTS = 16.0

# Rounds that a claimant goes later for that, at most: what it has had is forgotten meanwhile.
MAX_ROUNDS_LATER = 64.0


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

    rounds: float = 0.0
    """What it takes of a round: its tokens, in usual requests."""

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


# A place in the queue: its round, the number of the arrival that it was made for, its claimant.
_Place = tuple[float, int, Hashable]


@attrs.define
class _Level:
    """The requests that yield as far."""

    places: list[_Place] = attrs.field(factory=list)
    """Taken places, the next one first."""

    waiting: dict[Hashable, list[Ticket]] = attrs.field(factory=dict)
    """Each claimant's requests, in the order of `_rank`: the first one takes its first place."""


@attrs.define
class _Presence:
    """One claimant that has requests here."""

    count: int = 0
    """Requests that wait or have a slot."""

    waiting: int = 0
    """Those of them that wait."""

    tokens: int = 0
    """Their tokens (expected)."""

    free_at: float = 0.0
    """The round in which it has a turn again after the last of them."""


class Line:
    """The queue: who goes next, who is pushed out. No I/O, no clock.

    Args:
      limit: Requests that may wait.
      slots: Requests that any claimant may have here, waiting or not, before they go in turns.

    """

    def __init__(self, limit: int, slots: int = 1) -> None:
        self.limit = limit
        self.slots = slots
        self.fairness = Fairness()
        self.prompt_tokens = 0
        """Prompt tokens of the requests that wait (estimated)."""
        self.output_tokens = 0
        """Answer tokens of the requests that wait (expected)."""
        self._levels: dict[int, _Level] = {}
        self._present: dict[Hashable, _Presence] = {}
        # Of all requests here, waiting or not (expected).
        self._tokens_here = 0
        # The round that is being served: each claimant here has had a turn when it is one more.
        self._round = 0.0
        self._length = 0
        self._arrivals = 0
        self._usual_tokens = DEFAULT_TOKENS

    def __len__(self) -> int:
        return self._length

    def enter(self, ticket: Ticket, *, now: float) -> Ticket | None:
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
        claimant = ticket.claimant
        place = self._place(claimant, now)
        self.arrive(ticket, place)
        level = self._levels.setdefault(_level(ticket), _Level())
        insort(level.places, (place, ticket.arrival, claimant))
        insort(level.waiting.setdefault(claimant, []), ticket, key=_rank)
        self._count(ticket, 1)
        return pushed

    def arrive(self, ticket: Ticket, place: float | None = None) -> None:
        """Note that *ticket* is here, and has its turn in the round of its *place*, or now."""
        self._arrivals += 1
        ticket.arrival = self._arrivals
        presence = self._present.get(ticket.claimant)
        if presence is None:
            presence = self._present[ticket.claimant] = _Presence()
        tokens = ticket.prompt_tokens + ticket.output_tokens
        presence.count += 1
        presence.tokens += tokens
        self._tokens_here += tokens
        ticket.rounds = tokens / self._usual_tokens
        begins = self._round if place is None else place
        presence.free_at = max(presence.free_at, begins + ticket.rounds)

    def depart(self, ticket: Ticket, *, served: bool) -> None:
        """Note that *ticket* is not here any longer; if it was *served*, its turn is over."""
        if served:
            self._round += ticket.rounds / len(self._present)
        presence = self._present[ticket.claimant]
        tokens = ticket.prompt_tokens + ticket.output_tokens
        presence.count -= 1
        presence.tokens -= tokens
        self._tokens_here -= tokens
        if not presence.count:
            del self._present[ticket.claimant]

    def leave(self, ticket: Ticket) -> bool:
        """Remove *ticket*; whether it was there."""
        level = self._levels.get(_level(ticket), _Level())
        waiting = level.waiting.get(ticket.claimant, [])
        if ticket not in waiting:
            return False
        waiting.remove(ticket)
        level.places.remove(_places_of(ticket.claimant, level)[-1])
        self._left(ticket, level)
        self._present[ticket.claimant].free_at -= ticket.rounds
        self.depart(ticket, served=False)
        return True

    def next(self) -> Ticket | None:
        """Remove the request that goes next, and return it; `None` if none waits."""
        if not self._length:
            return None
        level = self._levels[max(self._levels)]
        place, _, claimant = level.places.pop(0)
        # Who had its turn later since nobody else wanted one is not behind for that afterwards.
        self._round = max(self._round, place)
        ticket = level.waiting[claimant].pop(0)
        self._left(ticket, level)
        return ticket

    def ahead(self, ticket: Ticket, *, now: float) -> int:
        """Requests that go before *ticket*, which waits or may: as it looks now."""
        own_level = _level(ticket)
        before = sum(
            [len(one.places) for height, one in self._levels.items() if height > own_level]
        )
        level = self._levels.get(own_level)
        if level is None:
            return before
        mine = level.waiting.get(ticket.claimant, [])
        arrival = ticket.arrival or self._arrivals + 1
        earlier = bisect_left(mine, (-ticket.priority, arrival), key=_rank)
        if earlier < len(mine):
            place = _places_of(ticket.claimant, level)[earlier]
        else:
            place = self._place(ticket.claimant, now), arrival, ticket.claimant
        return before + bisect_left(level.places, place[:2], key=_order)

    def _place(self, claimant: Hashable, now: float) -> float:
        """The round in which *claimant* has a turn for a further request."""
        place = self._round + self._rounds_later(claimant, now)
        presence = self._present.get(claimant)
        if presence is None or presence.count < self.slots:
            return place
        others = len(self._present) - 1
        theirs = self._tokens_here - presence.tokens
        if others and presence.tokens <= FAR_MORE_FACTOR * theirs / others:
            return place
        return max(place, presence.free_at)

    def _rounds_later(self, claimant: Hashable, now: float) -> float:
        """The usual requests that *claimant* was served lately beyond far more than the others."""
        cost = self._usual_tokens * self.fairness.weight(now)
        served = self.fairness.weighed(claimant)
        if served <= FAR_MORE_REQUESTS * cost:
            return 0.0
        others = [one for one in self._present if one != claimant]
        if not others:
            return 0.0
        usual = sum(map(self.fairness.weighed, others)) / len(others)
        beyond = (served - FAR_MORE_FACTOR * usual) / cost - FAR_MORE_REQUESTS
        return min(max(0.0, beyond), MAX_ROUNDS_LATER)

    def charge(self, ticket: Ticket, tokens: float, *, now: float) -> None:
        """The claimant of *ticket* was served *tokens* more."""
        self.fairness.add(ticket.claimant, tokens, now)

    def learn(self, tokens: float) -> None:
        """Learn what a request usually costs from one that took *tokens* in all."""
        self._usual_tokens += WEIGHT * (max(1.0, tokens) - self._usual_tokens)

    def _less_deserving(self, ticket: Ticket) -> Ticket | None:
        """The last request of the greediest claimant, if *ticket* has the better claim."""
        held = {claimant: one.waiting for claimant, one in self._present.items()}
        most = max(held.values(), default=0)
        if held.get(ticket.claimant, 0) + 2 > most:
            return None
        greedy = [claimant for claimant, number in held.items() if number == most]
        claimant = max(greedy, key=self.fairness.weighed)
        for height in sorted(self._levels):
            if height > _level(ticket):
                return None
            if waiting := self._levels[height].waiting.get(claimant):
                return waiting[-1]
        return None

    def _left(self, ticket: Ticket, level: _Level) -> None:
        claimant = ticket.claimant
        self._count(ticket, -1)
        if not level.waiting[claimant]:
            del level.waiting[claimant]
        if not level.waiting:
            del self._levels[_level(ticket)]

    def _count(self, ticket: Ticket, sign: int) -> None:
        self._length += sign
        self._present[ticket.claimant].waiting += sign
        self.prompt_tokens += sign * ticket.prompt_tokens
        self.output_tokens += sign * ticket.output_tokens


def _order(place: _Place) -> tuple[float, int]:
    return place[:2]


def _places_of(claimant: Hashable, level: _Level) -> list[_Place]:
    """The places of one claimant, its first one first."""
    return [place for place in level.places if place[2] == claimant]
