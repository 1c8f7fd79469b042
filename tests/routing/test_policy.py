"""Filter, score, pick: properties that hold for every policy, and those of the default one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from strategies import NOW, peer_tables, route_requests

from punch.capability import Capability, Gpu, Load, ModelOffer, PeerId
from punch.peers import Breaker, Candidate, PeerRecord, Rates
from punch.routing import (
    POLICIES,
    STANDARD_FILTERS,
    CompletionTime,
    Decision,
    Filter,
    LeastRequests,
    Policy,
    RoundRobin,
    RouteRequest,
    route_request,
)
from punch.routing._policy import HOT_HANDICAP
from punch.wire import ChatMessage, CommandRequest, Sampling

ASK = RouteRequest(model="llama", prompt_tokens=100, output_tokens=100)

every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)


def policies() -> Iterator[Policy]:
    """All of them for one example, which takes longer to draw than to decide.

    Where one fails, Hypothesis says which.
    """
    for policy in POLICIES.values():
        note(f"policy: {policy.name}")
        yield policy


def peer(
    peer_id: str,
    *,
    prefill: float | None = 100.0,
    decode: float | None = 10.0,
    simulated: bool = False,
    load: Load | None = None,
    **changes: Any,
) -> PeerRecord:
    """A peer with one model, idle, near and fast unless told otherwise."""
    offer = ModelOffer(name="llama", prefill_rate=prefill, decode_rate=decode)
    return PeerRecord(
        peer_id=PeerId(peer_id),
        capability=Capability.of_one_lane(
            backend="b", simulated=simulated, models=(offer,), load=load or Load(queue_limit=100)
        ),
        incarnation=1,
        sequence=1,
        **({"seen_at": NOW, "rtt": 0.01} | changes),
    )


def with_load(one: PeerRecord, **load: Any) -> PeerRecord:
    """The same peer, busier or idler."""
    claim = one.capability
    loads = {lane.id: attrs.evolve(lane.load, **load) for lane in claim.lanes}
    return attrs.evolve(one, capability=claim.with_loads(loads))


def with_rates(one: PeerRecord, factor: float) -> PeerRecord:
    """The same peer, all its rates times *factor*."""
    offers = tuple(
        attrs.evolve(
            offer,
            prefill_rate=offer.prefill_rate and offer.prefill_rate * factor,
            decode_rate=offer.decode_rate and offer.decode_rate * factor,
        )
        for offer in one.capability.models
    )
    rates = {
        model: attrs.evolve(
            rate,
            prefill=rate.prefill and rate.prefill * factor,
            decode=rate.decode and rate.decode * factor,
        )
        for model, rate in one.rates.items()
    }
    return attrs.evolve(one, rates=rates, capability=attrs.evolve(one.capability, models=offers))


def decide(
    peers: Sequence[PeerRecord],
    request: RouteRequest = ASK,
    policy: Policy = POLICIES["completion-time"],
    seed: int = 0,
) -> Decision:
    """A decision at the time of the tables."""
    return policy.decide(request, peers, now=NOW, rng=Random(seed))


def order(decision: Decision) -> tuple[PeerId, ...]:
    """The peers that may be asked, best first."""
    return tuple(candidate.peer_id for candidate in decision.order)


def score(decision: Decision, peer_id: str) -> float:
    """The score of a peer."""
    return decision.score(found(decision, peer_id))


def term(decision: Decision, peer_id: str, name: str) -> float | None:
    """One term of a peer's score."""
    return decision.term(found(decision, peer_id), name)


def found(decision: Decision, peer_id: str) -> Candidate:
    """The candidate of a peer."""
    candidate = decision.best_of(PeerId(peer_id))
    assert candidate is not None
    return candidate


def exact(scorer: Any) -> Policy:
    """A policy that draws no lots and removes nobody."""
    return Policy(name="exact", scorer=scorer, filters=(), near=0.0)


def seconds(one: PeerRecord, request: RouteRequest = ASK) -> float:
    """The predicted time of a peer, looked at alone."""
    return score(decide([one], request, exact(CompletionTime())), one.peer_id)


# ---- every policy ----


@given(request=route_requests, peers=peer_tables(), seed=st.integers(0, 99))
def test_a_decision_can_be_replayed(
    request: RouteRequest, peers: list[PeerRecord], seed: int
) -> None:
    """The same snapshot, clock and seed give the same decision, down to every reason."""
    for policy in policies():
        first = decide(peers, request, policy, seed)
        again = decide(peers, request, policy, seed)
        assert first == again
        assert first.candidates() == again.candidates()


