"""Who goes next, who is pushed out, who is refused, and what that costs."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from punch.admission import Fairness, Line, NoRoom, Slots, Ticket
from punch.admission._fairness import HALF_LIFE_SECONDS, MAX_CLAIMANTS


def ticket(dialer: str = "a", *, priority: int = 0, tokens: int = 100) -> Ticket:
    """A request of *dialer*."""
    return Ticket(claimant=dialer, priority=priority, prompt_tokens=tokens)


def drain(line: Line) -> list[Ticket]:
    """Everybody, in the order of their turns."""
    order = []
    while (following := line.next()) is not None:
        order.append(following)
    return order


def full(*dialers: str, limit: int | None = None) -> tuple[Line, list[Ticket]]:
    """A queue with a request of each, and no room for more."""
    line = Line(len(dialers) if limit is None else limit)
    tickets = [ticket(dialer) for dialer in dialers]
    for one in tickets:
        line.enter(one, now=0.0)
    return line, tickets


def test_tokens_served_then_priority_then_arrival() -> None:
    """In this order: a priority is the claimant's own word, and orders its own requests only."""
    line = Line(9)
    line.fairness.add("a", 50_000, now=0.0)
    line.fairness.add("b", 50, now=0.0)
    line.arrive(ticket("b"))
    first, second, urgent, other = ticket(), ticket(), ticket(priority=5), ticket("b")
    for one in (first, second, other, urgent):
        line.enter(one, now=0.0)
    assert drain(line) == [other, urgent, first, second]


def test_among_claimants_that_had_about_as_much_arrival_decides() -> None:
    """One long prompt does not put a claimant behind all others."""
    line = Line(9, slots=4)
    for number, name in enumerate("abcde"):
        line.arrive(ticket(name))
        line.fairness.add(name, 1000 * number, now=0.0)
    tickets = [ticket(name) for name in "ebadc"]
    for one in tickets:
        line.enter(one, now=0.0)
    assert drain(line) == tickets


def test_a_claimant_has_as_many_requests_by_arrival_as_there_are_slots() -> None:
    """Each further one goes a round later."""
    line = Line(9, slots=2)
    first, second, third, fourth = [ticket() for _ in range(4)]
    other = ticket("b")
    for one in (first, second, third, fourth, other):
        line.enter(one, now=0.0)
    assert drain(line) == [first, second, other, third, fourth]


def test_a_claimant_has_as_many_requests_by_arrival_as_alike_ones_may_have() -> None:
    """In a burst of all of them nobody goes in turns, though some have twice what others have."""
    line = Line(99)
    tickets = [ticket(name) for name in "abcde" + "abcde" + "aabbac"]
    for one in tickets[:5]:
        line.arrive(one)
    for one in tickets[5:]:
        line.enter(one, now=0.0)
    assert drain(line) == tickets[5:]


def test_a_round_later_is_not_never() -> None:
    """Others that come one after another do not hold up the further requests of one for good."""
    line = Line(9)
    patient = [ticket(), ticket(), ticket()]
    for one in patient:
        line.enter(one, now=0.0)
    served = []
    for _ in range(9):
        line.enter(ticket("b"), now=0.0)
        following = line.next()
        assert following is not None
        line.depart(following, served=True)
        served.append(following.claimant)
    assert served.count("a") == len(patient)


def turns_until(line: Line, name: str) -> int:
    """Requests of ``b``, which has always some waiting, that go before the next one of *name*."""
    for _ in range(3):
        line.enter(ticket("b"), now=0.0)
    for number in range(99):
        following = line.next()
        assert following is not None
        line.depart(following, served=True)
        if following.claimant == name:
            return number
        line.enter(ticket("b"), now=0.0)
    raise AssertionError(f"{name} has no turn")


def test_turns_that_nobody_else_wanted_are_not_held_against_a_claimant() -> None:
    """It had a thousand while the other one was here and asked for nothing."""
    line = Line(99)
    line.arrive(ticket("b"))
    for _ in range(8):
        line.enter(ticket(), now=0.0)
    for _ in range(1000):
        following = line.next()
        assert following is not None
        line.depart(following, served=True)
        line.enter(ticket(), now=0.0)
    assert turns_until(line, "a") < 9


def test_requests_that_were_given_up_take_no_turns() -> None:
    """A claimant whose requests ran out of time is not put behind for that."""
    line = Line(99)
    line.arrive(ticket())
    for _ in range(1000):
        given_up = ticket()
        line.enter(given_up, now=0.0)
        assert line.leave(given_up)
    line.enter(ticket(), now=0.0)
    assert turns_until(line, "a") < 9


