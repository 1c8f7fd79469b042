"""The machines of a namespace as `punch up` shows them: each once, whatever runs there."""

from __future__ import annotations

from typing import cast

import attrs

from punch.adoption import AdoptedServer
from punch.capability import Capability, Lane, ModelOffer, PeerId
from punch.cli.up._status import MemberRow
from punch.cli.up._status_of import adopted_waits, member_rows, worker_names
from punch.membership import DiskMembership, MemberStatus
from punch.peers import PeerRecord

HERE = PeerId("process-here")


class Membership:
    """Knows whose machine a peer is on: ``shed-1`` is a process of ``shed``."""

    def machine_of(self, peer_id: PeerId) -> PeerId | None:
        """The machine, where it was told."""
        machine, dash, _ = peer_id.partition("-")
        return PeerId(machine) if dash and machine != "unknown" else None


MEMBERSHIP = cast("DiskMembership", Membership())


def member(machine: str, *, name: str = "", is_here: bool = False) -> MemberStatus:
    """A member as it is on disk."""
    return MemberStatus(
        machine=PeerId(machine),
        name=name,
        own_name=name,
        owner=None,
        scopes=frozenset({"admin"} if is_here else ()),
        ends=0,
        state="member",
        is_this_machine=is_here,
        is_connected=False,
        seen=0,
        addresses=(),
    )


def peer(peer_id: str, *models: str, name: str | None = None) -> PeerRecord:
    """A listener with these models."""
    claim = Capability(
        lanes=(Lane(backend="openai", simulated=False),),
        models=tuple(ModelOffer(name=model) for model in models),
        machine_name=name,
    )
    return PeerRecord(
        peer_id=PeerId(peer_id), capability=claim, incarnation=1, sequence=1, seen_at=0.0
    )


DESK, SHED = member("desk-key", name="desk", is_here=True), member("shed", name="shed")


def rows(*peers: PeerRecord, known: tuple[MemberStatus, ...] = (DESK, SHED)) -> list[MemberRow]:
    """The rows of a closed namespace."""
    return list(member_rows(peers, here=HERE, membership=MEMBERSHIP, known=known))


def test_this_machine_comes_first_and_is_there_once() -> None:
    """What it has itself is its own row's."""
    found = rows(peer("shed-1", "b"), peer(HERE, "a"))
    assert [(row.name, row.is_here, row.models) for row in found] == [
        ("desk", True, ("a",)),
        ("shed", False, ("b",)),
    ]
    assert [row.is_admin for row in found] == [True, False]


def test_two_programs_of_a_machine_are_one_member() -> None:
    """With the models of both, each once."""
    found = rows(peer("shed-1", "b", "a"), peer("shed-2", "b"))
    assert [(row.name, row.models) for row in found] == [("desk", ()), ("shed", ("a", "b"))]


def test_a_member_without_a_session_is_away() -> None:
    """It is shown all the same."""
    assert [row.is_connected for row in rows()] == [True, False]


def test_a_peer_whose_machine_is_not_told_yet_is_known_by_its_name() -> None:
    """If that is one member's alone; otherwise it is not shown until it is told."""
    unknown = peer("unknown-1", "b", name="shed")
    assert rows(unknown)[1].models == ("b",)
    twins = (DESK, SHED, member("barn", name="shed"))
    assert [row.models for row in rows(unknown, known=twins)] == [(), (), ()]
    assert len(rows(peer("unknown-1", "b", name="stranger"))) == 2


def test_in_an_open_namespace_each_peer_is_a_row() -> None:
    """Nobody knows more of it there."""
    peers = [peer("far", "b", name="attic"), peer(HERE, "a")]
    found = member_rows(peers, here=HERE, membership=None, known=())
    assert [(row.name, row.is_here) for row in found] == [(found[0].name, True), ("attic", False)]


def test_workers_are_named_as_members_are() -> None:
    """Each machine once."""
    workers = {PeerId("shed-1"): (), PeerId("shed-2"): (), PeerId("unknown-1"): ()}
    assert worker_names(workers, membership=MEMBERSHIP, known=(DESK, SHED)) == ("shed",)
    bare = attrs.evolve(SHED, name="")
    assert len(worker_names(workers, membership=MEMBERSHIP, known=(bare,))) == 1


def test_a_server_that_is_away_is_not_said_to_have_no_model() -> None:
    """What is waited for has the reason that its lane gives."""
    server = AdoptedServer(
        url="http://127.0.0.1:1234",
        program="LM Studio",
        how="found",
        state="resting",
        reason="its server cannot be reached",
        models=(),
        lane="lm-studio",
        seconds=60.0,
    )
    (line,) = adopted_waits([server])
    assert line == "a model of LM Studio at http://127.0.0.1:1234: its server cannot be reached"
    assert adopted_waits([attrs.evolve(server, seconds=0.1)]) == []
    assert adopted_waits([attrs.evolve(server, models=("a",))]) == []
    named = attrs.evolve(server, how="named", state="looking", lane=None)
    assert adopted_waits([named]) == ["http://127.0.0.1:1234, which was named"]
