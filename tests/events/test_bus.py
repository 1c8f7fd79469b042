"""The bus: nobody is held up, nothing is out of order, and every loss is counted."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from punch.capability import PeerId
from punch.events import Batch, Bus, BusStatistics, Event, PeerJoined, PeerLeft, Subscription


@attrs.frozen(kw_only=True)
class Apple(Event):
    """One kind."""

    number: int = 0


@attrs.frozen(kw_only=True)
class Pear(Event):
    """Another."""

    number: int = 0


@attrs.frozen(kw_only=True)
class Golden(Apple):
    """A subclass, and so a kind of its own."""


KINDS: tuple[type[Apple | Pear], ...] = (Apple, Pear, Golden)
A = PeerId("a")


def apple(number: int = 0) -> Apple:
    """An event."""
    return Apple(at=0.0, number=number)


def test_an_event_reaches_every_subscriber_of_its_kind_and_no_other() -> None:
    """Kinds are exact: a subclass may hold what a subscriber of its base must not see."""
    bus = Bus()
    with bus.subscribe(Apple) as one, bus.subscribe(Apple, Pear) as two, bus.subscribe() as none:
        bus.publish(apple(1))
        bus.publish(Golden(at=0.0))
        bus.publish(Pear(at=0.0))
        assert one.drain().events == (apple(1),)
        assert two.drain().events == (apple(1), Pear(at=0.0))
        assert none.drain() == Batch()


def test_a_kind_is_wanted_only_while_a_subscriber_asks_for_it() -> None:
    """Whoever publishes can leave the event unmade."""
    bus = Bus()
    assert not bus.wants(Apple)
    with bus.subscribe(Apple), bus.account(Pear, note=lambda event: None):
        assert [bus.wants(kind) for kind in KINDS] == [True, True, False]
        assert bus.statistics() == BusStatistics(subscriptions=1, ledgers=1, lost=0, faults=0)
    assert not any(bus.wants(kind) for kind in KINDS)
    bus.publish(apple())


def test_what_was_lost_on_the_way_to_a_bus_is_told_to_each_subscriber_once() -> None:
    """As if its own queue had been full; those of other kinds hear nothing."""
    bus = Bus()
    woken: list[str] = []
    with (
        bus.subscribe(Apple, Pear, wake=lambda: woken.append("both")) as both,
        bus.subscribe(Golden) as golden,
    ):
        bus.lose(3, Apple, Pear)
        assert both.drain() == Batch(lost=3)
        assert golden.drain() == Batch()
    assert woken == ["both"]
    assert bus.statistics().lost == 3


def test_a_slow_subscriber_loses_the_newest_and_is_told_how_many() -> None:
    """What it has is the start of what happened, without a gap before the loss."""
    bus = Bus()
    with bus.subscribe(Apple, limit=2) as slow, bus.subscribe(Apple) as quick:
        for number in range(5):
            bus.publish(apple(number))
        assert slow.waiting == 2
        assert slow.drain() == Batch(events=(apple(0), apple(1)), lost=3)
        bus.publish(apple(5))
        assert slow.drain() == Batch(events=(apple(5),), lost=0)
        assert slow.lost == 3
        assert quick.drain() == Batch(events=tuple(map(apple, range(6))), lost=0)
    assert bus.statistics().lost == 3


def test_a_subscriber_is_woken_once_until_it_drains() -> None:
    """However many events there are meanwhile."""
    bus = Bus()
    wakes: list[int] = []
    with bus.subscribe(Apple, wake=lambda: wakes.append(1)) as subscription:
        bus.publish(apple())
        bus.publish(apple())
        assert len(wakes) == 1
        subscription.drain()
        assert len(wakes) == 1
        bus.publish(apple())
        assert len(wakes) == 2


def test_a_subscriber_that_raises_harms_neither_publisher_nor_others() -> None:
    """Its fault is handed to whoever logs faults."""
    heard: list[Event] = []
    faults: list[tuple[type[Exception], Event]] = []

    def bug(*_: object) -> None:
        raise ValueError("a bug")

    bus = Bus(failed=lambda error, event: faults.append((type(error), event)))
    with (
        bus.account(Apple, note=bug),
        bus.account(Apple, note=heard.append),
        bus.subscribe(Apple, wake=bug) as raising,
        bus.subscribe(Apple) as other,
    ):
        bus.publish(apple())
        assert heard == [apple()]
        assert raising.drain().events == other.drain().events == (apple(),)
    assert faults == [(ValueError, apple())] * 2
    assert bus.statistics().faults == 2


def test_a_ledger_has_noted_an_event_before_publish_returns() -> None:
    """Accounting loses nothing: it has no queue that could be full."""
    bus = Bus()
    noted: list[Event] = []
    with bus.account(Apple, Pear, note=noted.append):
        for number in range(10_000):
            bus.publish(apple(number))
            assert len(noted) == number + 1
    bus.publish(apple())
    assert len(noted) == 10_000


def test_a_subscription_that_ended_hears_nothing_more() -> None:
    """What it had stays to be drained."""
    bus = Bus()
    with bus.subscribe(Apple) as subscription:
        bus.publish(apple(1))
    bus.publish(apple(2))
    assert subscription.drain().events == (apple(1),)


def test_events_are_frozen() -> None:
    """A subscriber cannot change what the next one hears."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        PeerJoined(at=1.0, peer_id=A).at = 2.0  # type: ignore[misc]  # frozen
    left, joined = PeerLeft(at=1.0, peer_id=A), PeerJoined(at=1.0, peer_id=A)
    assert left != joined  # type: ignore[comparison-overlap]  # That is what is asked.


