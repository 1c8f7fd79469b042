"""What a listener of a closed namespace allows single members, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import datetime

import attrs
import pytest
import trio
from answers import text_of
from closed_home import Home
from trio.testing import MockClock

from punch import Router
from punch.admission import Caps
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.dialer import chat_request
from punch.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NoPeerAvailable,
    PunchError,
    UnknownModel,
)
from punch.listener import open_listener
from punch.routing import POLICIES, STANDARD_FILTERS
from punch.testing import MemoryNetwork
from punch.wire import CommandRequest, CommandResponse

LIMIT = 3600

# Who let all of them in: what it says is its own, is.
OWNER = "desk-key"

# A dialer that looks at no cap and no state, as one of an older version.
BLIND = attrs.evolve(
    POLICIES["completion-time"],
    filters=tuple(step for step in STANDARD_FILTERS if step.name not in ("caps", "state")),
)


@pytest.fixture
async def home(autojump_clock: MockClock) -> AsyncIterator[Home]:
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            yield Home(MemoryNetwork(nursery))
            nursery.cancel_scope.cancel()


def clock(hour: int, minute: int = 0) -> Callable[[], float]:
    """A clock on the wall that showed this time when the test began, and goes with trio's."""
    began = trio.current_time()
    at = datetime(2026, 11, 28, hour, minute).timestamp()
    return lambda: at + trio.current_time() - began


def mock(model: str = "mock", **script: float) -> MockBackend:
    return MockBackend(MockScript(model=model, **script))  # type: ignore[arg-type]  # of many types


def question(
    tokens: int | None = 10, *, model: str | None = "mock", priority: int = 0
) -> CommandRequest:
    asked = chat_request("hello", model=model, max_tokens=tokens, timeout=120.0)
    return attrs.evolve(asked, priority=priority)


async def found(router: Router, listeners: int = 1) -> Router:
    await router.wait_for_peers(lambda peers: len(peers) == listeners)
    return router


LIMITS = {
    "tokens": (Caps(max_output=9), question(10)),
    "priority": (Caps(max_priority=3), question(priority=4)),
    "model": (Caps(models=frozenset({"llama*", "other"})), question()),
    "hours": (Caps(hours=(22, 7)), question()),
}