@given(request=route_requests, peers=peer_tables(), seed=st.integers(0, 99))
def test_every_peer_is_in_the_decision_exactly_once(
    request: RouteRequest, peers: list[PeerRecord], seed: int
) -> None:
    """Either with its score or with the filter that removed it and why."""
    for policy in policies():
        decision = decide(peers, request, policy, seed)
        candidates = decision.candidates()
        wanted = (request.model, request.model_digest, request.offer)
        assert Counter(c.peer_id for c in candidates) == Counter(
            candidate.peer_id for p in peers for candidate in p.candidates(*wanted)
        )
        assert {c.peer_id for c in candidates} == {p.peer_id for p in peers}
        assert tuple(c.peer_id for c in candidates if c.removed_by is None) == order(decision)
        for candidate in candidates:
            if candidate.removed_by is None:
                assert candidate.score == sum(candidate.terms.values())
                assert tuple(candidate.terms) == policy.scorer.term_names
                assert candidate.reason is None
            else:
                assert candidate.removed_by in {step.name for step in policy.filters}
                assert candidate.reason
                assert (candidate.score, candidate.terms) == (None, {})


@given(request=route_requests, peers=peer_tables(), seed=st.integers(0, 99))
def test_the_order_is_sorted_but_for_a_lucky_first(
    request: RouteRequest, peers: list[PeerRecord], seed: int
) -> None:
    """The first is as good as the best, as far as anybody can tell; the others follow in order.

    A hot peer counts as one that takes twice as long. Peers that are to be measured are another
    matter, and their tests are below.
    """
    for policy in policies():
        decision = decide(peers, request, attrs.evolve(policy, explore=0.0), seed)
        scores = [
            decision.score(candidate) * (HOT_HANDICAP if candidate.id in decision.hot else 1.0)
            for candidate in decision.order
        ]
        assert scores[1:] == sorted(scores[1:], reverse=not decision.lowest_is_best)
        if scores:
            best = min(scores) if decision.lowest_is_best else max(scores)
            assert abs(scores[0] - best) <= policy.near * abs(best)


@given(request=route_requests, peers=peer_tables(min_size=1), seed=st.integers(0, 99))
def test_strict_never_keeps_a_simulated_peer(
    request: RouteRequest, peers: list[PeerRecord], seed: int
) -> None:
    """Not as the first choice and not as the last resort."""
    for policy in policies():
        decision = decide(peers, attrs.evolve(request, strict=True), policy, seed)
        assert not [candidate for candidate in decision.order if candidate.lane.simulated]


@given(request=route_requests, peers=peer_tables())
def test_a_peer_that_was_tried_is_never_chosen_again(
    request: RouteRequest, peers: list[PeerRecord]
) -> None:
    """So that failing over ends."""
    for policy in policies():
        tried: frozenset[PeerId] = frozenset()
        for _ in range(len(peers) + 1):
            decision = decide(peers, attrs.evolve(request, tried=tried), policy)
            if decision.chosen_peer is None:
                break
            assert decision.chosen_peer not in tried
            tried |= {decision.chosen_peer}
        else:
            pytest.fail("there are more choices than peers")


@every_policy
def test_nobody_to_ask_is_a_decision_too(policy: Policy) -> None:
    """An empty table is no error here."""
    decision = decide([], policy=policy)
    assert (decision.chosen_peer, decision.order, decision.candidates()) == (None, (), ())


@given(request=route_requests, peers=peer_tables())
def test_a_decision_is_plain_data(request: RouteRequest, peers: list[PeerRecord]) -> None:
    """It goes into logs and JSON as it is, with a bounded number of peers."""
    for policy in policies():
        plain = decide(peers, request, policy).as_dict(candidates=3)
        assert json.loads(json.dumps(plain)) == plain
        assert plain["peers"] == len(peers)
        assert len(plain["candidates"]) == min(3, len(peers))


def test_the_names_of_the_policies() -> None:
    """The default comes first; each is found under its own name."""
    assert list(POLICIES) == [
        "completion-time",
        "capability",
        "capability-cpu",
        "capability-gpu",
        "capability-latency",
        "capability-reliability",
        "least-requests",
        "two-choices",
        "pending-and-pressure",
        "least-seconds",
        "prefix-affinity",
        "round-robin",
        "random",
    ]
    assert all(policy.name == name for name, policy in POLICIES.items())


# ---- drawing among equals ----


def test_near_equals_share_the_work() -> None:
    """Within a tenth nobody knows better, and many dialers must not choose the same one."""
    peers = [peer("a", decode=10.0), peer("b", decode=9.5), peer("c", decode=8.5)]
    policy = attrs.evolve(POLICIES["completion-time"], explore=0.0)
    chosen = Counter(decide(peers, policy=policy, seed=seed).chosen_peer for seed in range(400))
    assert set(chosen) == {"a", "b"}
    assert min(chosen.values()) > 150


