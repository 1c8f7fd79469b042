"""Each candidate says of what kind it is, and a decision why one kind was taken."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest
from strategies import NOW

from punch.capability import Capability, Load, ModelOffer, PeerId
from punch.peers import NO_OFFER, Candidate, PeerRecord
from punch.routing import POLICIES, Decision, RouteRequest, Startable, StartableOffer
from punch.routing.kinds import KINDS, Kind, best_of_kinds, kind_of, why_taken
from punch.routing.matrix import Cell, SizeRow, size_rows

ASK = RouteRequest(model="llama", prompt_tokens=100, output_tokens=200)


def peer(
    who: str = "a",
    *,
    path: str | None = "network",
    load: Load | None = None,
    simulated: bool = False,
    **offer: Any,
) -> PeerRecord:
    """A peer that has the model, at ten tokens a second."""
    fields: dict[str, Any] = {"name": "llama", "prefill_rate": 100.0, "decode_rate": 10.0}
    return PeerRecord(
        peer_id=PeerId(who),
        capability=Capability.of_one_lane(
            backend="b",
            simulated=simulated,
            models=(ModelOffer(**(fields | offer)),),
            load=load or Load(queue_limit=9),
        ),
        incarnation=1,
        sequence=1,
        seen_at=NOW,
        rtt=0.01,
        path=path,
    )


def startable(*, seconds: float = 30.0, **offer: Any) -> Startable:
    """A split over three machines, forty tokens a second."""
    fields: dict[str, Any] = {"prefill_rate": 400.0, "decode_rate": 40.0, "split": True}
    one = StartableOffer(
        id="s",
        peer_id=PeerId("head"),
        offer=ModelOffer(name="llama", **fields),
        seconds=seconds,
        **({"workers": 2} | offer),
    )
    return Startable(offer=one, seconds=seconds, why_not=one.why_not)


def decide(*peers: PeerRecord, starts: tuple[Startable, ...] = (), **given: Any) -> Decision:
    """What is chosen without any lots."""
    policy = attrs.evolve(POLICIES[given.pop("policy", "completion-time")], near=0.0, explore=0.0)
    request = attrs.evolve(ASK, **given)
    return policy.decide(request, peers, now=NOW, rng=Random(0), startable=starts)


def why(decision: Decision, **given: Any) -> str:
    """Why the first was taken."""
    found = decision.candidates()
    given = {"lowest_is_best": decision.lowest_is_best} | given
    return why_taken(found[0], best_of_kinds(found), unit=decision.unit, **given)


@pytest.mark.parametrize(
    ("path", "offer", "word", "text"),
    [
        ("process", {}, "here", "this machine, whole"),
        ("machine", {}, "here", "this machine, whole"),
        ("network", {}, "peer", "a peer, whole"),
        (None, {}, "peer", "a peer, whole"),
        ("process", {"load_seconds": 12.0}, "here", "this machine, whole, to be loaded in 12 s"),
        ("network", {"split": True}, "split", "split over several machines"),
        ("network", {"split": True, "machines": 3}, "split", "split over 3 machines"),
        ("network", {"machines": 3}, "peer", "a peer, whole"),
        (
            "network",
            {"split": True, "plain_rpc": True, "machines": 2},
            "split",
            "split over 2 machines, one of them unauthenticated",
        ),
        ("process", {"split": True}, "split", "split over several machines, run from this machine"),
    ],
)
def test_what_runs_is_here_at_a_peer_or_split(
    path: str | None, offer: dict[str, Any], word: str, text: str
) -> None:
    """By the path to its peer, and by what is offered."""
    (candidate,) = peer(path=path, **offer).candidates("llama")
    kind = kind_of(candidate)
    assert kind is not None
    assert (kind.word, str(kind)) == (word, text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "could be started in 30 s, split over 3 machines"),
        ({"workers": 0}, "could be started in 30 s, split over several machines"),
    ],
)
def test_what_could_be_started_says_in_how_many_seconds(changes: dict[str, Any], text: str) -> None:
    """And over how many machines, where its plan says so."""
    decision = decide(starts=(startable(**changes),))
    (found,) = decision.candidates()
    assert found.kind is not None
    assert (found.kind.word, str(found.kind)) == ("start", text)


def test_a_start_under_way_and_one_of_a_whole_model_are_told_so() -> None:
    """Seconds are those that are left."""
    kind = Kind(word="start", machines=1, start_seconds=2.345, is_under_way=True)
    assert str(kind) == "is starting in 2.35 s, whole"


def test_who_does_not_have_the_model_is_of_no_kind() -> None:
    """It is no place where the model could run."""
    one = peer()
    nothing = Candidate(peer=one, offer=NO_OFFER, lane=one.capability.lanes[0])
    assert kind_of(nothing) is None
    (removed,) = decide(peer(name="other"), model="qwen").candidates()
    assert removed.kind is None


def test_the_kind_is_in_what_a_response_says_of_its_decision() -> None:
    """As a word."""
    found = decide(peer(path="process")).as_dict()["candidates"]
    assert [each["kind"] for each in found] == ["here"]


# ---- why one kind ----


def test_the_best_of_each_kind_is_the_chosen_one_or_the_first() -> None:
    """In the order of the kinds, whoever was chosen."""
    decision = decide(
        peer("slow", decode_rate=2.0),
        peer("quick", decode_rate=30.0),
        peer("here", path="process"),
        peer("split", split=True, load=Load(busy=1, queue_limit=0)),
        starts=(startable(),),
    )
    ways = best_of_kinds(decision.candidates())
    assert decision.best_of_kinds() == ways
    assert tuple(ways) == KINDS
    assert [one.peer_id for one in ways.values()] == ["here", "quick", "split", "head"]
    assert ways["split"].removed_by == "slots"
    assert why(decision).startswith("done first, by 13.")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"explored": True}, "to measure it"),
        ({}, "done first, by 29"),
    ],
)
def test_the_reason_says_by_how_much(given: dict[str, Any], text: str) -> None:
    """Or that it was not for its score."""
    decision = decide(peer(path="process", decode_rate=40.0), starts=(startable(),))
    assert why(decision, **given).startswith(text)


def test_a_start_that_gains_too_little_is_not_begun_and_it_says_so() -> None:
    """A little more than nothing is less than a near-tie."""
    policy = attrs.evolve(POLICIES["completion-time"], explore=0.0)
    decision = policy.decide(
        ASK, [peer(decode_rate=10.0)], now=NOW, rng=Random(0), startable=[startable(seconds=15.5)]
    )
    assert [one.kind.word for one in decision.candidates() if one.kind] == ["peer", "start"]
    assert why(decision) == "a start must gain more than that"


def test_where_nothing_else_can_be_asked_that_is_the_reason() -> None:
    """And a start that is forced is told to be."""
    forced = startable(seconds=100.0, is_forced=True)
    assert why(decide(peer(path="process"))) == "no other kind can be asked"
    assert why(decide(peer(), starts=(forced,)), is_forced=True) == "its start is forced"


def test_a_policy_without_seconds_names_its_score() -> None:
    """There is no `by 3 s` in requests per slot."""
    decision = decide(
        peer(path="process"), peer("b", load=Load(busy=1, queue_limit=9)), policy="least-requests"
    )
    assert why(decision) == "the best score"


# ---- the models on offer ----


def cells(row: SizeRow) -> dict[str, Cell]:
    """By the words of the kinds, all of them."""
    assert tuple(row.cells) == KINDS
    return dict(row.cells)


def test_each_model_is_shown_beside_each_kind_of_place() -> None:
    """With seconds where it could be asked, and what hinders where it could not."""
    busy = Load(busy=1, queue_limit=0)
    others = peer("b", load=busy), peer("c", name="qwen", size_bytes=5_000_000_000)
    (first, second), more = size_rows(
        POLICIES["completion-time"], [peer(path="process"), *others], [startable()], now=NOW
    )
    assert more == 0
    assert (first.model, first.taken) == ("llama", "here")
    assert first.why is not None
    assert first.why.startswith("done first, by ")
    found = cells(first)
    assert found["here"].seconds == pytest.approx(17.92 + 0.01)
    assert found["peer"].why_not == "is full: 1 of 1 slots busy, 0 of 0 queued, 0 of them ours"
    assert found["split"] == Cell(why_not="no split of it runs")
    assert found["start"].seconds == pytest.approx(30 + 1.28 + 3.2)
    assert (second.model, second.taken, second.size_bytes) == ("qwen", "peer", 5_000_000_000)
    assert cells(second)["here"] == Cell(why_not="this machine does not have it")
    assert cells(second)["start"] == Cell(why_not="nothing is set up to start it")


def test_a_model_that_fits_nowhere_is_shown_with_its_numbers() -> None:
    """Though it is no model on offer."""
    why_not = "all devices together have 80 GB for layers and contexts, which take 191 GB"
    (row,), _ = size_rows(POLICIES["completion-time"], [], [startable(why_not=why_not)], now=NOW)
    assert (row.model, row.taken) == ("llama", None)
    assert cells(row)["start"].why_not == why_not


def test_what_cannot_be_started_is_no_reason_against_a_simulation() -> None:
    """It offers nothing; where any model will do, the one that there is will do."""
    decision = decide(peer(simulated=True), starts=(startable(why_not="nobody lends"),), model=None)
    assert decision.chosen_peer == "a"
    assert [by.name for _, by in decision.removed] == ["start"]


def test_a_matrix_is_bounded() -> None:
    """Whatever peers claim to have."""
    many = [peer(f"p{number}", name=f"m{number:03d}") for number in range(9)]
    rows, more = size_rows(POLICIES["completion-time"], many, now=NOW, most=4)
    assert [row.model for row in rows] == ["m000", "m001", "m002", "m003"]
    assert more == 5
    crowd = [peer(f"p{number}", name=f"m{number % 40:03d}") for number in range(4000)]
    rows, more = size_rows(POLICIES["completion-time"], crowd, now=NOW)
    assert (len(rows), more) == (4, 36)
