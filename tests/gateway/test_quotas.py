"""Who is let in, who waits and who comes again later; all in virtual time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from punch.exceptions import InvalidRequest, ModelForbidden, QuotaExceeded
from punch.gateway import Key, Quotas, QuotaStatistics
from punch.gateway.keys._keys import MAX_KEYS
from punch.gateway.keys._quotas import DEFAULT_TOKENS, Bucket

# A made-up request: the fields of `test_limits_hold_and_everything_is_given_back`, in their order.
Asked = tuple[str, float, float, int, int, float | None]


def key(key_id: str = "ada", **limits: Any) -> Key:
    """A key with these limits."""
    return Key(key_id=key_id, name=key_id, **limits)


async def use(
    quotas: Quotas,
    who: Key | None,
    *,
    tokens: int | None = None,
    seconds: float = 0.0,
    used: int | None = None,
) -> None:
    """One request from its beginning to its end."""
    async with quotas.admit(who, None, tokens=tokens) as grant:
        await trio.sleep(seconds)
        grant.charge(round(grant.expected) if used is None else used)


def test_a_bucket_fills_evenly_and_never_over_its_edge() -> None:
    """A minute's worth, however long nobody took of it."""
    bucket = Bucket(60, now=0.0)
    bucket.consume(60, now=0.0)
    assert [bucket.level(0.0), bucket.level(1.0), bucket.level(500.0)] == [0, 1, 60]


def test_what_is_more_than_a_minutes_worth_waits_for_a_full_bucket() -> None:
    """Else nobody could ever send it."""
    bucket = Bucket(60, now=0.0)
    assert bucket.seconds_until(1000, now=0.0) == 0
    bucket.consume(1000, now=0.0)
    assert bucket.seconds_until(1, now=0.0) == pytest.approx(941)


@given(
    per_minute=st.integers(1, 10**9),
    takes=st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 2e9), st.floats(0, 2e9)), max_size=20),
)
def test_whoever_waits_as_long_as_was_said_gets_in(
    per_minute: int, takes: list[tuple[float, float, float]]
) -> None:
    """To the second, whatever was taken and settled before."""
    now, bucket = 0.0, Bucket(per_minute, now=0.0)
    for pause, expected, used in takes:
        now += pause
        now += bucket.seconds_until(expected, now)
        assert bucket.seconds_until(expected, now) <= 1e-3
        bucket.consume(expected, now)
        bucket.consume(used - expected, now)
        assert bucket.level(now) <= per_minute


async def test_requests_of_a_minute_are_counted_and_come_back_evenly(
    autojump_clock: MockClock,
) -> None:
    """The next one after a minute divided by their number."""
    quotas, ada = Quotas(), key(requests_per_minute=30)
    for _ in range(30):
        await use(quotas, ada)
    with pytest.raises(QuotaExceeded, match="30 requests a minute, and has 0 left") as caught:
        await use(quotas, ada)
    retry_after = caught.value.retry_after
    assert retry_after is not None
    assert retry_after == pytest.approx(2)
    await trio.sleep(retry_after)
    await use(quotas, ada)
    with pytest.raises(QuotaExceeded):
        await use(quotas, ada)
    await use(quotas, key("bob", requests_per_minute=30))


async def test_tokens_are_reserved_by_what_is_predicted_and_settled_by_what_came(
    autojump_clock: MockClock,
) -> None:
    """A burst counts at once; what was not used is given back."""
    quotas, ada = Quotas(), key(tokens_per_minute=1000)
    async with quotas.admit(ada, None, tokens=600) as grant:
        with pytest.raises(QuotaExceeded, match="1000 tokens a minute, and has 400 left") as caught:
            await use(quotas, ada, tokens=600)
        assert caught.value.retry_after == pytest.approx(200 * 60 / 1000)
        grant.charge(50)
        grant.charge(100)
    await use(quotas, ada, tokens=900)
    with pytest.raises(QuotaExceeded):
        await use(quotas, ada, tokens=1)


async def test_an_answer_that_was_longer_than_predicted_leaves_a_debt(
    autojump_clock: MockClock,
) -> None:
    """The next request waits it off."""
    quotas, ada = Quotas(), key(tokens_per_minute=600)
    await use(quotas, ada, tokens=600, used=1200)
    with pytest.raises(QuotaExceeded, match="has 0 left") as caught:
        await use(quotas, ada, tokens=10)
    assert caught.value.retry_after == pytest.approx(61)
    await trio.sleep(61)
    await use(quotas, ada, tokens=10)


async def test_without_a_prediction_it_is_what_the_keys_requests_took(
    autojump_clock: MockClock,
) -> None:
    """Each key has its own habits."""
    quotas, ada = Quotas(), key(tokens_per_minute=10**6)
    for _ in range(30):
        await use(quotas, ada, used=50)
    async with quotas.admit(ada, None) as grant:
        assert grant.expected == pytest.approx(50, abs=1)
    async with quotas.admit(key("bob"), None) as grant:
        assert grant.expected == DEFAULT_TOKENS


