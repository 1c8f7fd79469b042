"""Leaving a namespace: who is told, what ends, and what is left on the disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest
import trio
from closed_home import Home as ClosedHome
from members_on_disk import Household
from trio.testing import MockClock

from punch.access import Refusal
from punch.capability import PeerId
from punch.cli.commands._leave import report
from punch.discovery._meeting import PROTOCOL as MEET
from punch.exceptions import NotPermitted
from punch.membership import (
    _membership,
    create_home,
    homes,
    leave_namespace,
    open_membership,
    read_removals,
)
from punch.membership.leaving import open_telling, tell_leaving
from punch.membership.leaving._telling import MEET_SECONDS, TELL_SECONDS, Told
from punch.network import Stream
from punch.testing import MemoryNetwork


@pytest.fixture
async def closed(autojump_clock: MockClock) -> AsyncIterator[ClosedHome]:
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            yield ClosedHome(MemoryNetwork(nursery))
            nursery.cancel_scope.cancel()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Household]:
    async with trio.open_nursery() as nursery:
        yield Household(MemoryNetwork(nursery), tmp_path)
        nursery.cancel_scope.cancel()


async def leave(closed: ClosedHome, name: str, *others: str) -> tuple[Told, float]:
    """Have a member that runs nothing tell *others* that it leaves; and the seconds it took."""
    membership = closed.member(name, knows=others)
    began = trio.current_time()
    async with open_telling(membership, closed.network.node(name), membership.places()) as telling:
        word = closed.closed.remove(closed.members[name], by=closed.members[name])
        membership.add_revocations([word])
        told = await telling.tell([word])
    return told, trio.current_time() - began


async def test_who_is_reached_is_told_and_tells_the_others(
    autojump_clock: MockClock, closed: ClosedHome
) -> None:
    """All of it at once: nobody lists the one that left, and a dialer hears of it, too."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(closed.listener("a"))
        await enter(closed.listener("b", knows=("a",)))
        router = await enter(closed.router("d", knows=("a",)))
        leaver = await enter(closed.router("e", knows=("a", "b")))
        await router.wait_for_peers(lambda found: len(found) == 2)
        await leaver.wait_for_peers(lambda found: len(found) == 2)
        out = closed.memberships["e"]
        told, seconds = await leave(closed, "e", "a")
        assert told == Told(machines=frozenset({PeerId("a")}), others=frozenset({PeerId("b")}))
        assert seconds < 1
        with trio.fail_after(2):
            while leaver.peers:
                await trio.sleep(0.05)
        for name in ("a", "b", "d"):
            found = closed.memberships[name].lock.judge(PeerId("e"), out.chain(), time.time())
            assert isinstance(found, Refusal)
            assert found.rule == "revoked"
        assert len(router.peers) == 2


async def test_silence_takes_a_bounded_time_and_counts_as_not_told(
    autojump_clock: MockClock, closed: ClosedHome
) -> None:
    """Whether somebody is off, never answers, or falls silent when it is told."""

    async def silent(stream: Stream) -> None:
        while await stream.receive_some():
            pass

    async with closed.listener("a"), closed.listener("late", knows=("a",)):
        await trio.sleep(5)
        closed.network.node("off")
        closed.network.take_down(PeerId("off"))
        closed.network.node("mute").handle(MEET, silent)
        told, seconds = await leave(closed, "e", "a", "off", "mute")
        assert told.machines == {PeerId("a")}
        assert MEET_SECONDS <= seconds <= MEET_SECONDS + 1.5
        closed.member("f", knows=("a", "late"))
        membership = closed.memberships["f"]
        async with open_telling(
            membership, closed.network.node("f"), membership.places()
        ) as telling:
            word = closed.closed.remove(closed.members["f"], by=closed.members["f"])
            membership.add_revocations([word])
            closed.network.stall(PeerId("late"))
            began = trio.current_time()
            told = await telling.tell([word])
            assert trio.current_time() - began <= TELL_SECONDS + 0.1
            assert told.machines == {PeerId("a")}