def test_what_somebody_would_wait_for_is_not_near() -> None:
    """A twentieth of a minute is three seconds: the best is best."""
    peers = [peer("a", decode=1.0), peer("b", decode=0.95)]
    policy = attrs.evolve(POLICIES["completion-time"], explore=0.0)
    assert {decide(peers, policy=policy, seed=seed).chosen_peer for seed in range(20)} == {"a"}


def test_without_nearness_the_best_is_always_first() -> None:
    """However close the next one is."""
    policy = Policy(name="exact", scorer=CompletionTime(), near=0.0)
    peers = [peer("a", decode=9.99), peer("b", decode=10.0)]
    assert {decide(peers, policy=policy, seed=seed).chosen_peer for seed in range(20)} == {"b"}


# ---- completion time ----


def test_the_terms_of_a_prediction() -> None:
    """By hand: 100 tokens in at 50/s, 100 out at 10/s, behind four others in two slots."""
    one = attrs.evolve(
        peer(
            "a",
            prefill=50.0,
            decode=10.0,
            load=Load(slots=2, busy=2, queued=1, queued_prompt_tokens=60, queue_limit=9),
        ),
        rtt=0.02,
        breakers={"llama": Breaker(failures=1, until=NOW)},
        sent_since_report=1,
        prompt_tokens_since_report=40,
    )
    decision = decide([one], attrs.evolve(ASK, cached_tokens={PeerId("a"): 80}))
    terms = {name: term(decision, "a", name) for name in decision.term_names}
    assert terms == pytest.approx(
        {
            "rtt": 0.02,
            "load": 0.0,
            # (60 + 40) / 50 s of prompts; two half over, one queued and one of ours make 300
            # tokens, of which 5 of 6 come before this one, at 2 * 10 / 1.5 a second
            "queue": 2.0 + 300 * 5 / 6 * 1.5 / 20,
            "prefill": 2.0,
            "cached": -1.6,
            # two side by side, each half as fast again
            "decode": 15.0,
            "penalty": 2.0,
        }
    )
    assert score(decision, "a") == pytest.approx(0.02 + 20.75 + 2.0 - 1.6 + 15.0 + 2.0)
    assert term(decision, "a", "cpu") is None


def test_a_fast_peer_is_worth_a_queue() -> None:
    """Seconds decide, not counts: twenty times as fast with three ahead of us is faster."""
    fast = peer("fast", prefill=2000.0, decode=200.0, load=Load(busy=1, queued=2, queue_limit=9))
    idle = peer("idle", prefill=100.0, decode=10.0)
    assert decide([idle, fast]).chosen_peer == "fast"
    assert decide([idle, fast], policy=POLICIES["least-requests"]).chosen_peer == "idle"


def test_a_measured_rate_is_believed_over_a_claim() -> None:
    """After one answer a boast is worth twice what it shows, after three nothing."""
    boast, found = peer("boast", decode=4.0, prefill=4.0), []
    for samples in (1, 2, 3):
        rates = Rates(decode=1.0, decode_samples=samples, prefill=1.0, prefill_samples=samples)
        found.append(seconds(attrs.evolve(boast, rates={"llama": rates})))
    assert found == pytest.approx([100.01, 100.01, 200.01])


@pytest.mark.parametrize(("claim", "factor"), [(4.0, 1), (4.1, 3), (1e6, 3), (None, 1)])
def test_who_was_found_far_slower_than_it_claims_is_charged_for_it(
    claim: float | None, factor: int
) -> None:
    """Twice what the request itself takes there: its word on its queue is worth no more."""
    rates = Rates(decode=1.0, decode_samples=3, prefill=1.0, prefill_samples=3)
    one = peer("one", decode=claim, prefill=claim, rates={"llama": rates})
    assert seconds(one) == pytest.approx(200 * factor + 0.01)