@pytest.mark.parametrize("policy", ["completion-time", BLIND], ids=["seeing", "blind"])
@pytest.mark.parametrize(("caps", "request_"), LIMITS.values(), ids=LIMITS)
async def test_what_exceeds_a_limit_is_answered_by_the_next_peer(
    autojump_clock: MockClock,
    home: Home,
    caps: Caps,
    request_: CommandRequest,
    policy: str,
) -> None:
    """It is that listener's limit: not the caller's fault, and no fault of the listener."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(home.listener("limits", limits={"kid": caps}, wall=clock(12)))
        await enter(home.listener("free", knows=("limits",), backend=mock(decode_rate=20.0)))
        # So that the other one is asked first.
        home.network.move_away(PeerId("free"), 1.0)
        router = await found(await enter(home.router("kid", knows=("limits",), policy=policy)), 2)
        await trio.sleep(10)
        for number in range(3):
            response = await router.ask(attrs.evolve(request_, request_id=f"r{number}"))
            assert response.executor == "free"
        (peer,) = [peer for peer in router.peers if peer.peer_id == "limits"]
        assert not peer.breakers
        other = await found(await enter(home.router("other", knows=("limits",))), 2)
        await trio.sleep(10)
        assert (await other.ask(request_)).executor == "limits"


@pytest.mark.parametrize("policy", ["completion-time", BLIND], ids=["seeing", "blind"])
@pytest.mark.parametrize(
    ("which", "kind", "words"),
    [
        ("tokens", InvalidRequest, "max_tokens is 10; .*at most 9"),
        ("priority", InvalidRequest, "priority is 4; .*at most 3"),
        ("model", UnknownModel, "offers 'mock'"),
        ("hours", NoPeerAvailable, "10 h 0 min|from 22 to 7 o'clock by its own clock, .* it is 12"),
    ],
)
async def test_where_nobody_else_is_there_the_caller_hears_the_limit(
    autojump_clock: MockClock, home: Home, which: str, kind: type, words: str, policy: str
) -> None:
    """What is limited, how far, and when that ends."""
    caps, request = LIMITS[which]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(home.listener("limits", limits={"kid": caps}, wall=clock(12)))
        router = await found(await enter(home.router("kid", knows=("limits",), policy=policy)))
        with pytest.raises(kind, match=words) as caught:
            await router.ask(request)
        assert isinstance(caught.value, PunchError)
        if which == "hours":
            assert caught.value.retry_after == pytest.approx(10 * 3600, abs=60)


# ---- models ----


async def test_a_member_sees_and_gets_the_models_that_it_may_use(
    autojump_clock: MockClock, home: Home
) -> None:
    """In the adverts, in the answer to `capabilities`, by any name and where it names none."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        backends = [mock("large-70b"), mock("Llama3.2-1b"), mock("tiny")]
        caps = Caps(models=frozenset({"llama*-1b", "tiny:latest"}))
        await enter(home.listener("limits", backend=backends, limits={"kid": caps}))
        kid = await found(await enter(home.router("kid", knows=("limits",))))
        other = await found(await enter(home.router("other", knows=("limits",))))
        allowed = ["Llama3.2-1b", "tiny"]
        assert [offer.name for offer in kid.peers[0].capability.models] == allowed
        session = kid._dispatch.pool.session(PeerId("limits"))
        assert session is not None
        told = await session.ask(CommandRequest(request_id="a", command="capabilities")).receive()
        assert isinstance(told, CommandResponse)
        assert told.capability is not None
        assert [offer.name for offer in told.capability.models] == allowed
        response = await kid.ask(question(model=None))
        assert response.provenance is not None
        assert response.provenance.model == "Llama3.2-1b"
        assert text_of(await kid.ask(question(model="tiny")))
        with pytest.raises(UnknownModel) as caught:
            await kid.ask(question(model="large-70b"))
        assert "on offer: Llama3.2-1b, tiny" in str(caught.value)
        assert len(other.peers[0].capability.models) == 3
        assert text_of(await other.ask(question(model="large-70b")))


@pytest.mark.parametrize("by", ["model", "offer", "nothing"])
async def test_a_dialer_that_asks_past_its_advert_gets_no_other_model(
    autojump_clock: MockClock, home: Home, by: str
) -> None:
    """By name, by the id of an offer, and by saying nothing, where all are forbidden."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        caps = Caps(models=frozenset({"tiny"}))
        backends = [mock("large")] if by == "nothing" else [mock("large"), mock("tiny")]
        listener = await enter(home.listener("limits", backend=backends, limits={"kid": caps}))
        own = listener._executor.askers.caps.of(PeerId("kid"), is_own=False)
        assert own.allows("large"), "it has no session yet"
        await found(await enter(home.router("kid", knows=("limits",))))
        request = {
            "model": question(model="large"),
            "offer": attrs.evolve(question(model=None), offer="mock/large"),
            "nothing": question(model=None),
        }[by]
        capped = listener._executor.askers.caps.of(PeerId("kid"), is_own=False)
        with pytest.raises(PunchError) as caught:
            listener._executor.lanes.choose(request, capped)
        told = str(caught.value)
        assert "is not for you on this listener" in told or "on offer: none" in told


async def test_a_dialer_that_names_nothing_gets_the_first_model_that_it_may_use(
    autojump_clock: MockClock, home: Home
) -> None:
    """Past those that come before, in a lane of their own: as one of an older version asks."""
    async with home.listener("a", backend=[mock("large"), mock("tiny")]) as listener:
        caps = Caps(models=frozenset({"tiny"}))
        _, offer = listener._executor.lanes.choose(question(model=None), caps)
        assert offer.name == "tiny"


# ---- hours ----


@pytest.mark.parametrize(
    ("hours", "at", "answers"),
    [
        ((22, 7), (21, 59), False),
        ((22, 7), (22, 0), True),
        ((22, 7), (23, 59), True),
        ((22, 7), (0, 0), True),
        ((22, 7), (6, 59), True),
        ((22, 7), (7, 0), False),
        ((9, 17), (8, 59), False),
        ((9, 17), (9, 0), True),
        ((9, 17), (17, 0), False),
        ((18, 24), (23, 59), True),
        ((18, 24), (0, 0), False),
        ((18, 0), (23, 59), True),
        ((18, 0), (0, 0), False),
        ((0, 6), (0, 0), True),
        ((24, 6), (5, 59), True),
        ((24, 6), (6, 0), False),
    ],
)
def test_the_hours_begin_and_end_on_the_clock_of_the_listener(
    hours: tuple[int, int], at: tuple[int, int], answers: bool
) -> None:
    """The first minute is within, the last hour's end is not; also across midnight."""
    now = datetime(2026, 11, 28, *at)
    assert (Caps(hours=hours).closed_for(now) is None) == answers