async def test_a_stranger_at_a_members_address_is_not_told(
    autojump_clock: MockClock, closed: ClosedHome
) -> None:
    """Who lets this machine not in has not heard it, whatever it says afterwards."""
    async with closed.listener("a"):
        await trio.sleep(5)
        other = ClosedHome(closed.network)
        other.closed = type(closed.closed)("home", root="another-root")
        other.desk = other.closed.admin("desk-key")
        async with other.listener("stranger"):
            await trio.sleep(5)
            told, _ = await leave(closed, "e", "stranger")
            assert told == Told(machines=frozenset(), others=frozenset())


async def test_a_machine_leaves_and_its_programs_end(
    house: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They pass its word on, and end with the reason; the others have it in their files."""
    monkeypatch.setattr(_membership, "LEAVING_SECONDS", 0.1)
    attic = house.first("attic")
    laptop = await house.join("laptop", by=attic)
    raised = trio.Event()

    async def program(task_status: trio.TaskStatus[None]) -> None:
        with pytest.raises(NotPermitted, match=r"has left home@.*punch join"):
            async with open_membership(laptop.home, identity=house.path / "program") as membership:
                with membership.watch(lambda: passed.append(membership.lock.revocations)):
                    task_status.started()
                    await trio.sleep_forever()
        raised.set()

    passed: list[tuple[bytes, ...]] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(program)
            left = await tell_leaving(laptop.membership, laptop.node)
            await raised.wait()
    assert len(passed) == 1
    assert len(passed[0]) == 1
    assert (left.name, left.told, left.missed) == ("laptop", (), ("attic",))
    assert read_removals(laptop.home).removed_up_to(laptop.home.machine) == 1


async def test_a_program_whose_namespace_is_gone_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it was left while no program could write; not when a disk is away for a moment."""
    monkeypatch.setattr(_membership, "LEAVING_SECONDS", 0.1)
    home = create_home("home", called="attic", now=time.time(), parent=tmp_path / "data")
    with trio.fail_after(20):
        with pytest.raises(NotPermitted, match="has left home@"):
            async with open_membership(home, identity=tmp_path / "program"):
                (tmp_path / "data").rename(tmp_path / "away")
                await trio.sleep(0.4)
                (tmp_path / "away").rename(tmp_path / "data")
                await trio.sleep(0.4)
                home.folder.path.rename(tmp_path / "data" / "elsewhere")
                await trio.sleep(10)


async def test_it_leaves_whatever_is_wrong(tmp_path: Path) -> None:
    """Nobody there, a grant that has ended, damaged files: the keys are gone, and it says so."""
    for name, now in (("alone", time.time()), ("old", 0.0), ("damaged", time.time())):
        home = create_home(name, called="attic", now=now, parent=tmp_path)
        if name == "damaged":
            home.folder.write("chain", b"nothing")
        with trio.fail_after(20):
            left = await leave_namespace(homes(tmp_path)[0])
        assert homes(tmp_path) == ()
        assert not list(tmp_path.rglob("*.key"))
        said = "\n".join(report(left))
        assert f"left {home.namespace}" in said
        assert ("nobody was told" in said) is (name != "alone")
        assert {"old": "ended", "damaged": "damaged"}.get(name, "") in left.why_untold


def test_what_a_person_is_told() -> None:
    """Whom it reached, how many it did not, and what to do if that were all."""
    from made_up_members import MadeUpNamespace

    from punch.membership import Left

    left = Left(
        namespace=MadeUpNamespace("home").namespace,
        name="laptop",
        ends=1_900_000_000,
        told=("attic", "nas"),
        others=("tv",),
        missed=("phone",),
    )
    said = report(left)
    assert said[1:] == [
        "told attic, nas; they tell tv",
        "1 member could not be reached: phone; the others tell them when they come",
    ]
    said = report(attrs.evolve(left, told=(), others=(), missed=("phone", "tv")))
    assert said[1] == "2 members could not be reached: phone, tv"
    assert said[2].endswith("On an admin, run: punch members remove laptop")
    assert "2030-03-17" in said[2]
    assert report(attrs.evolve(left, told=(), others=(), missed=()))[1:] == []