def test_engines_that_died_count_whatever_was_answered_since() -> None:
    """Two seconds each, where the breaker is closed; where it is not, whichever are more."""
    one = peer("one")
    assert seconds(attrs.evolve(one, engine_deaths=1.5)) == pytest.approx(seconds(one) + 3.0)
    breakers: dict[str | None, Breaker] = {"llama": Breaker(failures=2, until=NOW - 1.0)}
    both = attrs.evolve(one, engine_deaths=1.5, breakers=breakers)
    assert seconds(both) == pytest.approx(seconds(one) + 4.0)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"asked_at": NOW - 30.0}, "fragile"),
        ({"asked_at": NOW - 29.0}, "steady"),
        ({"asked_at": NOW - 30.0, "engine_deaths": 0.4, "rtt": 0.5}, "steady"),
        ({"asked_at": NOW - 30.0, "rtt": 2.0}, "steady"),
        ({"asked_at": NOW - 30.0, "in_flight": 1}, "steady"),
    ],
)
def test_a_peer_whose_engine_died_is_asked_again_after_a_while(
    changes: dict[str, Any], chosen: str
) -> None:
    """One request each half minute finds out, if the peer is no slower for it by itself."""
    fragile = peer("fragile", **({"engine_deaths": 3.0} | changes))
    assert decide([peer("steady"), fragile]).chosen_peer == chosen
    again = POLICIES["completion-time"].decide(
        ASK, [peer("steady"), fragile], now=NOW, rng=Random(0), reason="continuation"
    )
    assert again.chosen_peer == "steady"


def test_a_boast_is_capped_near_what_the_pool_shows() -> None:
    """A liar with 1e9 tokens a second is taken for four times the best, and no more."""
    rates = Rates(decode=10.0, decode_samples=3, prefill=100.0, prefill_samples=3)
    pool = [peer("liar", decode=1e9, prefill=1e9), peer("honest", rates={"llama": rates})]
    decision = decide(pool, policy=exact(CompletionTime()))
    assert term(decision, "liar", "decode") == pytest.approx(100 / 40)
    assert term(decision, "liar", "prefill") == pytest.approx(100 / 400)


def test_our_own_requests_keep_us_from_herding() -> None:
    """Until it reports, what we sent is all we know of its queue."""
    peers, chosen = [peer(name) for name in "abc"], []
    for _ in range(9):
        best = decide(peers, policy=Policy(name="t", scorer=CompletionTime(), near=0.0)).chosen_peer
        chosen.append(best)
        peers = [
            attrs.evolve(p, sent_since_report=p.sent_since_report + (p.peer_id == best))
            for p in peers
        ]
    assert Counter(chosen) == {"a": 3, "b": 3, "c": 3}


def test_an_unmeasured_peer_is_neither_first_nor_last() -> None:
    """It attracts nobody, and yet it is tried."""
    measured = [
        peer(name, decode=rate, prefill=10 * rate)
        for name, rate in {"a": 5, "b": 10, "c": 20}.items()
    ]
    decision = decide(
        [*measured, peer("new", prefill=None, decode=None)], policy=exact(CompletionTime())
    )
    assert order(decision).index(PeerId("new")) in {1, 2}


@given(
    speeds=st.lists(
        st.tuples(st.floats(10.0, 5000.0), st.floats(1.0, 200.0)), min_size=1, max_size=6
    )
)
def test_an_unmeasured_peer_is_taken_for_one_in_the_middle(
    speeds: list[tuple[float, float]],
) -> None:
    """It scores between the best and the worst of those it is compared with."""
    known = [peer(f"p{i}", prefill=p, decode=d) for i, (p, d) in enumerate(speeds)]
    new = peer("new", prefill=None, decode=None)
    decision = decide([*known, new], policy=exact(CompletionTime()))
    for name in ("prefill", "decode"):
        terms = [term(decision, p.peer_id, name) or 0.0 for p in known]
        between = term(decision, "new", name) or 0.0
        assert min(terms) * 0.999 <= between <= max(terms) * 1.001


def test_where_nobody_was_measured_the_least_busy_is_first() -> None:
    """Everybody is taken for the same modest laptop."""
    new = [peer(name, prefill=None, decode=None) for name in "ab"]
    busier = with_load(new[0], busy=1)
    assert order(decide([busier, new[1]], policy=exact(CompletionTime()))) == ("b", "a")


Worse = Callable[[PeerRecord, int], PeerRecord]


def further(peer: PeerRecord, n: int, *, queued: int = 0, busy: int = 0) -> PeerRecord:
    """*peer* with *n* requests that were not there, as its report and our own count have them.

    By the report alone they could be those of ours that it left out: that is no more work.
    """
    load = peer.capability.load
    reported = with_load(peer, queued=load.queued + queued, busy=load.busy + busy)
    return attrs.evolve(reported, in_flight=peer.in_flight + n)