@pytest.mark.parametrize("hours", [(0, 0), (7, 7), (24, 0), (0, 24), (-1, 5), (5, 25)])
def test_hours_that_mean_nothing_are_refused(hours: tuple[int, int]) -> None:
    """None at all and all of them are no limit of hours."""
    with pytest.raises(ConfigurationError, match="the cap hours is"):
        Caps(hours=hours)


async def test_what_was_begun_or_waits_when_the_hours_end_is_answered(
    autojump_clock: MockClock, home: Home
) -> None:
    """To its end; only what comes later is refused."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        slow = mock(decode_rate=1.0, slots=1)
        await enter(
            home.listener(
                "a", backend=slow, limits={"kid": Caps(hours=(8, 20))}, wall=clock(19, 59)
            )
        )
        router = await found(await enter(home.router("kid", knows=("a",))))
        await trio.sleep(25)
        ends: list[float] = []

        async def ask(name: str) -> None:
            assert text_of(await router.ask(attrs.evolve(question(30), request_id=name)))
            ends.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "begun")
            await trio.sleep(1)
            nursery.start_soon(ask, "waits")
            await trio.sleep(40)
            # It is past eight in the evening, and the second one has just begun.
            with pytest.raises(NoPeerAvailable, match=r"12 h 0 min|o'clock by its own clock"):
                await router.ask(attrs.evolve(question(1), request_id="late"))
            assert len(ends) == 1
        assert len(ends) == 2


async def test_a_member_is_asked_again_within_seconds_of_its_hours(
    autojump_clock: MockClock, home: Home
) -> None:
    """Nothing has to be restarted, on either side."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(home.listener("a", limits={"kid": Caps(hours=(8, 20))}, wall=clock(7, 58)))
        router = await found(await enter(home.router("kid", knows=("a",))))
        with pytest.raises(NoPeerAvailable):
            await router.ask(question())
        (lane,) = router.peers[0].capability.lanes
        assert lane.state == "off hours"
        assert lane.reason == "answers you from 8 to 20 o'clock by its own clock"
        await trio.sleep(130)
        assert text_of(await router.ask(question()))


# ---- whom a limit means ----

SMALL = Caps(max_output=5)


async def is_limited(router: Router) -> bool:
    """Whether its machine gets five tokens at most."""
    await found(router)
    return router.peers[0].capability.models[0].max_output == 5


