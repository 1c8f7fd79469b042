"""Workers in a namespace: found by their role, alone or beside a listener of the same process."""

from __future__ import annotations

import json
from collections.abc import Collection

import pytest
import trio
from closed_home import Home
from cluster.lending import GIB, FakeLender, FakeTunnels
from made_up_members import FakeMembership
from trio.testing import MockClock

from punch import open_router
from punch.access import Membership
from punch.backends import MockBackend, MockScript
from punch.bootstrap import open_bootstrap
from punch.capability import PeerId
from punch.cli.commands._peers import PeersSettings, _show, notes
from punch.cluster import Borrower, open_worker
from punch.discovery import join_namespace
from punch.events import Bus, Event, MemoryLent, MemoryReturned
from punch.exceptions import ConfigurationError, PeerRefused
from punch.listener import open_listener
from punch.network import parse_address
from punch.testing import MemoryNetwork

LIMIT = 600.0


async def found_by(
    network: MemoryNetwork,
    name: str,
    bootstrap: str,
    *,
    membership: Membership | None = None,
    roles: Collection[str] = ("dialer",),
) -> dict[PeerId, frozenset[str]]:
    """The workers that a peer finds, with their roles."""
    async with join_namespace(
        network.node(name),
        parse_address(bootstrap),
        namespace="home",
        roles=roles,
        incarnation=1,
        membership=membership,
    ) as directory:
        await directory.joined.wait()
        await trio.sleep(5)
        return {peer_id: member.roles for peer_id, member in directory.workers.items()}


async def test_a_worker_is_found_by_its_role_and_lends(autojump_clock: MockClock) -> None:
    """It is nobody's to ask for an answer, and gone when it ends."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery, delay=0.001)
            meeting, tunnels, lender = network.node("m"), FakeTunnels(), FakeLender()
            place = meeting.addresses[0]
            bus, told = Bus(), list[Event]()
            async with open_bootstrap(meeting):
                async with open_worker(
                    lender,
                    far_ends=tunnels,
                    node=network.node("worker"),
                    bootstrap=place,
                    namespace="home",
                    lend_to=["b1"],
                    events=bus,
                ) as worker:
                    await worker.wait_until_joined()
                    assert await found_by(network, "d", place) == {"worker": {"worker"}}
                    # A listener is told of nobody: it dials nobody.
                    assert await found_by(network, "l", place, roles=("listener",)) == {}
                    assert worker.statistics().taken == 0
                    borrower = Borrower(network.node("b1"), tunnels, namespace="home")
                    with bus.account(MemoryLent, MemoryReturned, note=told.append):
                        async with borrower.take(worker.peer_id, worker.addresses) as lease:
                            assert worker.statistics().borrower == "b1"
                            assert len(told) == 1
                    lent, returned = told
                    assert isinstance(lent, MemoryLent)
                    assert isinstance(returned, MemoryReturned)
                    assert (lent.lease, lent.borrower) == (lease.id, "b1")
                    assert (lent.devices, lent.bytes) == (("CPU", "CUDA0"), 12 * GIB)
                    assert (returned.lease, returned.borrower) == (lease.id, "b1")
                    assert returned.why == "end"
                    found = worker.statistics()
                    assert (found.taken, found.ended, found.borrower) == (1, 1, None)
                    assert (await worker.survey()).memory == 12 * GIB
                assert await found_by(network, "d", place) == {}
            nursery.cancel_scope.cancel()


async def test_a_worker_that_ends_ends_its_lease_first(autojump_clock: MockClock) -> None:
    """With its server and its tunnel, before the context is left."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery, delay=0.001)
            meeting, tunnels, lender = network.node("m"), FakeTunnels(), FakeLender()
            borrower = Borrower(network.node("b1"), tunnels, namespace="home")
            lost: list[str | None] = []

            async def borrow(peer_id: PeerId, addresses: tuple[str, ...]) -> None:
                async with borrower.take(peer_id, addresses) as lease:
                    await lease.lost.wait()
                    lost.append(lease.why)

            async with open_bootstrap(meeting):
                async with open_worker(
                    lender,
                    far_ends=tunnels,
                    node=network.node("worker"),
                    bootstrap=meeting.addresses[0],
                    namespace="home",
                    lend_to=["b1"],
                ) as worker:
                    nursery.start_soon(borrow, worker.peer_id, worker.addresses)
                    await trio.sleep(10)
                    assert lender.running
                assert (lender.running, tunnels.open) == ([], {})
                await trio.sleep(1)
                assert lost == ["the worker has ended the lease: the worker ends"]
            nursery.cancel_scope.cancel()


