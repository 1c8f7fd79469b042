"""What a meeting point tells its members, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from made_up_peers import signed
from trio.testing import MockClock

from punch.bootstrap._member import COALESCE_SECONDS, PAUSE_SECONDS, Everything, Member
from punch.bootstrap._relayed import Relayed
from punch.capability import PeerId
from punch.discovery._meeting import FramedStream
from punch.wire import NamespaceId, Pong, Roster, Standing

CLOSED: NamespaceId = ("home", b"k" * 32)


class Frames(FramedStream):
    """Keeps what is sent, and when."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, object]] = []

    async def send(self, message: object) -> None:
        self.sent.append((trio.current_time(), message))

    def times(self, kind: type[object]) -> list[float]:
        return [round(at, 2) for at, message in self.sent if isinstance(message, kind)]


@asynccontextmanager
async def told(namespace: NamespaceId) -> AsyncIterator[tuple[Member, Frames]]:
    """A member that has its first roster."""
    member = Member(peer_id=PeerId("member"), namespace=namespace, has_roster=True)
    member.is_standing_due = False
    frames = Frames()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            member.keep_told, frames, lambda member: Everything(), lambda namespace: (b"removal",)
        )
        await trio.sleep(10)
        yield member, frames
        nursery.cancel_scope.cancel()


def change(member: Member, name: str) -> None:
    member.news[PeerId(name)] = None
    member.wake.set()


async def test_a_closed_namespace_that_changes_over_and_over_is_told_once_a_second(
    autojump_clock: MockClock,
) -> None:
    """Forty members that move together are told of in a few rosters; the first change at once."""
    async with told(CLOSED) as (member, frames):
        for number in range(30):
            change(member, f"m{number}")
            await trio.sleep(0.1)
        await trio.sleep(2 * PAUSE_SECONDS)
        first = 10 + COALESCE_SECONDS
        assert frames.times(Roster) == [round(first + PAUSE_SECONDS * each, 2) for each in range(4)]
        gone = [peer for _, each in frames.sent if isinstance(each, Roster) for peer in each.gone]
        assert gone == [f"m{number}" for number in range(30)]
        await trio.sleep(5)
        assert len(frames.sent) == 4
        change(member, "later")
        await trio.sleep(2 * COALESCE_SECONDS)
        assert len(frames.sent) == 5


async def test_members_of_an_open_namespace_are_told_as_ever(autojump_clock: MockClock) -> None:
    """They meet at one bootstrap, and hear of each change once."""
    async with told("home") as (member, frames):
        for number in range(30):
            change(member, f"m{number}")
            await trio.sleep(0.1)
        assert len(frames.sent) == 30


async def test_neither_a_removal_nor_an_answer_waits_for_the_next_roster(
    autojump_clock: MockClock,
) -> None:
    """A removed member is out within two seconds, and a stream is alive if it answers."""
    async with told(CLOSED) as (member, frames):
        change(member, "first")
        await trio.sleep(0.2)
        change(member, "second")
        member.nonce, member.is_standing_due = 7, True
        await trio.sleep(0.1)
        assert frames.times(Pong) == frames.times(Standing) == [10.2]
        assert len(frames.times(Roster)) == 1
        await trio.sleep(PAUSE_SECONDS)
        assert len(frames.times(Roster)) == 2


async def test_a_whole_roster_takes_the_place_of_what_was_still_to_be_told(
    autojump_clock: MockClock,
) -> None:
    """A listener that begins to dial is told of all, and then of nothing twice."""
    async with told(CLOSED) as (member, frames):
        change(member, "first")
        await trio.sleep(0.2)
        change(member, "second")
        await trio.sleep(0.2)
        member.has_roster = False
        member.wake.set()
        await trio.sleep(10)
        rosters = [each for _, each in frames.sent if isinstance(each, Roster)]
        assert [each.whole for each in rosters] == [False, True]


def test_only_what_has_changed_is_relayed() -> None:
    """The same joins again are no news; who is gone is."""
    relayed = Relayed()
    joins = {PeerId(name): signed(name, [f"/memory/{name}/1"]) for name in "abc"}
    assert sorted(relayed.take(joins)) == ["a", "b", "c"]
    assert relayed.take(dict(joins)) == []
    del joins[PeerId("a")]
    joins[PeerId("b")] = signed("b", ["/memory/b/2"])
    assert sorted(relayed.take(joins)) == ["a", "b"]
    assert relayed.get(PeerId("a")) is None
    assert [each.relayed for each in relayed.beside({PeerId("c")})] == [True]
