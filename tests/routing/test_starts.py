"""What could be started takes part in a choice by its seconds, and is begun once."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import NOW

from punch.capability import Capability, Load, ModelOffer, PeerId
from punch.peers import PeerRecord
from punch.routing import POLICIES, Decision, Policy, RouteRequest, StartableOffer
from punch.routing.names import Wishes
from punch.routing.starts import (
    APPEAR_SECONDS,
    FIRST_REST_SECONDS,
    MAX_REST_SECONDS,
    Starts,
    patience_of,
    running,
)

ASK = RouteRequest(model="llama", prompt_tokens=100, output_tokens=400)
HEAD = PeerId("head")
DEFAULT = POLICIES["completion-time"]

every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)


def split(**changes: Any) -> StartableOffer:
    """A split that is four times as fast as `solo`, and takes half a minute to start."""
    offer = ModelOffer(name="llama", prefill_rate=200.0, decode_rate=20.0, split=True)
    fields: dict[str, Any] = {"id": "s", "peer_id": HEAD, "offer": offer, "seconds": 30.0}
    return StartableOffer(**(fields | changes))


def solo(name: str = "solo", *, load: Load | None = None, **offer: Any) -> PeerRecord:
    """A slow peer that has the model whole."""
    fields: dict[str, Any] = {"name": "llama", "prefill_rate": 50.0, "decode_rate": 5.0}
    return PeerRecord(
        peer_id=PeerId(name),
        capability=Capability.of_one_lane(
            backend="b",
            simulated=False,
            models=(ModelOffer(**(fields | offer)),),
            load=load or Load(queue_limit=100),
        ),
        incarnation=1,
        sequence=1,
        seen_at=NOW,
        rtt=0.01,
    )


def decide(
    *peers: PeerRecord,
    offers: tuple[StartableOffer, ...] = (split(),),
    starts: Starts | None = None,
    policy: str = "completion-time",
    seed: int = 1,
    **request: Any,
) -> Decision:
    """What is chosen among *peers* and what could be started."""
    return POLICIES[policy].decide(
        attrs.evolve(ASK, **request),
        peers,
        now=NOW,
        rng=Random(seed),
        startable=(starts or Starts()).look(offers, now=NOW),
    )


# ---- the choice ----


def test_the_seconds_of_a_start_are_a_term_of_its_score() -> None:
    """Beside those of what it would do then."""
    decision = decide(solo())
    chosen = decision.chosen
    assert chosen is not None
    assert decision.start_of(chosen) == Starts().look([split()], now=NOW)[0]
    terms = decision.candidates()[0].terms
    assert terms == {
        "rtt": 0.0,
        "load": 0.0,
        "queue": 0.0,
        "prefill": 0.5,
        "cached": 0.0,
        "decode": 20.0,
        "penalty": 0.0,
        "start": 30.0,
    }
    assert decision.candidates()[1].terms["start"] == 0.0


@pytest.mark.parametrize(("output", "chosen"), [(20, "solo"), (100, "solo"), (400, "head")])
def test_a_start_pays_where_the_answer_is_long_enough(output: int, chosen: str) -> None:
    """It is 30 s, and then 4 s are 1 s."""
    assert decide(solo(), output_tokens=output).chosen_peer == chosen


def test_a_start_pays_where_others_wait_for_the_peer_that_runs() -> None:
    """Also for a short answer."""
    busy = Load(slots=1, busy=1, queued=2, queue_limit=100, output_tokens_left=600)
    assert decide(solo(load=busy), output_tokens=20).chosen_peer == HEAD


def test_a_running_split_is_no_start() -> None:
    """And is chosen before one that would have to be."""
    running = solo("running", split=True, prefill_rate=200.0, decode_rate=20.0)
    assert decide(solo(), running, offers=(split(seconds=1.0),)).chosen_peer == "running"


@given(
    rates=st.lists(st.tuples(st.floats(1, 1000), st.floats(0.5, 200)), min_size=1, max_size=9),
    busy=st.integers(0, 9),
    seconds=st.floats(0.01, 600),
    seed=st.integers(0, 99),
    output=st.integers(1, 4000),
)
def test_nothing_is_started_that_is_slower_in_all_than_what_runs(
    rates: list[tuple[float, float]], busy: int, seconds: float, seed: int, output: int
) -> None:
    """Whatever the lots say, however long the queues of some are, and whoever is measured."""
    peers = [
        solo(
            f"p{number}",
            prefill_rate=prefill,
            decode_rate=decode,
            load=Load(slots=1, busy=1 if number < busy else 0, queue_limit=100),
        )
        for number, (prefill, decode) in enumerate(rates)
    ]
    decision = decide(*peers, offers=(split(seconds=seconds),), seed=seed, output_tokens=output)
    chosen = decision.chosen
    assert chosen is not None
    scores = [decision.score(one) for one in decision.order if decision.start_of(one) is None]
    if decision.start_of(chosen) is not None:
        assert decision.score(chosen) < min(scores)


def test_a_forced_start_is_done_all_the_same() -> None:
    """As one is that is preferred, or named by its id."""
    forced = split(is_forced=True)
    assert decide(solo(), offers=(forced,), output_tokens=1).chosen_peer == HEAD
    assert decide(solo(), output_tokens=1).chosen_peer == "solo"
    for wish in (Wishes(prefer=frozenset({HEAD})), Wishes(only=frozenset({HEAD}))):
        assert decide(solo(), output_tokens=1, wishes=wish).chosen_peer == HEAD
    assert decide(solo(), output_tokens=1, offer="s").chosen_peer == HEAD


def test_what_could_be_started_is_started_if_nothing_else_can_be_asked() -> None:
    """However long that takes."""
    full = solo(load=Load(slots=1, busy=1, queued=2, queue_limit=2))
    assert decide(full, offers=(split(seconds=600.0),), output_tokens=1).chosen_peer == HEAD


@pytest.mark.parametrize(
    "policy",
    [policy for policy in POLICIES.values() if policy.scorer.unit != "s"],
    ids=lambda policy: policy.name,
)
def test_a_policy_without_seconds_starts_nothing_while_something_runs(policy: Policy) -> None:
    """It cannot say what a start is worth; where nothing runs, that does not matter."""
    for seed in range(20):
        decision = decide(solo(), policy=policy.name, seed=seed)
        assert decision.chosen_peer == "solo"
    ((removed, by),) = decision.removed
    assert (removed.peer_id, by.name) == (HEAD, "running")
    assert decision.candidates()[1].reason == (
        f"would have to be started; {policy.name} counts no seconds, and another can be asked"
    )
    assert decide(policy=policy.name).chosen_peer == HEAD
    assert decide(solo(), policy=policy.name, offers=(split(is_forced=True),)).chosen_peer == HEAD


def test_another_model_is_not_started() -> None:
    """It says why, as a peer with another model does."""
    decision = decide(solo(), model="other")
    assert decision.chosen is None
    assert {each.removed_by for each in decision.candidates()} == {"model"}


def test_a_mock_answers_nothing_that_a_start_could() -> None:
    """There is a real one for the model."""
    made_up = solo()
    lanes = tuple(attrs.evolve(lane, simulated=True) for lane in made_up.capability.lanes)
    made_up = attrs.evolve(made_up, capability=attrs.evolve(made_up.capability, lanes=lanes))
    assert decide(made_up, output_tokens=1).chosen_peer == HEAD


def test_requests_that_wait_for_a_start_are_its_queue() -> None:
    """With one slot the second is answered after the first."""
    starts = Starts()
    starts.waits("one", split(), prompt_tokens=200, output_tokens=400)
    decision = decide(starts=starts)
    chosen = decision.chosen
    assert chosen is not None
    # All of the first prompt, and what is left of its answer by then.
    assert decision.term(chosen, "queue") == pytest.approx(1.0 + 20.0)
    starts.waits("two", split(), prompt_tokens=300, output_tokens=500)
    starts.waits("one", split(), prompt_tokens=200, output_tokens=400)
    before = {
        who: starts.look([split()], now=NOW, waiter=who)[0].output_tokens
        for who in ("one", "two", "three", None)
    }
    assert before == {"one": 0, "two": 400, "three": 900, None: 900}
    starts.leaves("one")
    assert starts.look([split()], now=NOW)[0].output_tokens == 500


# ---- who reads it ----


def test_no_split_is_started_for_what_is_to_be_read_by_one_machine() -> None:
    """A whole model may be started for it."""
    whole = split(id="w", offer=ModelOffer(name="llama", decode_rate=20.0))
    wishes = Wishes(privacy="whole")
    decision = decide(wishes=wishes)
    assert (decision.chosen, decision.removed[0][1].name) == (None, "privacy")
    assert decide(offers=(split(), whole), wishes=wishes).chosen_peer == HEAD


@pytest.mark.parametrize("own_workers", [True, False])
def test_a_split_over_machines_of_others_is_not_the_own(own_workers: bool) -> None:
    """Whoever its head belongs to, and whether it runs."""
    wishes = Wishes(privacy="own", own=frozenset({HEAD, "solo"}))
    to_start = split(offer=attrs.evolve(split().offer, own_workers=own_workers))
    expected = HEAD if own_workers else None
    decision = decide(offers=(to_start,), wishes=wishes)
    assert decision.chosen_peer == expected
    running = solo(split=True, own_workers=own_workers)
    decision = decide(running, offers=(), wishes=wishes)
    assert decision.chosen_peer == ("solo" if own_workers else None)
    if not own_workers:
        assert decision.candidates()[0].reason == (
            "runs the model over machines that may be another owner's; the request is for those of "
            "its own only"
        )
    stranger = attrs.evolve(wishes, own=frozenset())
    assert decide(running, offers=(to_start,), wishes=stranger).chosen is None


# ---- starts ----


def test_a_start_is_begun_once() -> None:
    """And one at a time; what waits for another start says so by its seconds."""
    starts, other = Starts(), split(id="t", seconds=5.0)
    assert starts.begins(split(), now=0.0)
    assert not starts.begins(split(), now=1.0)
    assert not starts.begins(other, now=1.0)
    first, second = starts.look([split(), other], now=10.0)
    assert (first.seconds, first.is_under_way) == (20.0, True)
    assert (second.seconds, second.is_under_way) == (25.0, False)
    starts.started(split(), now=31.0)
    assert starts.begins(other, now=31.0)


def test_a_late_start_is_taken_to_need_as_long_again() -> None:
    """It is never over before it says so."""
    starts = Starts()
    starts.begins(split(), now=0.0)
    left = [starts.look([split()], now=now)[0].seconds for now in (0.0, 20.0, 30.0, 50.0)]
    assert left == [30.0, 10.0, 0.5, 20.0]


def test_what_has_started_is_not_begun_again_while_it_appears() -> None:
    """If it never does, that is a failure."""
    starts = Starts()
    starts.begins(split(), now=0.0)
    starts.started(split(), now=30.0)
    assert not starts.begins(split(), now=30.5)
    assert starts.look([split()], now=30.5)[0].seconds == 0.0
    (late,) = starts.look([split()], now=30.0 + APPEAR_SECONDS)
    assert late.why_not is not None
    assert "was started, and its peer does not offer it" in late.why_not


def test_a_failed_start_rests_longer_each_time_and_says_why() -> None:
    """Until it runs."""
    starts, now, waits = Starts(), 0.0, []
    for _ in range(9):
        assert starts.begins(split(), now=now)
        starts.failed("s", "no memory", now=now)
        assert not starts.begins(split(), now=now)
        (one,) = starts.look([split()], now=now)
        assert one.why_not is not None
        assert one.retry_after is not None
        waits.append(one.retry_after)
        now += one.retry_after
    assert waits[:3] == [FIRST_REST_SECONDS, 2 * FIRST_REST_SECONDS, 4 * FIRST_REST_SECONDS]
    assert waits[-1] == MAX_REST_SECONDS
    assert one.why_not == "could not be started 9 times in a row: no memory; tried again in 900 s"
    starts.appeared(split())
    starts.begins(split(), now=now)
    starts.failed("s", "no memory", now=now)
    assert starts.look([split()], now=now)[0].retry_after == FIRST_REST_SECONDS


@every_policy
def test_a_start_that_failed_is_a_candidate_that_says_why(policy: Policy) -> None:
    """It is not chosen, also where nothing else is."""
    starts = Starts()
    starts.failed("s", "no memory", now=NOW)
    decision = decide(starts=starts, policy=policy.name)
    assert decision.chosen is None
    (one,) = decision.candidates()
    assert one.removed_by == "start"
    assert one.reason == "could not be started: no memory; tried again in 15 s"
    assert one.start is not None
    assert decide(solo(), starts=starts, policy=policy.name).chosen_peer == "solo"
    wishes = Wishes(prefer=frozenset({HEAD}))
    decision = decide(solo(), starts=starts, policy=policy.name, wishes=wishes)
    assert decision.chosen_peer == "solo"


def test_what_is_not_startable_any_more_is_forgotten() -> None:
    """What was held against it too."""
    starts = Starts()
    starts.failed("s", "no memory", now=NOW)
    starts.look([], now=NOW)
    assert starts.look([split()], now=NOW)[0].why_not is None


def test_a_start_is_given_up_after_several_times_what_was_predicted() -> None:
    """A short one after two minutes, a long one after half an hour."""
    assert [patience_of(split(seconds=s)) for s in (1.0, 100.0, 9e9)] == [120.0, 400.0, 1800.0]


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        (ModelOffer(name="llama", split=True), True),
        (ModelOffer(name="llama"), False),
        (ModelOffer(name="other", split=True), False),
        (ModelOffer(name="other", split=True, digest="ab" * 32), True),
        (ModelOffer(name="llama", split=True, digest="cd" * 32), False),
    ],
)
def test_what_runs_is_known_by_its_file_and_else_by_its_name(
    offer: ModelOffer, expected: bool
) -> None:
    """A split is not the whole model."""
    known = split(offer=attrs.evolve(split().offer, digest="ab" * 32))
    peer = solo()
    peer = attrs.evolve(peer, capability=attrs.evolve(peer.capability, models=(offer,)))
    assert running(known, peer) == (offer if expected else None)
    assert running(known, None) is None


def test_a_decision_tells_of_a_start_in_plain_words() -> None:
    """Seconds, workers, owners and the plan."""
    told = decide(offers=(split(workers=2, owners=("ann", "bob"), plan="12 + 12 layers"),))
    (one,) = told.as_dict()["candidates"]
    assert (one["offer"], one["lane"]) == ("s", "start")
    assert one["start"] == {
        "seconds": 30.0,
        "under_way": False,
        "waiting": 0,
        "workers": 2,
        "owners": ["ann", "bob"],
        "plan": "12 + 12 layers",
    }


def test_a_plan_that_says_too_much_is_cut() -> None:
    """It is kept with each decision."""
    (one,) = Starts().look([split(plan="x" * 9999)], now=NOW)
    assert len(one.offer.plan) == 2000