async def test_a_limit_means_a_machine_by_its_name_in_the_grant_its_identity_or_its_name_here(
    autojump_clock: MockClock, home: Home
) -> None:
    """And all processes of it; what a machine says of itself counts for nothing."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        membership = home.member("a")
        membership.names[PeerId("renamed-key")] = "uncle"
        limits = {"laptop": SMALL, "tablet-key": SMALL, "uncle": SMALL}
        await enter(home.listener("a", membership=membership, limits=limits))
        for key, called, limited in (
            ("laptop-key", "laptop", True),
            ("laptop-key-2", "laptop", True),
            ("tablet-key", "tablet", True),
            ("renamed-key", "somebody", True),
            ("other-key", "other", False),
            ("nameless-key", "", False),
            ("laptop", "another", True),
        ):
            member = home.member(key, knows=("a",), called=called)
            router = await enter(home.router(key, membership=member))
            assert await is_limited(router) == limited, key
        process = home.member("process-key", knows=("a",), on="laptop-key")
        assert await is_limited(await enter(home.router("process-key", membership=process)))


async def test_what_names_the_identity_goes_before_what_names_the_name(
    autojump_clock: MockClock, home: Home
) -> None:
    """So one of two members of one name can have another limit, in whatever order they are said."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        limits = {"laptop": SMALL, "first-key": Caps(max_output=50)}
        await enter(home.listener("a", limits=limits))
        for key, limited in (("first-key", False), ("second-key", True)):
            member = home.member(key, knows=("a",), called="laptop")
            assert await is_limited(await enter(home.router(key, membership=member))) == limited


async def test_a_removed_member_that_comes_back_under_its_name_is_limited_again(
    autojump_clock: MockClock, home: Home
) -> None:
    """With a new key, or the old one and a new grant."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        at = home.member("a")
        await enter(home.listener("a", membership=at, limits={"laptop": SMALL}))
        first = home.member("first-key", knows=("a",), called="laptop")
        async with home.router("first-key", membership=first) as router:
            assert await is_limited(router)
            at.add_revocations([home.closed.remove(home.members["first-key"], by=home.desk)])
            await trio.sleep(5)
            assert not router.peers
        second = home.member("second-key", knows=("a",), called="laptop")
        assert await is_limited(await enter(home.router("second-key", membership=second)))
        again = home.closed.machine("first-key", by=home.desk, number=2, called="laptop")
        back = again.membership()
        back.extra_places = second.extra_places
        home.network.take_down(PeerId("first-key"))
        assert await is_limited(await enter(home.router("first-key", membership=back)))


async def test_this_machine_is_never_limited_and_another_of_its_owner_if_it_is_named(
    autojump_clock: MockClock, home: Home
) -> None:
    """Neither by a limit that names it, nor by the caps for strangers."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        home.member("desk", called="desk", owner=OWNER)
        here = home.member("a", on="desk")
        limits = {"desk": SMALL, "phone": SMALL}
        listener = await enter(home.listener("a", membership=here, limits=limits, strangers=SMALL))
        for key, called, owner, limited in (
            ("phone-key", "phone", OWNER, True),
            ("tv-key", "tv", OWNER, False),
            ("friend-key", "friend", None, True),
        ):
            member = home.member(key, knows=("a",), called=called, owner=owner)
            router = await enter(home.router(key, membership=member))
            assert await is_limited(router) == limited, key
        process = home.member("b", knows=("a",), on="desk")
        router = await enter(home.router("b", membership=process))
        assert not await is_limited(router)
        assert text_of(await router.ask(question(11)))
        assert listener.statistics().refused == 0