def test_a_priority_below_0_yields_to_all_claimants() -> None:
    """Nobody is hurt by a claimant that says it can wait."""
    line = Line(9)
    idle, own, other = ticket(priority=-3), ticket(priority=-1), ticket("b")
    for one in (idle, own, other):
        line.enter(one, now=0.0)
    line.fairness.add("b", 1e6, now=0.0)
    assert drain(line) == [other, own, idle]


def test_what_was_served_long_ago_counts_less() -> None:
    """Half, after a half-life."""
    fairness = Fairness()
    fairness.add("a", 1000, now=0.0)
    fairness.add("b", 600, now=HALF_LIFE_SECONDS)
    assert fairness.served("a", HALF_LIFE_SECONDS) == pytest.approx(500)
    assert fairness.weighed("a") < fairness.weighed("b")


def test_a_clock_may_begin_anywhere_and_jump() -> None:
    """Real clocks count from the machine's start, and machines sleep."""
    for start in (0.0, 1e6, 1e12):
        fairness = Fairness()
        fairness.add("a", 1000, now=start)
        assert fairness.served("a", start) == 1000
        assert fairness.served("a", start + HALF_LIFE_SECONDS) == pytest.approx(500)
        assert fairness.served("a", start + 1e9) == 0
        fairness.add("b", 10, now=start + 1e9)
        assert fairness.served("b", start + 1e9) == 10


def test_the_counters_stay_small_and_few() -> None:
    """Over days, and however many dialers there are."""
    fairness = Fairness()
    for second in range(0, 400_000, 500):
        fairness.add("steady", 10, now=float(second))
    assert fairness.served("steady", 399_500.0) == pytest.approx(10, rel=0.02)
    for number in range(3 * MAX_CLAIMANTS):
        fairness.add(f"{number}", 5, now=400_000.0)
    fairness.add("greedy", 500, now=400_000.0)
    for number in range(MAX_CLAIMANTS):
        fairness.add(f"more {number}", 5, now=400_000.0)
    assert len(fairness) == MAX_CLAIMANTS
    assert fairness.served("greedy", 400_000.0) == pytest.approx(500)


def test_a_dialer_with_fewer_requests_pushes_out_the_greediest_ones_last() -> None:
    """The queue is shared even if one dialer filled it first."""
    line, tickets = full("a", "a", "a", "b")
    newcomer = ticket("c")
    assert line.enter(newcomer, now=0.0) is tickets[2]
    assert len(line) == 4
    assert newcomer in drain(line)


def test_nobody_is_pushed_out_for_one_who_holds_as_much() -> None:
    """A change that is not fairer is refused: it would go back and forth."""
    line, _ = full("a", "a", "b")
    with pytest.raises(NoRoom, match="3 requests are queued"):
        line.enter(ticket("b"), now=0.0)
    with pytest.raises(NoRoom):
        line.enter(ticket("a"), now=0.0)


def test_nobody_is_pushed_out_for_a_lower_priority() -> None:
    """The least urgent of the greediest goes, but never for one that said it can wait."""
    line, tickets = full("a", "a", "a")
    with pytest.raises(NoRoom):
        line.enter(ticket("b", priority=-1), now=0.0)
    urgent = Line(3)
    mixed = [ticket(priority=3), ticket(priority=1), ticket(priority=2)]
    for one in mixed:
        urgent.enter(one, now=0.0)
    assert urgent.enter(ticket("b"), now=0.0) is mixed[1]
    assert tickets[0] in drain(line)


def test_a_queue_of_no_length_refuses_everybody() -> None:
    """There is nobody to push out."""
    with pytest.raises(NoRoom, match="0 requests"):
        Line(0).enter(ticket(), now=0.0)