async def test_requests_under_way_are_counted_until_they_end(autojump_clock: MockClock) -> None:
    """However they end."""
    quotas, ada = Quotas(), key(concurrency=2)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lambda: use(quotas, ada, seconds=math.inf))
        await wait_all_tasks_blocked()
        with pytest.raises(QuotaExceeded, match="2 requests under way, and may have 2") as caught:
            await use(quotas, ada)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 0
        await use(quotas, key("bob", concurrency=2))
        nursery.cancel_scope.cancel()
    with pytest.raises(RuntimeError):
        async with quotas.admit(ada, None):
            raise RuntimeError("a bug")
    async with quotas.admit(ada, None), quotas.admit(ada, None):
        assert quotas.statistics().running == 2
    assert quotas.statistics().running == 0


async def test_a_request_for_several_answers_is_as_many_requests(autojump_clock: MockClock) -> None:
    """Under way and in a minute; one for more than there may be is refused for good."""
    quotas, ada = Quotas(), key(concurrency=3, requests_per_minute=6)
    with pytest.raises(InvalidRequest, match="4 answers at once, and the API key ada may have 3"):
        async with quotas.admit(ada, None, weight=4):
            pass
    async with quotas.admit(ada, None, weight=2):
        with pytest.raises(QuotaExceeded, match="2 requests under way, and may have 3; this is 2"):
            async with quotas.admit(ada, None, weight=2):
                pass
        async with quotas.admit(ada, None):
            pass
    async with quotas.admit(ada, None, weight=3):
        pass
    with pytest.raises(QuotaExceeded, match="6 requests a minute, and has 0 left") as caught:
        await use(quotas, ada)
    assert caught.value.retry_after == pytest.approx(10)


async def test_a_model_that_the_key_may_not_use_costs_it_nothing(autojump_clock: MockClock) -> None:
    """It is refused before anything is counted."""
    quotas, ada = Quotas(), key(models=("a",), requests_per_minute=1)
    with pytest.raises(ModelForbidden):
        async with quotas.admit(ada, "b"):
            pass
    async with quotas.admit(ada, None) as grant:
        assert grant.model == "a"


async def test_without_keys_there_is_only_the_gateways_own_limit(autojump_clock: MockClock) -> None:
    """Whoever asks."""
    quotas = Quotas(limit=1, queue_limit=0)
    async with quotas.admit(None, "a") as grant:
        assert grant.model == "a"
        with pytest.raises(QuotaExceeded, match="the gateway is full: it works on 1 requests"):
            async with quotas.admit(None, "a"):
                pass
    assert quotas.statistics() == QuotaStatistics(running=0, waiting=0, limit=1, queue_limit=0)


async def test_a_full_gateway_serves_keys_by_tokens_not_by_requests(
    autojump_clock: MockClock,
) -> None:
    """One key sends ten times as much, and both get the same share."""
    quotas, served = Quotas(limit=2, queue_limit=100), {"greedy": 0, "modest": 0}

    async def ask(who: str) -> None:
        async with quotas.admit(key(who), None, tokens=100) as grant:
            await trio.sleep(1)
            grant.charge(100)
            served[who] += 100

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(ask, "greedy")
        await wait_all_tasks_blocked()
        for _ in range(10):
            nursery.start_soon(ask, "modest")
        await trio.sleep(10.5)
        assert served["modest"] == pytest.approx(served["greedy"], abs=200)
        nursery.cancel_scope.cancel()


async def test_long_answers_count_more_than_short_ones(autojump_clock: MockClock) -> None:
    """A key with answers ten times as long has a tenth of the turns."""
    quotas, turns = Quotas(limit=1, queue_limit=100), {"long": 0, "short": 0}

    async def ask(who: str, tokens: int) -> None:
        async with quotas.admit(key(who), None, tokens=tokens) as grant:
            await trio.sleep(tokens / 1000)
            grant.charge(tokens)
            turns[who] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            # In turn: until a key has far more here than the others, requests go by arrival.
            for who, tokens in (("long", 1000), ("short", 100)):
                nursery.start_soon(ask, who, tokens)
                await wait_all_tasks_blocked()
        await trio.sleep(6.5)
        assert turns["short"] >= 5 * turns["long"]
        nursery.cancel_scope.cancel()