WORSE: dict[str, Worse] = {
    "a longer queue": lambda p, n: further(p, n, queued=n),
    "more busy slots": lambda p, n: further(p, n, busy=n),
    "more prompts ahead": lambda p, n: with_load(
        p, queued_prompt_tokens=p.capability.load.queued_prompt_tokens + n
    ),
    "more of ours": lambda p, n: attrs.evolve(
        p, in_flight=p.in_flight + n, sent_since_report=p.sent_since_report + n
    ),
    "more in flight": lambda p, n: attrs.evolve(p, in_flight=p.in_flight + n),
    "a longer way": lambda p, n: attrs.evolve(p, rtt=(0.05 if p.rtt is None else p.rtt) + n),
    "more answers ahead": lambda p, n: with_load(
        p, output_tokens_left=(p.capability.load.output_tokens_left or 10_000) + n
    ),
    "more answers of ours": lambda p, n: attrs.evolve(
        p,
        in_flight=p.in_flight + 1,
        sent_since_report=p.sent_since_report + 1,
        output_tokens_since_report=(p.output_tokens_since_report or 10_000) + n,
    ),
    "more faults": lambda p, n: attrs.evolve(
        p, breakers={None: Breaker(failures=p.failures + n, until=0.0)}
    ),
    "slower rates": lambda p, n: with_rates(p, 1 / (1 + n)),
}


@given(request=route_requests, peers=peer_tables(min_size=1), n=st.integers(1, 9), data=st.data())
def test_what_is_worse_never_helps(
    request: RouteRequest, peers: list[PeerRecord], n: int, data: st.DataObject
) -> None:
    """The peer is not predicted to be faster by it, and never stands before one it stood behind.

    Peers without a rate are left out: they are taken for the median of the others, so that the
    slowness of one moves them too.
    """
    peers = [p for p in peers if _is_measured(p, request)]
    if not peers:
        return
    i = data.draw(st.integers(0, len(peers) - 1))
    me = peers[i].peer_id
    before = decide(peers, request, exact(CompletionTime()))
    for name, worse in WORSE.items():
        note(f"worse by {name}")
        changed = [*peers[:i], worse(peers[i], n), *peers[i + 1 :]]
        after = decide(changed, request, exact(CompletionTime()))
        assert score(after, me) >= score(before, me)
        assert order(after).index(me) >= order(before).index(me)


@pytest.mark.parametrize("place", ["busy", "queued"])
@given(
    in_flight=st.integers(1, 9),
    left=st.sampled_from([0, 500]),
    sent=st.integers(0, 9),
    data=st.data(),
)
def test_a_report_that_names_ours_at_last_is_no_further_load(
    place: str, in_flight: int, left: int, sent: int, data: st.DataObject
) -> None:
    """Until then each counts as a whole answer; one that runs is half over."""
    hidden = max(0, in_flight - sent)
    named = data.draw(st.integers(0, hidden))
    silent = peer("a", load=Load(slots=2, queue_limit=9, output_tokens_left=left))
    silent = attrs.evolve(silent, in_flight=in_flight, sent_since_report=sent)
    policy = exact(CompletionTime())
    before = score(decide([silent], policy=policy), "a")
    after = score(decide([with_load(silent, **{place: named})], policy=policy), "a")
    assert after <= before or after == pytest.approx(before)


def _is_measured(one: PeerRecord, request: RouteRequest) -> bool:
    """Whether something is known of its speed, if it has the model."""
    offers = [c.offer for c in one.candidates(request.model, request.model_digest, request.offer)]
    return all(offer.prefill_rate is not None and offer.decode_rate is not None for offer in offers)


@given(request=route_requests, peers=peer_tables(min_size=1), n=st.integers(1, 9))
def test_a_longer_queue_never_helps_to_have_the_fewest_requests(
    request: RouteRequest, peers: list[PeerRecord], n: int
) -> None:
    """Nor do requests of ours."""
    me = peers[0].peer_id
    before = decide(peers, request, exact(LeastRequests()))
    for name in ("a longer queue", "more busy slots", "more of ours", "more in flight"):
        after = decide([WORSE[name](peers[0], n), *peers[1:]], request, exact(LeastRequests()))
        assert order(after).index(me) >= order(before).index(me)


@given(request=route_requests, peers=peer_tables(min_size=1), n=st.integers(1, 5000))
def test_more_in_the_cache_never_hurts(
    request: RouteRequest, peers: list[PeerRecord], n: int
) -> None:
    """And changes nothing where affinity is left out."""
    me = peers[0].peer_id
    cold = decide(peers, request, exact(CompletionTime()))
    held = {candidate.id: n for candidate in cold.order if candidate.peer_id == me}
    warm = attrs.evolve(request, cached_tokens=held)
    hit = decide(peers, warm, exact(CompletionTime()))
    assert score(hit, me) <= score(cold, me)
    assert order(hit).index(me) <= order(cold).index(me)
    blind = exact(CompletionTime(affinity=False))
    assert decide(peers, warm, blind).order == decide(peers, request, blind).order


