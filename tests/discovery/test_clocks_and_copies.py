"""Clocks that were set, copies of an identity, and many identities of one host, at a bootstrap."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import attrs
import pytest
import trio
from answers import text_of
from hypothesis import given
from hypothesis import strategies as st
from made_up_peers import signed
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.bootstrap import open_bootstrap
from punch.capability import PeerId
from punch.dialer import open_router
from punch.discovery import join_namespace
from punch.exceptions import BootstrapFull
from punch.listener import open_listener
from punch.network import parse_address
from punch.peers import Twins
from punch.testing import MemoryNetwork, Swarm
from punch.testing._swarm import NAMESPACE
from punch.wire import RegistrationLimits, Registrations, decode_registration

HOUR = 3_600_000


@pytest.fixture
async def network(autojump_clock: MockClock) -> AsyncIterator[MemoryNetwork]:
    """A network with nobody on it."""
    async with trio.open_nursery() as nursery:
        yield MemoryNetwork(nursery)
        nursery.cancel_scope.cancel()


def mock() -> MockBackend:
    return MockBackend(MockScript())


@pytest.mark.parametrize("shift", [-HOUR, HOUR, -20 * 365 * 24 * HOUR, 0])
async def test_a_listener_restarted_with_another_clock_is_seen_at_once(
    autojump_clock: MockClock, swarm: Swarm, shift: int
) -> None:
    """By a dialer that knew it, and by one that comes later: no clock is believed."""
    swarm._incarnation = 1_000_000_000_000
    await swarm.listener("a", mock())
    async with swarm.router() as router:
        assert text_of(await router.ask("hello"))
        swarm.kill("a")
        await trio.sleep(1.0)
        swarm._incarnation += shift
        began = trio.current_time()
        await swarm.listener("a", mock())
        while not router.peers:
            await trio.sleep(0.05)
        assert trio.current_time() - began < 2.0
        assert text_of(await router.ask("hello"))
    async with swarm.router("another") as router:
        assert text_of(await router.ask("hello"))


async def test_a_clock_years_ahead_and_right_again_hides_nobody(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Three starts of one listener: right, years ahead, right."""
    async with swarm.router(peers=0) as router:
        for incarnation in (1_000_000, 1_000_000 + 50 * 365 * 24 * HOUR, 2_000_000):
            swarm._incarnation = incarnation
            await swarm.listener("a", mock())
            with trio.fail_after(3.0):
                while not router.peers:
                    await trio.sleep(0.05)
            assert text_of(await router.ask("hello"))
            swarm.kill("a")
            await trio.sleep(1.0)


def test_a_replay_on_the_same_stream_changes_nothing() -> None:
    """Only a new stream, on which the peer has proved who it is, may say something older."""
    kept = Registrations()
    new, old = (signed("a", ["/ip4/10.0.0.1/tcp/1"], incarnation=n) for n in (9, 3))
    kept.join(new, decode_registration(new.registration), now=0.0, is_anew=True)
    assert not kept.join(old, decode_registration(old.registration), now=1.0)
    assert kept.shown(NAMESPACE, minor=1) == (new,)
    assert kept.join(old, decode_registration(old.registration), now=1.0, is_anew=True)
    assert kept.shown(NAMESPACE, minor=1) == (old,)


async def test_both_listeners_with_a_copied_identity_are_told(
    autojump_clock: MockClock, network: MemoryNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    """And the bootstrap says so; with the remedy."""
    caplog.set_level(logging.INFO)
    node = network.node("bootstrap")
    async with open_bootstrap(node):
        place = parse_address(node.addresses[0])
        nodes = [network.node("twin"), network.node("twin")]
        async with (
            open_listener(
                mock(),
                node=nodes[0],
                bootstrap=place,
                namespace="n",
                incarnation=5,
                calibrate=False,
            ) as one,
            open_listener(
                mock(),
                node=nodes[1],
                bootstrap=place,
                namespace="n",
                incarnation=7,
                calibrate=False,
            ) as two,
            open_router(node=network.node("dialer"), bootstrap=place, namespace="n") as router,
        ):
            await trio.sleep(30.0)
            (warning,) = router.warnings
            assert warning.startswith("twin: ")
            for listener in (one, two):
                (warning,) = listener.directory.warnings
                assert "same identity" in warning
                assert "--identity" in warning
    said = [record for record in caplog.records if "same identity" in str(record.msg)]
    assert len({record.name for record in said}) == 2


async def test_a_listener_that_starts_anew_again_and_again_is_no_twin(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Each start has another incarnation, and none comes back."""
    for _ in range(5):
        listener = await swarm.listener("a", mock())
        await trio.sleep(1.0)
        assert listener.directory.warnings == ()
        swarm.kill("a")


@given(st.lists(st.integers(1, 3), max_size=12))
def test_twins_are_those_that_come_back(incarnations: list[int]) -> None:
    """One that was followed by another and comes again is another process."""
    twins = Twins()
    told = [twins.came(PeerId("a"), each, float(n)) for n, each in enumerate(incarnations)]
    turns = [n for n, each in enumerate(incarnations) if n == 0 or each != incarnations[n - 1]]
    runs = [incarnations[n] for n in turns]
    back = next((n for n in range(2, len(runs)) if runs[n] == runs[n - 2]), None)
    assert any(told) == (back is not None)


async def test_one_host_has_a_bounded_number_of_identities(
    autojump_clock: MockClock, network: MemoryNetwork
) -> None:
    """The rest of the namespace has its room, and the reason is told with the remedy."""
    place = network.node("bootstrap")
    async with open_bootstrap(place, limits=RegistrationLimits(per_host=3)) as server:
        async with trio.open_nursery() as nursery:

            async def member(name: str, ip: str, told: list[str]) -> None:
                node = network.node(name)
                node.ip = ip
                async with join_namespace(
                    node,
                    parse_address(place.addresses[0]),
                    namespace="n",
                    roles={"listener"},
                    incarnation=1,
                ) as directory:
                    await trio.sleep(1.0)
                    told.append(str(directory.trouble))
                    await trio.sleep_forever()

            crowd: list[str] = []
            for number in range(7):
                nursery.start_soon(member, f"m{number}", f"2001:db8::{number + 1}", crowd)
            await trio.sleep(2.0)
            other: list[str] = []
            nursery.start_soon(member, "other", "2001:db8:0:1::1", other)
            await trio.sleep(2.0)
            assert server.statistics().registrations == 4
            assert sum("has 3 peers" in text and "--per-host" in text for text in crowd) >= 3
            assert other == ["None"]
            nursery.cancel_scope.cancel()


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc"), st.booleans()), max_size=40))
def test_hosts_are_counted_as_they_come_and_go(steps: list[tuple[int, str, bool]]) -> None:
    """However peers join, move and leave, no host has more than its share and none is kept out."""
    kept = Registrations(RegistrationLimits(per_host=3))
    there: dict[str, str] = {}
    for number, host, leaves in steps:
        name = f"p{number}"
        if leaves:
            kept.leave(NAMESPACE, PeerId(name))
            there.pop(name, None)
            continue
        join = signed(name, [], incarnation=1)
        registration = decode_registration(join.registration)
        full = name not in there and list(there.values()).count(host) >= 3
        if full:
            with pytest.raises(BootstrapFull):
                kept.join(join, registration, now=0.0, host=host, is_anew=True)
            continue
        kept.join(join, registration, now=0.0, host=host, is_anew=True)
        there[name] = host
        assert len(kept) == len(there)
    assert attrs.asdict(RegistrationLimits())["per_host"] == 256