@given(st.data())
def test_the_order_is_never_unfair_and_the_sums_are_right(data: st.DataObject) -> None:
    """Whatever comes and goes, the next is the most urgent of its dialer, as was foretold."""
    line = Line(data.draw(st.integers(0, 8)))
    waiting: list[Ticket] = []
    now = 0.0
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.floats(0, 30))
        action = data.draw(st.sampled_from(["enter", "enter", "next", "leave", "serve"]))
        if action == "enter":
            one = ticket(
                data.draw(st.sampled_from("abc")),
                priority=data.draw(st.integers(-1, 1)),
                tokens=data.draw(st.integers(1, 500)),
            )
            assert 0 <= line.ahead(one, now=now) <= len(waiting)
            try:
                pushed = line.enter(one, now=0.0)
            except NoRoom:
                assert len(waiting) == line.limit
                continue
            waiting.append(one)
            if pushed is not None:
                waiting.remove(pushed)
                assert min(pushed.priority, 0) <= min(one.priority, 0)
        elif action == "next":
            before = [one for one in waiting if not line.ahead(one, now=now)]
            following = line.next()
            assert before == ([] if following is None else [following])
            assert (following is None) == (not waiting)
            if following is not None:
                least = max(min(one.priority, 0) for one in waiting)
                rivals = [one for one in waiting if min(one.priority, 0) == least]
                assert following in rivals
                own = [one for one in rivals if one.claimant == following.claimant]
                assert following.priority == max(one.priority for one in own)
                waiting.remove(following)
        elif action == "leave" and waiting:
            one = data.draw(st.sampled_from(waiting))
            assert line.leave(one)
            assert not line.leave(one)
            waiting.remove(one)
        elif action == "serve":
            line.fairness.add(data.draw(st.sampled_from("abc")), 100, now)
        assert len(line) == len(waiting)
        assert line.prompt_tokens == sum(one.prompt_tokens for one in waiting)


def test_those_ahead_are_counted_as_they_will_go() -> None:
    """Another dialer's first goes before the second of one."""
    line, tickets = full("a", "a", "a", "b", limit=9)
    assert [line.ahead(one, now=0.0) for one in tickets] == [0, 2, 3, 1]
    assert line.ahead(ticket("c"), now=0.0) == 2
    assert line.ahead(ticket("c", priority=1), now=0.0) == 2
    # It takes the first of its dialer's places.
    assert line.ahead(ticket("a", priority=1), now=0.0) == 0
    assert line.ahead(ticket("c", priority=-1), now=0.0) == 4
    line.fairness.add("c", 1e6, now=0.0)
    assert line.ahead(ticket("c"), now=0.0) == 4


async def hold(slots: Slots, one: Ticket, seconds: float, told: list[object]) -> None:
    """Take a slot for a while; *told* gets what is said meanwhile."""
    await slots.acquire(
        one, lambda ahead, wait: told.append((ahead, wait)), limit=math.inf, own_seconds=0.0
    )
    told.append(trio.current_time())
    try:
        await trio.sleep(seconds)
    finally:
        slots.release(one, output_tokens=50)


async def test_who_waits_is_told_how_many_are_ahead_and_how_long(autojump_clock: MockClock) -> None:
    """At once, and every five seconds."""
    slots = Slots(1, 9)
    told: list[object] = []
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, ticket(), 8.0, [])
        await trio.sleep(9)
        nursery.start_soon(hold, slots, ticket(), 8.0, [])
        await trio.lowlevel.checkpoint()
        nursery.start_soon(hold, slots, ticket(), 8.0, [])
        await trio.sleep(0.001)
        await hold(slots, ticket(), 8.0, told)
    waits = [one for one in told if isinstance(one, tuple)]
    assert waits[0] == (1, pytest.approx(16.0))
    assert waits[-1] == (0, pytest.approx(8.0))
    assert len(waits) == 4
    assert told[-1] == pytest.approx(begun + 25.0, abs=0.01)


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(autojump_clock: MockClock) -> None:
    """With the time after which it could be; one that can be met waits."""
    slots = Slots(2, 9)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(hold, slots, ticket(), 10.0, [])
        await trio.sleep(11)
        for _ in range(2):
            nursery.start_soon(hold, slots, ticket(), 10.0, [])
        await trio.sleep(0.1)
        began = trio.current_time()
        with pytest.raises(NoRoom, match=r"no answer within 6\.0 s") as caught:
            await slots.acquire(ticket(), lambda a, s: None, limit=6.0, own_seconds=2.0)
        assert trio.current_time() == began
        assert caught.value.retry_after == pytest.approx(1.0)
        assert slots.queued == 0
        hopeful = ticket()
        await slots.acquire(hopeful, lambda a, s: None, limit=7.5, own_seconds=2.0)
        slots.release(hopeful, output_tokens=1)


async def test_a_full_queue_says_when_there_is_room(autojump_clock: MockClock) -> None:
    """By how long a request usually holds its slot."""
    slots = Slots(2, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, ticket(), 6.0, [])
        await trio.sleep(7)
        for _ in range(2):
            nursery.start_soon(hold, slots, ticket(), 1.0, [])
        await trio.sleep(0.1)
        with pytest.raises(NoRoom, match="all 2 slots are busy") as caught:
            await slots.acquire(ticket(), lambda a, s: None, limit=math.inf, own_seconds=0.0)
    assert caught.value.retry_after == pytest.approx(3.0)