def test_a_cache_yields_when_its_owner_is_busy() -> None:
    """Twenty seconds of prompt are worth a short queue, and not a long one."""
    ask = attrs.evolve(ASK, prompt_tokens=2000, cached_tokens={PeerId("warm"): 1990})
    for queued, chosen in ((0, "warm"), (1, "warm"), (3, "cold")):
        warm = peer("warm", load=Load(slots=1, busy=1, queued=queued, queue_limit=9))
        assert decide([warm, peer("cold")], ask).chosen_peer == chosen


def test_a_peer_that_fails_fast_does_not_look_fast() -> None:
    """Half of its attempts are lost: each answer costs one more attempt of the usual length."""
    sink = peer("sink", decode=20.0, fault_share=0.5)
    decision = decide([sink, peer("a"), peer("b")], policy=exact(CompletionTime()))
    assert term(decision, "sink", "penalty") == pytest.approx(11.01)
    assert order(decision)[-1] == "sink"


@given(shares=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2))
def test_more_faults_among_the_attempts_never_help(shares: list[float]) -> None:
    """However many."""
    least, most = (
        decide([peer("a", fault_share=share), peer("b"), peer("c")], policy=exact(CompletionTime()))
        for share in sorted(shares)
    )
    assert score(least, "a") <= score(most, "a")


# ---- the gate ----

PLAIN = attrs.evolve(POLICIES["completion-time"], near=0.0, explore=0.0)


def crowd(*queues: int, **changes: Any) -> list[PeerRecord]:
    """Peers of one slot with so many requests each, a, b, c and so on."""
    return [
        peer(name, load=Load(busy=min(1, n), queued=max(0, n - 1), queue_limit=99), **changes)
        for name, n in zip("abcdefghijkl", queues, strict=False)
    ]


def test_a_hot_peer_gives_way() -> None:
    """The longest queue of ten looks a little faster, and nine others are as good for it."""
    peers = crowd(2, *[1] * 9)
    fast = with_rates(peers[0], 1.8)
    assert decide([fast, *peers[1:]], policy=attrs.evolve(PLAIN, gate=None)).chosen_peer == "a"
    decision = decide([fast, *peers[1:]], policy=PLAIN)
    assert decision.chosen_peer == "b"
    assert decision.hot == {"a"}
    assert [c.peer_id for c in decision.candidates() if c.hot] == ["a"]


def test_a_hot_peer_that_is_worth_it_is_chosen_all_the_same() -> None:
    """Unlike peers hold unlike numbers: one may be faster with a queue than all others idle."""
    peers = crowd(3, *[0] * 9)
    assert decide([with_rates(peers[0], 20.0), *peers[1:]], policy=PLAIN).chosen_peer == "a"