async def test_a_full_queue_pushes_out_the_greediest_keys_last_request(
    autojump_clock: MockClock,
) -> None:
    """It is told to come again; and that request cost it nothing."""
    quotas = Quotas(limit=1, queue_limit=2)
    outcomes: list[tuple[str, str]] = []
    greedy = key("greedy", requests_per_minute=3)

    async def ask(who: Key) -> None:
        try:
            await use(quotas, who, seconds=10)
            outcomes.append((who.key_id, "served"))
        except QuotaExceeded as error:
            full = "gateway is full" in str(error) and error.retry_after is not None
            outcomes.append((who.key_id, "full" if full else "quota"))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, greedy)
            await wait_all_tasks_blocked()
        nursery.start_soon(ask, key("modest"))
        await wait_all_tasks_blocked()
        assert outcomes == [("greedy", "full")]
        nursery.start_soon(ask, greedy)
        await wait_all_tasks_blocked()
        assert outcomes[1:] == [("greedy", "full")]
    assert sorted(outcomes[2:]) == [
        ("greedy", "served"),
        ("greedy", "served"),
        ("modest", "served"),
    ]


async def test_nobody_waits_longer_than_he_can(autojump_clock: MockClock) -> None:
    """Refused when his time is over, or at once if that is sure; his place is free again."""
    quotas = Quotas(limit=1, queue_limit=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: use(quotas, None, tokens=10, seconds=20))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(QuotaExceeded) as caught:
            async with quotas.admit(None, None, timeout=3):
                pass
        assert (trio.current_time() - began, caught.value.retry_after) == (3, 1)
        assert quotas.statistics().waiting == 0
    async with quotas.admit(None, None):
        began = trio.current_time()
        with pytest.raises(QuotaExceeded):
            async with quotas.admit(None, None, timeout=3):
                pass
        assert trio.current_time() == began


async def test_who_waits_is_told_how_many_are_before_him(autojump_clock: MockClock) -> None:
    """At first and every five seconds: a client that streams is kept alive with it."""
    quotas = Quotas(limit=1, queue_limit=5)
    told: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: use(quotas, None, seconds=12))
        await wait_all_tasks_blocked()
        async with quotas.admit(None, None, waiting=lambda ahead, _: told.append(ahead)):
            assert told == [0, 0, 0]


async def test_limits_that_change_count_from_the_next_request(autojump_clock: MockClock) -> None:
    """A key is read again from the file; what it has under way stays counted."""
    quotas = Quotas()
    async with quotas.admit(key(), None):
        with pytest.raises(QuotaExceeded):
            await use(quotas, key(concurrency=1))
        await use(quotas, key(concurrency=2, tokens_per_minute=10), tokens=10)
        with pytest.raises(QuotaExceeded):
            await use(quotas, key(concurrency=2, tokens_per_minute=10), tokens=10)
        await use(quotas, key(), tokens=10)


async def test_the_keys_that_are_remembered_are_bounded(autojump_clock: MockClock) -> None:
    """Those that were not here for longest go first, and none that has a request under way."""
    quotas = Quotas()
    async with quotas.admit(key("busy"), None):
        for number in range(MAX_KEYS + 10):
            await use(quotas, key(f"{number}"))
        assert len(quotas._accounts) == MAX_KEYS
        assert "busy" in quotas._accounts


@given(
    limit=st.integers(1, 3),
    queue_limit=st.integers(0, 4),
    requests=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.floats(0, 30),  # when it comes
            st.floats(0, 10),  # how long it takes
            st.integers(0, 300),  # tokens that are predicted
            st.integers(0, 600),  # tokens that it takes
            st.one_of(st.none(), st.floats(0.1, 5)),  # when its caller leaves
        ),
        max_size=25,
    ),
)
@settings(deadline=None, max_examples=60)
def test_limits_hold_and_everything_is_given_back(
    limit: int, queue_limit: int, requests: list[Asked]
) -> None:
    """Whoever comes when, however long it takes, and whether its caller leaves early."""
    keys = {
        "a": key("a", concurrency=2, requests_per_minute=20),
        "b": key("b", tokens_per_minute=500),
        "c": key("c"),
    }
    running = dict.fromkeys(keys, 0)

    async def ask(
        quotas: Quotas,
        who: str,
        at: float,
        seconds: float,
        expected: int,
        used: int,
        leaves_after: float | None,
    ) -> None:
        await trio.sleep(at)
        with trio.move_on_after(math.inf if leaves_after is None else leaves_after):
            try:
                async with quotas.admit(keys[who], None, tokens=expected) as grant:
                    running[who] += 1
                    try:
                        # A place may be somebody's who has not noticed yet.
                        assert sum(running.values()) <= quotas.statistics().running <= limit
                        assert running["a"] <= 2
                        assert quotas.statistics().waiting <= queue_limit
                        await trio.sleep(seconds)
                        grant.charge(used)
                    finally:
                        running[who] -= 1
            except QuotaExceeded as error:
                assert (error.retry_after or 0) >= 0.1  # noqa: PT017 - many are raised

    async def main() -> None:
        quotas = Quotas(limit=limit, queue_limit=queue_limit)
        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(ask, quotas, *request)
        found = quotas.statistics()
        assert (found.running, found.waiting) == (0, 0)
        assert all(account.running == 0 for account in quotas._accounts.values())
        # After the longest debt everybody may ask again.
        await trio.sleep(3600)
        for who in keys.values():
            await use(quotas, who, tokens=1)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