async def test_a_listener_lends_beside_its_answers(autojump_clock: MockClock) -> None:
    """One identity with both roles, for as long as it lends."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery, delay=0.001)
            meeting, tunnels = network.node("m"), FakeTunnels()
            place = meeting.addresses[0]
            async with (
                open_bootstrap(meeting),
                open_listener(
                    MockBackend(MockScript()),
                    node=network.node("both"),
                    bootstrap=place,
                    namespace="home",
                    calibrate=False,
                ) as listener,
            ):
                await listener.wait_until_joined()
                async with open_worker(
                    FakeLender(), far_ends=tunnels, beside=listener, lend_to=["b1"]
                ) as worker:
                    assert worker.peer_id == listener.peer_id
                    found = await found_by(network, "d", place)
                    assert found == {"both": {"listener", "worker"}}
                    borrower = Borrower(network.node("b1"), tunnels, namespace="home")
                    async with borrower.take(listener.peer_id, listener.addresses):
                        pass
                assert await found_by(network, "d", place) == {}
                # Whoever comes late hears that it lends no more.
                with pytest.raises(PeerRefused) as raised:
                    await borrower.survey(listener.peer_id, listener.addresses)
                assert raised.value.rule == "closing"
            nursery.cancel_scope.cancel()


async def test_workers_are_shown_among_the_peers(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the table a line for each, and an object for one that is no listener."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery, delay=0.001)
            meeting, node = network.node("m"), network.node("worker")
            async with (
                open_bootstrap(meeting),
                open_worker(
                    FakeLender(),
                    far_ends=FakeTunnels(),
                    node=node,
                    bootstrap=meeting.addresses[0],
                    namespace="home",
                    lend_to=["b1"],
                ),
                open_router(
                    node=network.node("d"), bootstrap=meeting.addresses[0], namespace="home"
                ) as router,
            ):
                await trio.sleep(5)
                line = f"worker lends memory: at {node.addresses[0]}"
                assert notes(router) == [line]
                _show(router, PeersSettings(), redraw=False)
                assert line in capsys.readouterr().out.splitlines()
                _show(router, PeersSettings(json=True), redraw=False)
                (said,) = map(json.loads, capsys.readouterr().out.splitlines())
                assert (said["peer_id"], said["lends"], said["models"]) == ("worker", True, [])
            nursery.cancel_scope.cancel()


async def test_nobody_lends_to_all_who_know_a_name(autojump_clock: MockClock) -> None:
    """In an open namespace a worker without names does not start; the error says what helps."""
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery)
        with pytest.raises(ConfigurationError, match="--lend-to PEER_ID"):
            async with open_worker(
                FakeLender(),
                far_ends=FakeTunnels(),
                node=network.node("worker"),
                bootstrap="/ip4/10.0.0.9/tcp/1",
            ):
                pass
        nursery.cancel_scope.cancel()


def may(home: Home, name: str, *scopes: str) -> FakeMembership:
    """The membership of a machine with these scopes."""
    home.members[name] = home.closed.machine(name, by=home.desk, scopes=scopes)
    membership = home.memberships[name] = home.members[name].membership()
    return membership


async def test_members_find_a_worker_without_a_bootstrap(autojump_clock: MockClock) -> None:
    """A worker of a closed namespace is a place where its members meet, as a listener is."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery, delay=0.001)
            home, tunnels, lender = Home(network), FakeTunnels(), FakeLender()
            node = network.node("worker")
            async with open_worker(
                lender,
                far_ends=tunnels,
                node=node,
                bootstrap="/ip4/10.9.9.9/tcp/1",
                membership=may(home, "worker", "lend"),
            ) as worker:
                assert worker.namespace == "home"
                theirs = may(home, "b1", "borrow", "dial")
                theirs.extra_places = (f"{node.addresses[0]}/p2p/worker",)
                own = network.node("b1")
                async with join_namespace(
                    own, namespace="home", roles={"dialer"}, incarnation=1, membership=theirs
                ) as directory:
                    with trio.fail_after(60):
                        while not directory.workers:
                            await trio.sleep(0.5)
                    (member,) = directory.workers.values()
                    borrower = Borrower(own, tunnels, namespace="home", membership=theirs)
                    async with borrower.take(member.peer_id, member.addresses) as lease:
                        # As it reaches the worker: by whichever way, its lock learns of it.
                        removal = home.closed.remove(home.members["b1"], by=home.desk)
                        home.memberships["worker"].add_revocations([removal])
                        with trio.fail_after(2.0):
                            await lease.lost.wait()
                    await trio.sleep(1)
                    assert not lender.running
            nursery.cancel_scope.cancel()


async def test_a_member_that_may_not_lend_is_no_worker(autojump_clock: MockClock) -> None:
    """Nobody is told of it, whatever it says of itself."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            network = MemoryNetwork(nursery, delay=0.001)
            home, meeting = Home(network), network.node("m")
            async with open_bootstrap(meeting):
                async with open_worker(
                    FakeLender(),
                    far_ends=FakeTunnels(),
                    node=network.node("worker"),
                    bootstrap=meeting.addresses[0],
                    membership=may(home, "worker", "dial", "listen"),
                ):
                    found = await found_by(
                        network,
                        "b1",
                        meeting.addresses[0],
                        membership=may(home, "b1", "borrow", "dial"),
                    )
                    assert found == {}
            nursery.cancel_scope.cancel()
