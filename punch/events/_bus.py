"""Hands events to subscribers: bounded queues that lose, and ledgers that may not.

The rules, which `tests/events` checks over generated histories:

* A publisher never waits and never hears of a subscriber's fault.
* A subscriber gets the events of its kinds in the order in which they were published. One whose
  queue is full loses the newest, and learns exactly how many; no other subscriber loses any.
* A kind without subscribers costs one look into a dict.
* Accounting may lose nothing, so a *ledger* has no queue: its function is called before
  `Bus.publish` returns. It only takes a note in memory, and is the exception, not the model.

One thread publishes and subscribes. A subscription may be drained by one other thread: appending
to a deque and taking from it are atomic, and only the publisher counts what is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import attrs

from ._event import Event

# Events that wait for one subscriber: a second or two of a busy gateway, some of whose events hold
# a decision's snapshot.
DEFAULT_LIMIT = 4096

Kind = type[Event]

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Batch:
    """The events that a subscriber has not seen yet."""

    events: tuple[Event, ...] = ()
    """The events, in the order in which they were published."""

    lost: int = 0
    """Events after these that did not fit into the queue."""


@attrs.frozen(kw_only=True)
class BusStatistics:
    """How a bus is used."""

    subscriptions: int
    """Queues that are subscribed now."""

    ledgers: int
    """Functions that are called for every event of their kinds."""

    lost: int
    """Events that the queues of all subscribers so far have lost."""

    faults: int
    """Exceptions that came out of wake-ups and ledgers."""


class Subscription:
    """The queue of one subscriber. Made by `Bus.subscribe`."""

    def __init__(self, *, wake: Callable[[], None] | None, limit: int) -> None:
        self._wake = wake
        self._limit = limit
        self._queue: deque[Event] = deque()
        self._is_woken = False
        self._lost = 0
        self._lost_reported = 0

    @property
    def lost(self) -> int:
        """Events that did not fit into the queue, from its start."""
        return self._lost

    @property
    def waiting(self) -> int:
        """Events in the queue."""
        return len(self._queue)

    def drain(self, most: int | None = None) -> Batch:
        """Take what is in the queue; the next event wakes the subscriber again.

        Args:
          most: Drain no more events than this. The number of lost events comes with the call
            that empties the queue.

        """
        # Before anything is taken: an event that arrives in between wakes once too often, and
        # none arrives without a wake-up to come.
        self._is_woken = False
        queue = self._queue
        # No more than there is now: another thread that publishes faster than this one takes
        # must not keep it here.
        waiting = len(queue)
        size = waiting if most is None else min(most, waiting)
        events = tuple([queue.popleft() for _ in range(size)])
        if size < waiting:
            return Batch(events=events)
        lost = self._lost
        lost, self._lost_reported = lost - self._lost_reported, lost
        return Batch(events=events, lost=lost)

    def _lose(self, count: int) -> None:
        """Count events as lost that never came here. Called by the bus alone."""
        self._lost += count
        if not self._is_woken:
            self._call()

    def _put(self, event: Event) -> bool:
        """Queue *event*, or count it as lost; whether it fitted. Called by the bus alone."""
        if len(self._queue) >= self._limit:
            self._lost += 1
            return False
        self._queue.append(event)
        if not self._is_woken:
            self._call()
        return True

    def _call(self) -> None:
        self._is_woken = True
        if self._wake is not None:
            self._wake()


class Bus:
    """Where events are published and subscribed to.

    Args:
      failed: Called with what a subscriber's wake-up or ledger raised and with the event, such as
        to log it; by default such exceptions are counted and nothing else.

    """

    def __init__(self, *, failed: Callable[[Exception, Event], None] | None = None) -> None:
        self._failed = failed
        self._queues: dict[Kind, tuple[Subscription, ...]] = {}
        self._ledgers: dict[Kind, tuple[Callable[[Event], None], ...]] = {}
        self._followers: tuple[tuple[Kind, Subscription], ...] = ()
        self._hearing = _Hearing(self._heard_by)
        self._subscriptions = 0
        self._ledger_count = 0
        self._lost = 0
        self._faults = 0

    def wants(self, kind: Kind) -> bool:
        """Whether an event of this very *kind* has a subscriber: ask before making one."""
        return kind in self._ledgers or bool(self._hearing[kind])

    def publish(self, event: Event) -> None:
        """Hand *event* to every subscriber of its kind. Never waits, never raises.

        Neither a wake-up nor a ledger may publish: the others would see its event first.
        """
        kind = type(event)
        for note in self._ledgers.get(kind, ()):
            try:
                note(event)
            except Exception as error:  # noqa: BLE001 - a subscriber's bug is not the publisher's
                self._note_fault(error, event)
        for subscription in self._hearing[kind]:
            try:
                self._lost += not subscription._put(event)
            except Exception as error:  # noqa: BLE001 - a subscriber's bug is not the publisher's
                self._note_fault(error, event)

    def lose(self, count: int, *kinds: Kind) -> None:
        """Tell the subscribers of *kinds* that *count* events were lost on their way to this bus.

        For who publishes what happens in another process: each counts them as if its own queue had
        been full.
        """
        for subscription in {each for kind in kinds for each in self._hearing[kind]}:
            subscription._lose(count)
            self._lost += count

    @contextmanager
    def subscribe(
        self, *kinds: Kind, wake: Callable[[], None] | None = None, limit: int = DEFAULT_LIMIT
    ) -> Iterator[Subscription]:
        """A queue of events of these very *kinds* for as long as the context lasts.

        There is no way to subscribe to everything: some kinds hold what only the operator may see;
        `follow` is for those that say that they hold none of it.

        Args:
          kinds: Which events; subclasses are kinds of their own.
          wake: Called in the publisher's thread when the queue is no longer empty, once until
            the next `Subscription.drain`: sets an event or a flag, and nothing that takes time.
          limit: Events that may wait; further ones are lost and counted.

        """
        subscription = Subscription(wake=wake, limit=limit)
        _add(self._queues, kinds, subscription)
        self._hearing = _Hearing(self._heard_by)
        self._subscriptions += 1
        try:
            yield subscription
        finally:
            _remove(self._queues, kinds, subscription)
            self._hearing = _Hearing(self._heard_by)
            self._subscriptions -= 1

    @contextmanager
    def follow(
        self, family: Kind, *, wake: Callable[[], None] | None = None, limit: int = DEFAULT_LIMIT
    ) -> Iterator[Subscription]:
        """A queue of events of *family* and of every kind below it, those to come included.

        For a subscriber that shows what it does not know: a feed of `Lifecycle`, for example.

        Args:
          family: The kind that all of them are made from; what is in it, whoever derives from it
            knows, and answers for.
          wake: See `subscribe`.
          limit: See `subscribe`.

        """
        subscription = Subscription(wake=wake, limit=limit)
        follower = (family, subscription)
        self._followers = (*self._followers, follower)
        self._hearing = _Hearing(self._heard_by)
        self._subscriptions += 1
        try:
            yield subscription
        finally:
            self._followers = tuple(each for each in self._followers if each is not follower)
            self._hearing = _Hearing(self._heard_by)
            self._subscriptions -= 1

    @contextmanager
    def account(self, *kinds: Kind, note: Callable[[Event], None]) -> Iterator[None]:
        """Call *note* with every event of these kinds, for as long as the context lasts.

        For accounting alone, which may lose nothing: the publisher waits for *note*, so it takes
        microseconds, keeps what it notes in memory, and bounds that by what it is about.
        """
        _add(self._ledgers, kinds, note)
        self._ledger_count += 1
        try:
            yield
        finally:
            _remove(self._ledgers, kinds, note)
            self._ledger_count -= 1

    def statistics(self) -> BusStatistics:
        """Counts of subscribers, lost events and faults."""
        return BusStatistics(
            subscriptions=self._subscriptions,
            ledgers=self._ledger_count,
            lost=self._lost,
            faults=self._faults,
        )

    def _heard_by(self, kind: Kind) -> tuple[Subscription, ...]:
        following = (each for family, each in self._followers if issubclass(kind, family))
        return (*self._queues.get(kind, ()), *following)

    def _note_fault(self, error: Exception, event: Event) -> None:
        self._faults += 1
        if self._failed is not None:
            self._failed(error, event)


class _Hearing(dict[Kind, tuple[Subscription, ...]]):
    """The queues of each kind that was asked about since a subscriber came or left.

    Whoever comes or leaves puts a new one in its place: another thread that asks just then may
    still write what it found before into the old one, where nobody looks.
    """

    def __init__(self, heard_by: Callable[[Kind], tuple[Subscription, ...]]) -> None:
        super().__init__()
        self._heard_by = heard_by

    def __missing__(self, kind: Kind) -> tuple[Subscription, ...]:
        found = self[kind] = self._heard_by(kind)
        return found


def _add(table: dict[Kind, tuple[T, ...]], kinds: tuple[Kind, ...], value: T) -> None:
    for kind in kinds:
        table[kind] = (*table.get(kind, ()), value)


def _remove(table: dict[Kind, tuple[T, ...]], kinds: tuple[Kind, ...], value: T) -> None:
    for kind in kinds:
        left = tuple(other for other in table[kind] if other is not value)
        # A kind without subscribers has no entry, so that `wants` is one look.
        if left:
            table[kind] = left
        else:
            del table[kind]