async def test_who_is_pushed_out_is_told_so(autojump_clock: MockClock) -> None:
    """And when to ask again; its place goes to the other one."""
    slots = Slots(1, 2)
    outcomes: dict[str, object] = {}

    async def ask(name: str, dialer: str) -> None:
        try:
            await hold(slots, ticket(dialer), 1.0, [])
            outcomes[name] = "served"
        except NoRoom as error:
            outcomes[name] = error.retry_after

    async with trio.open_nursery() as nursery:
        for name, dialer in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b", "b")):
            nursery.start_soon(ask, name, dialer)
            await trio.sleep(0.01)
    assert outcomes == {"a1": "served", "a2": "served", "a3": 1.0, "b": "served"}
    assert (slots.busy, slots.queued) == (0, 0)


async def test_a_burst_of_one_dialer_does_not_keep_another_waiting(
    autojump_clock: MockClock,
) -> None:
    """Its second request waits behind those of the other, which has far fewer here."""
    slots = Slots(1, 9)
    order: list[str] = []

    async def ask(name: str, dialer: str) -> None:
        one = ticket(dialer)
        await slots.acquire(one, lambda a, s: None, limit=math.inf, own_seconds=0.0)
        order.append(name)
        await trio.sleep(1)
        slots.release(one, output_tokens=10)

    async with trio.open_nursery() as nursery:
        for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
            nursery.start_soon(ask, name, name[0])
            await trio.sleep(0.01)
    assert order == ["a1", "b1", "b2", "a2", "a3", "a4"]


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=60), st.integers(0, 3))
def test_no_priority_of_another_claimant_costs_more_than_a_turn(
    priorities: list[int], honest: int
) -> None:
    """Another's request waits for one of the greedy one's, and one more for each it has had."""
    line = Line(16)
    for priority in priorities:
        with suppress(NoRoom):
            line.enter(ticket("greedy", priority=priority), now=0.0)
    for turn in range(honest):
        mine = ticket("honest")
        line.enter(mine, now=0.0)
        waited = 0
        while (following := line.next()) is not mine:
            assert following is not None
            line.charge(following, 100, now=0.0)
            waited += 1
        line.charge(mine, 100, now=0.0)
        assert waited <= turn + 1


async def test_a_dialer_that_calls_all_of_its_requests_urgent_holds_nobody_up(
    autojump_clock: MockClock,
) -> None:
    """302 of 100,000 tokens at priority 100: another dialer waits for the one that runs."""
    slots = Slots(1, 16)
    told: list[object] = []
    waits: list[float] = []

    async def greedy() -> None:
        one = ticket("greedy", priority=100)
        one.output_tokens = 100_000
        with suppress(NoRoom):
            await hold(slots, one, 0.1, told)

    async with trio.open_nursery() as nursery:
        for _ in range(302):
            nursery.start_soon(greedy)
        await trio.sleep(0.01)
        for _ in range(10):
            began = trio.current_time()
            one = ticket("honest")
            await slots.acquire(one, lambda ahead, wait: None, limit=math.inf, own_seconds=0.0)
            waits.append(trio.current_time() - began)
            await trio.sleep(0.1)
            slots.release(one, output_tokens=50)
        nursery.cancel_scope.cancel()
    assert max(waits) <= 0.2


async def test_who_is_cancelled_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """In the queue, or in the moment of its turn."""
    slots = Slots(1, 9)
    running = ticket()
    await slots.acquire(running, lambda a, s: None, limit=math.inf, own_seconds=0.0)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hold, slots, ticket(), 1.0, [])
        await trio.sleep(0.1)
        slots.release(running, output_tokens=0)
        nursery.cancel_scope.cancel()
    assert (slots.busy, slots.queued, slots.line.prompt_tokens) == (0, 0, 0)


async def test_busy_slots_are_summed_over_time(autojump_clock: MockClock) -> None:
    """Two for a second and one for another are three."""
    slots = Slots(2, 9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, ticket(), 1.0, [])
        nursery.start_soon(hold, slots, ticket(), 2.0, [])
    assert slots.busy_seconds(trio.current_time()) == pytest.approx(3.0)
    await trio.sleep(5)
    assert slots.busy_seconds(trio.current_time()) == pytest.approx(3.0)