async def test_what_a_limit_leaves_open_is_as_for_strangers(
    autojump_clock: MockClock, home: Home
) -> None:
    """To limit a member further never gives it more, and what is said may be more."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        limits = {"kid": Caps(max_priority=0), "friend": Caps(max_output=500)}
        strangers = Caps(max_output=5, max_priority=7)
        await enter(home.listener("a", limits=limits, strangers=strangers))
        told = {}
        for name in ("kid", "friend", "other"):
            router = await found(await enter(home.router(name, knows=("a",))))
            capability = router.peers[0].capability
            told[name] = capability.models[0].max_output, capability.lanes[0].max_priority
        assert told == {"kid": (5, 0), "friend": (500, 7), "other": (5, 7)}


async def test_an_open_namespace_has_no_members_to_limit(autojump_clock: MockClock) -> None:
    """Identities are free there: a limit would keep nobody from anything."""
    async with trio.open_nursery() as nursery:
        node = MemoryNetwork(nursery).node("a")
        with pytest.raises(ConfigurationError, match="'kid', and the namespace is open"):
            async with open_listener(mock(), node=node, bootstrap=None, limits={"kid": SMALL}):
                pass
        nursery.cancel_scope.cancel()


# ---- priority ----


@pytest.mark.parametrize("limited", [True, False])
async def test_a_member_below_zero_yields_to_all_others(
    autojump_clock: MockClock, home: Home, limited: bool
) -> None:
    """Its plain requests are taken, and served after those of everybody else that wait."""
    limits = {"kid": Caps(max_priority=-10)} if limited else {}
    order = await served(home, limits=limits)
    # In the order of arrival if nothing is said; after all others if it yields.
    assert (order[1:4] == ["other"] * 3) == limited, order


async def test_strangers_below_zero_yield_to_machines_of_the_owner(
    autojump_clock: MockClock, home: Home
) -> None:
    """Which `--stranger-priority -1` says."""
    order = await served(home, strangers=Caps(max_priority=-1), owner=OWNER)
    assert order[1:4] == ["other"] * 3, order


async def test_no_priority_of_a_stranger_goes_before_a_member_of_the_owner(
    autojump_clock: MockClock, home: Home
) -> None:
    """Priorities above zero order the requests of one dialer only, and nobody else's."""
    order = await served(home, priority=100, owner=OWNER)
    assert order[:6].count("other") == 3, order


async def test_the_processes_of_a_machine_take_their_turns_as_one(
    autojump_clock: MockClock, home: Home
) -> None:
    """Or a member would have as many turns as it starts programs."""
    order: list[str] = []
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(home.listener("a", backend=mock(decode_rate=1.0, slots=1)))
        home.member("tablet")
        members = {
            name: home.member(name, knows=("a",), on="tablet") for name in ("p1", "p2", "p3")
        }
        members["other"] = home.member("other", knows=("a",))
        routers = {
            name: await found(await enter(home.router(name, membership=member)))
            for name, member in members.items()
        }

        async def ask(name: str, number: int) -> None:
            await routers[name].ask(attrs.evolve(question(5), request_id=f"{name}-{number}"))
            order.append(name)

        async with trio.open_nursery() as nursery:
            for name in routers:
                for number in range(3):
                    nursery.start_soon(ask, name, number)
                    await trio.sleep(0.1)
    # Nine requests of one machine were there first, and one of them had begun.
    assert order[1:4] == ["other"] * 3, order


async def served(
    home: Home,
    *,
    limits: dict[str, Caps] | None = None,
    strangers: Caps | None = None,
    priority: int = 0,
    owner: str | None = None,
) -> list[str]:
    """Who was answered when: six of a member, and between them three of another."""
    order: list[str] = []
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(
            home.listener(
                "a",
                membership=home.member("a", owner=OWNER),
                backend=mock(decode_rate=1.0, slots=1),
                limits=limits,
                strangers=strangers or Caps(),
            )
        )
        kid = await found(await enter(home.router("kid", knows=("a",))))
        membership = home.member("other", knows=("a",), owner=owner)
        other = await found(await enter(home.router("other", membership=membership)))

        async def ask(router: Router, who: str, name: str, priority: int) -> None:
            await router.ask(attrs.evolve(question(5, priority=priority), request_id=name))
            order.append(who)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, kid, "kid", f"kid-{number}", priority)
                await trio.sleep(0.1)
                if number < 3:
                    nursery.start_soon(ask, other, "other", f"other-{number}", 0)
                    await trio.sleep(0.1)
    return order