def test_a_thread_that_drains_gets_every_event_once_and_in_order() -> None:
    """The decision log does so, while trio's thread publishes."""
    bus, news, done = Bus(), threading.Event(), threading.Event()
    heard: list[int] = []
    lost = 0

    def drain(subscription: Subscription) -> None:
        nonlocal lost
        while True:
            over = done.is_set()
            news.wait(0.01)
            news.clear()
            batch = subscription.drain()
            heard.extend(event.number for event in batch.events if isinstance(event, Apple))
            lost += batch.lost
            if over and not subscription.waiting:
                return

    with bus.subscribe(Apple, wake=news.set, limit=64) as subscription:
        thread = threading.Thread(target=drain, args=(subscription,))
        thread.start()
        for number in range(20_000):
            bus.publish(apple(number))
        done.set()
        news.set()
        thread.join(30)
    assert heard == sorted(set(heard))
    assert len(heard) + lost == 20_000
    assert subscription.lost == lost


@attrs.define
class Model:
    """What one subscriber should have heard."""

    context: AbstractContextManager[Subscription]
    subscription: Subscription
    kinds: tuple[type[Event], ...]
    limit: int
    published: list[Event] = attrs.field(factory=list)
    heard: list[Event] = attrs.field(factory=list)
    waiting: int = 0
    lost: int = 0
    told: int = 0
    wakes: int = 0
    is_draining: bool = False


class BusHistory(RuleBasedStateMachine):
    """Subscribers of every speed come and go while events are published.

    Each sees a subsequence of its kinds in order; what it saw, what waits and what it was told
    it lost are all that was published; a ledger has all of it; no publish ever raises.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bus = Bus()
        self.count = 0
        self.models: list[Model] = []
        self.noted: list[Event] = []
        self.published: list[Event] = []
        self.ledger = self.bus.account(*KINDS, note=self.noted.append)
        self.ledger.__enter__()

    @rule(kinds=st.sets(st.sampled_from(KINDS)), limit=st.integers(0, 4), bug=st.booleans())
    def subscribe(self, kinds: set[type[Event]], limit: int, bug: bool) -> None:
        """Somebody comes, whose wake-up may have a bug."""
        models: list[Model] = []

        def wake() -> None:
            models[0].wakes += 1
            if bug:
                raise ValueError("a bug")

        context = self.bus.subscribe(*kinds, wake=wake, limit=limit)
        models.append(Model(context, context.__enter__(), tuple(kinds), limit))
        self.models += models

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Somebody goes."""
        model = data.draw(st.sampled_from(self.models))
        self.models.remove(model)
        model.context.__exit__(None, None, None)

    @rule(kind=st.sampled_from(KINDS), times=st.integers(1, 6))
    def publish(self, kind: type[Apple | Pear], times: int) -> None:
        """Something happens, a few times."""
        for _ in range(times):
            self.count += 1
            event = kind(at=0.0, number=self.count)
            self.published.append(event)
            for model in self.models:
                if kind in model.kinds:
                    model.published.append(event)
                    if model.waiting < model.limit:
                        model.waiting += 1
                    else:
                        model.lost += 1
            self.bus.publish(event)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), most=st.none() | st.integers(1, 3))
    def drain(self, data: st.DataObject, most: int | None) -> None:
        """Somebody looks, at everything or at a part of it."""
        model = data.draw(st.sampled_from(self.models))
        batch = model.subscription.drain(most)
        size = model.waiting if most is None else min(most, model.waiting)
        assert len(batch.events) == size
        model.heard += batch.events
        model.told += batch.lost
        model.waiting -= size
        model.wakes = 0
        # Whoever takes a part comes back for the rest without a wake-up.
        model.is_draining = model.waiting > 0
        assert model.told == model.lost or model.waiting

    @invariant()
    def each_hears_a_subsequence_in_order_and_counts_the_rest(self) -> None:
        """Nothing twice, nothing out of order, nothing unaccounted for."""
        for model in self.models:
            left = iter(model.published)
            assert all(event in left for event in model.heard)
            assert model.subscription.lost == model.lost
            assert model.subscription.waiting == model.waiting
            assert len(model.heard) + model.waiting + model.lost == len(model.published)
            assert model.wakes <= 1
            assert model.wakes or not model.waiting or model.is_draining

    @invariant()
    def the_ledger_has_everything(self) -> None:
        """In order, whoever is slow."""
        assert self.noted == self.published

    @invariant()
    def only_what_somebody_asks_for_is_wanted(self) -> None:
        """The ledger asks for these three."""
        assert all(self.bus.wants(kind) for kind in KINDS)
        assert not self.bus.wants(PeerJoined)


TestBusHistory = BusHistory.TestCase


def test_what_another_thread_found_before_somebody_came_makes_nobody_deaf() -> None:
    """It asked whether an event is wanted, and writes down that it is not a moment too late."""
    bus = Bus()
    before = bus._hearing
    late = bus._heard_by(Apple)
    with bus.subscribe(Apple) as subscription:
        before[Apple] = late
        assert bus.wants(Apple)
        bus.publish(apple())
        assert len(subscription.drain().events) == 1
    assert not bus.wants(Apple)