def test_a_refusal_is_quick_however_many_wait() -> None:
    """Well under a millisecond with a thousand waiting of a thousand dialers."""
    line, _ = full(*(f"{number}" for number in range(1000)))
    costs = []
    for _ in range(20):
        began = time.thread_time()
        with pytest.raises(NoRoom):
            line.ahead(ticket("new"), now=0.0)
            line.enter(ticket("new"), now=0.0)
        costs.append(time.thread_time() - began)
    # Ten times what it takes here: a busy machine must not fail the test.
    assert min(costs) < 5e-3


# ---- what is charged ----


async def test_what_was_not_made_is_given_back_as_it_was_charged(autojump_clock: MockClock) -> None:
    """Two half-lives later a token weighs four times as much; the rest must not pay for that."""
    slots = Slots(1, 9)
    began = trio.current_time()
    slots.line.fairness.add("a", 1000, began)
    one = Ticket(claimant="a", prompt_tokens=100, output_tokens=400)
    assert slots.admit(one, limit=math.inf, own_seconds=0.0, now=began)
    await trio.sleep(2 * HALF_LIFE_SECONDS)
    slots.release(one, output_tokens=10)
    served = slots.line.fairness.served("a", trio.current_time())
    assert served == pytest.approx((1000 + 100 + 10) / 4)


async def test_who_gets_a_long_answer_pays_while_it_is_made(autojump_clock: MockClock) -> None:
    """Not at its end: until then its next requests would go before everybody's."""
    slots = Slots(2, 9)
    made = 0
    endless = Ticket(claimant="a", output_tokens=10, made=lambda: made)
    short = Ticket(claimant="b", output_tokens=1000)
    now = trio.current_time()
    for one in (endless, short):
        assert slots.admit(one, limit=math.inf, own_seconds=0.0, now=now)
    made = 50_000
    for one in (greedy := Ticket(claimant="a"), modest := Ticket(claimant="b")):
        assert not slots.admit(one, limit=math.inf, own_seconds=0.0, now=now)
    slots.release(short, output_tokens=1000)
    assert (modest.turn.is_set(), greedy.turn.is_set()) == (True, False)
    made = 60_000
    slots.release(endless, output_tokens=made)
    assert slots.line.fairness.served("a", now) == pytest.approx(made)


async def test_a_long_answer_is_charged_as_it_is_made_with_nobody_waiting(
    autojump_clock: MockClock,
) -> None:
    """In one lump at its end it would weigh as if all of it had been made just then."""
    slots, exact = Slots(3, 9), Slots(1, 1).line.fairness
    made = 0
    began = trio.current_time()
    endless = Ticket(claimant="a", output_tokens=1, made=lambda: made)
    assert slots.admit(endless, limit=math.inf, own_seconds=0.0, now=began)
    for _ in range(360):
        await trio.sleep(10)
        now = trio.current_time()
        made += 200
        exact.add("a", 200, now)
        visitor = Ticket(claimant="b", output_tokens=1)
        assert slots.admit(visitor, limit=math.inf, own_seconds=0.0, now=now)
        slots.release(visitor, output_tokens=1)
    slots.release(endless, output_tokens=made)
    assert slots.line.fairness.served("a", now) == pytest.approx(exact.served("a", now), rel=0.05)


@pytest.mark.parametrize(("own_seconds", "is_taken"), [(19.9, True), (20.1, False)])
async def test_a_free_slot_is_not_given_to_a_prompt_that_is_clearly_too_long(
    own_seconds: float, is_taken: bool
) -> None:
    """Up to twice as long as there is time it may be cached."""
    slots = Slots(1, 9)
    if is_taken:
        assert slots.admit(ticket(), limit=10.0, own_seconds=own_seconds, now=0.0)
    else:
        with pytest.raises(NoRoom, match=r"takes 20\.1 s: no answer within 10\.0 s"):
            slots.admit(ticket(), limit=10.0, own_seconds=own_seconds, now=0.0)
    assert slots.busy == is_taken


async def test_an_answer_without_tokens_says_how_long_a_slot_is_held(
    autojump_clock: MockClock,
) -> None:
    """An embedding has none; one that was cancelled before its first word says nothing."""
    slots = Slots(1, 9)
    for finished, expected in ((False, None), (True, 60.0)):
        one = ticket()
        slots.admit(one, limit=math.inf, own_seconds=0.0, now=trio.current_time())
        await trio.sleep(60.0)
        slots.release(one, output_tokens=0, finished=finished)
        assert slots.usual_seconds == expected