@given(queues=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_few_are_hot_and_only_with_a_queue(queues: list[int]) -> None:
    """At most a sixth of the pool, and nobody with a free slot."""
    decision = decide(crowd(*queues), policy=PLAIN)
    assert len(decision.hot) <= len(queues) * 0.16
    assert all(found(decision, p).present >= 1 for p in decision.hot)


# ---- peers that nobody has measured ----

KNOWN = {"llama": Rates(decode=10.0, decode_samples=9, prefill=100.0, prefill_samples=9)}
EXPLORING = attrs.evolve(PLAIN, explore=0.05)


def test_an_unmeasured_peer_is_explored_now_and_then() -> None:
    """One decision in twenty, though it is predicted to be slower."""
    peers = [peer("a", rates=KNOWN), peer("new", decode=5.0)]
    found = [decide(peers, policy=EXPLORING, seed=seed) for seed in range(1000)]
    explored = [d for d in found if d.explored]
    assert {d.chosen_peer for d in explored} == {"new"}
    assert {d.chosen_peer for d in found if not d.explored} == {"a"}
    assert 25 <= len(explored) <= 80


@pytest.mark.parametrize(
    "changes", [{"in_flight": 1}, {"decode": 1.0, "prefill": 10.0}, {"rates": KNOWN, "rtt": 1.0}]
)
def test_exploring_has_its_bounds(changes: dict[str, Any]) -> None:
    """One probe at a time, none that takes four times as long, none of what is measured."""
    peers = [peer("a", rates=KNOWN), peer("b", **changes)]
    assert not any(decide(peers, policy=EXPLORING, seed=seed).explored for seed in range(300))


def test_a_boast_gets_no_more_of_our_requests_than_it_has_slots() -> None:
    """Until it is measured; where nobody else is there it gets them all the same."""
    liar = peer("liar", decode=1e9, load=Load(slots=2, queue_limit=99))
    honest = peer("honest", rates=KNOWN)
    chosen = [
        decide([attrs.evolve(liar, in_flight=n), honest], policy=EXPLORING).chosen_peer
        for n in range(4)
    ]
    assert chosen == ["liar", "liar", "honest", "honest"]
    assert decide([attrs.evolve(liar, in_flight=9)], policy=EXPLORING).chosen_peer == "liar"


# ---- two choices, and prefix affinity ----


def test_of_two_that_are_drawn_the_less_busy_one_is_chosen() -> None:
    """The busiest of all never is, and the others are."""
    peers = crowd(0, 1, 2, 3)
    policy = POLICIES["two-choices"]
    chosen = Counter(decide(peers, policy=policy, seed=seed).chosen_peer for seed in range(600))
    assert set(chosen) == {"a", "b", "c"}
    a, b, c = (chosen[PeerId(name)] for name in "abc")
    assert a > b > c


@pytest.mark.parametrize(
    ("queues", "cached", "chosen"),
    [
        ((2, 0, 0), {"a": 60}, {"a"}),
        ((2, 0, 0), {"a": 60, "b": 90}, {"b"}),
        ((2, 0, 1), {"a": 40}, {"b"}),
        ((5, 0, 1), {"a": 90}, {"b"}),
    ],
)
def test_prefix_affinity_follows_the_cache_while_the_load_is_even(
    queues: tuple[int, ...], cached: dict[str, int], chosen: set[str]
) -> None:
    """The longest prefix of at least half the prompt; otherwise the fewest requests."""
    ask = attrs.evolve(ASK, cached_tokens={PeerId(p): n for p, n in cached.items()})
    policy = POLICIES["prefix-affinity"]
    assert {decide(crowd(*queues), ask, policy, seed).chosen_peer for seed in range(20)} == chosen


# ---- pending jobs and pressure ----


def under_pressure(name: str, pending: int, **measured: Any) -> PeerRecord:
    """A peer with so many requests, whose machine measures itself."""
    (one,) = crowd(pending)
    return attrs.evolve(
        one, peer_id=PeerId(name), capability=attrs.evolve(one.capability, **measured)
    )


# By the rule as it is published; the thresholds of the classes are ours, since it names none.
@pytest.mark.parametrize(
    ("pending", "cpu_usage", "gpu_usage", "golden"),
    [
        (0, None, None, 0.0),
        (3, 0.0, None, 3.0),
        (3, 0.49, 0.1, 3.0),
        (3, 0.5, 0.1, 4.0),
        (3, 0.1, 0.75, 5.0),
        (3, 0.2, 0.9, 6.0),
        (0, 1.0, 1.0, 3.0),
        (7, None, 1.0, 10.0),
    ],
)
def test_the_golden_scores_of_pending_jobs_and_pressure(
    pending: int, cpu_usage: float | None, gpu_usage: float | None, golden: float
) -> None:
    """Jobs plus a class from 0 to 3, of the busiest part of the machine."""
    gpus = () if gpu_usage is None else (Gpu(name="g", total_bytes=1, usage=gpu_usage),)
    one = under_pressure("a", pending, cpu_usage=cpu_usage, gpus=gpus)
    policy = POLICIES["pending-and-pressure"]
    assert score(decide([one], policy=policy), "a") == golden


def test_of_equal_jobs_and_pressure_the_smaller_id_is_chosen_always() -> None:
    """However much faster the other one is, and whatever the order of the table."""
    policy = POLICIES["pending-and-pressure"]
    a, b = crowd(1, 1)
    fast = with_rates(b, 5.6)
    for seed in range(10):
        assert order(decide([fast, a], policy=policy, seed=seed)) == ("a", "b")
    busier = under_pressure("a", 1, cpu_usage=0.6)
    assert order(decide([busier, fast], policy=policy)) == ("b", "a")
    assert (
        order(decide([under_pressure("a", 1, cpu_usage=0.6), *crowd(2, 3)[1:]], policy=policy))[0]
        == "a"
    )


# ---- round-robin ----


@given(count=st.integers(1, 7), rounds=st.integers(1, 4), first=st.integers(0, 1 << 40))
def test_round_robin_visits_all_evenly(count: int, rounds: int, first: int) -> None:
    """Each peer once a round, from wherever it starts and in whatever order the table is."""
    peers = [peer(f"p{i}") for i in reversed(range(count))]
    chosen = [
        decide(peers, attrs.evolve(ASK, serial=first + turn), POLICIES["round-robin"]).chosen_peer
        for turn in range(rounds * count)
    ]
    assert Counter(chosen) == {f"p{i}": rounds for i in range(count)}
    assert chosen[:count] * rounds == chosen


def test_round_robin_skips_who_may_not_be_asked() -> None:
    """The others share the turns."""
    peers = [peer("a"), peer("b", resting_until=NOW + 1), peer("c")]
    policy = POLICIES["round-robin"]
    chosen = [decide(peers, attrs.evolve(ASK, serial=i), policy).chosen_peer for i in range(4)]
    assert chosen == ["a", "c", "a", "c"]


def test_round_robin_of_nobody_is_nothing() -> None:
    """There is no turn to count."""
    assert RoundRobin().terms(ASK, [], Random(0)) == []


def test_chance_takes_everybody() -> None:
    """About as often."""
    peers = [peer(name) for name in "abcd"]
    chosen = Counter(
        decide(peers, policy=POLICIES["random"], seed=s).chosen_peer for s in range(400)
    )
    assert set(chosen) == set("abcd")
    assert min(chosen.values()) > 60


# ---- one's own ----


@attrs.frozen
class Alphabet:
    """A scorer that a user wrote: the last name wins."""

    term_names: tuple[str, ...] = ("letter",)
    unit: str = "letters"
    lowest_is_best: bool = False

    def terms(
        self, request: RouteRequest, candidates: Sequence[Candidate], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """The place of the first letter."""
        return [(float(ord(one.peer_id[0]) - ord("a")),) for one in candidates]


def test_a_scorer_of_ones_own_decides() -> None:
    """A class with four members is enough."""
    policy = Policy(name="alphabet", scorer=Alphabet(), near=0.0)
    decision = decide([peer("a"), peer("c"), peer("b")], policy=policy)
    assert (order(decision), decision.unit, decision.policy) == (
        ("c", "b", "a"),
        "letters",
        "alphabet",
    )
    assert term(decision, "c", "letter") == 2.0


def test_a_filter_of_ones_own_removes_and_explains() -> None:
    """Beside the standard ones, which still hold."""
    no_vowels = Filter(
        name="vowels",
        keep=lambda request, peers, now: [p for p in peers if p.peer_id not in set("aeiou")],
        why=lambda request, one, now: f"{one.peer_id} is a vowel",
    )
    policy = Policy(
        name="consonants", scorer=CompletionTime(), filters=(*STANDARD_FILTERS, no_vowels)
    )
    decision = decide([peer("a"), peer("b"), peer("c", seen_at=0.0)], policy=policy)
    assert order(decision) == ("b",)
    assert {c.peer_id: (c.removed_by, c.reason) for c in decision.candidates()} == {
        "b": (None, None),
        "a": ("vowels", "a is a vowel"),
        "c": ("fresh", "was last heard of 1000.0 s ago; the limit is 5 s"),
    }


# ---- what routing sees of a request ----


def test_what_is_to_be_routed_is_taken_from_the_request() -> None:
    """Everything that a filter or a scorer may look at, and no text."""
    request = CommandRequest(
        request_id="r1",
        model="llama",
        model_digest="a" * 64,
        messages=(ChatMessage(role="user", content="x" * 350),),
        sampling=Sampling(max_tokens=50),
        strict=True,
    )
    assert route_request(request, tried=frozenset({PeerId("a")}), serial=7) == RouteRequest(
        model="llama",
        model_digest="a" * 64,
        command="chat",
        prompt_tokens=101,
        output_tokens=50,
        max_tokens=50,
        strict=True,
        tried=frozenset({PeerId("a")}),
        serial=7,
    )


@pytest.mark.parametrize(("limit", "expected"), [(None, 200), (10_000, 200), (1, 1)])
def test_an_answer_is_taken_to_be_of_usual_length(limit: int | None, expected: int) -> None:
    """A limit shortens it; a generous one does not lengthen it."""
    request = CommandRequest(request_id="r1", prompt="x", sampling=Sampling(max_tokens=limit))
    assert route_request(request).output_tokens == expected


def test_a_prompt_is_rather_over_than_underestimated() -> None:
    """By bytes, as said: a character that is no ASCII is a token or nearly one."""
    request = CommandRequest(request_id="r1", command="complete", prompt="統" * 350)
    assert route_request(request).prompt_tokens >= 300


def test_text_to_go_on_from_is_part_of_the_prompt() -> None:
    """The next peer must read what the last one wrote."""
    request = CommandRequest(
        request_id="r1", command="complete", prompt="x", continuation="y" * 350
    )
    assert route_request(request).prompt_tokens >= 100
