"""Whom next, or give up: the whole of failing over, without a network and without a clock."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.capability import Capability, Load, ModelOffer, PeerId
from punch.exceptions import (
    AnswerInterrupted,
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    NoPeerAvailable,
    NoRealPeer,
    PeerFailed,
    PeerRefused,
    PeerSimulated,
    PeerTimeout,
    PeerUnable,
    PeerUnreachable,
    PunchError,
    RequestCancelled,
    RequestConflict,
    RequestError,
    UnknownModel,
)
from punch.peers import PeerRecord, Rates
from punch.routing import (
    POLICIES,
    Attempts,
    Budget,
    Decision,
    FailedAttempt,
    GiveUp,
    Presence,
    RouteRequest,
    Try,
    Wait,
)
from punch.routing import _attempts as limits

PEER_FAULTS = [PeerUnreachable, PeerTimeout, PeerRefused, PeerFailed, PeerSimulated]
CALLER_FAULTS = [InvalidRequest, ContextTooLong, RequestConflict, RequestCancelled]
ASK = RouteRequest(model="llama", prompt_tokens=100, output_tokens=100)


def peer(
    peer_id: str,
    *,
    model: str = "llama",
    simulated: bool = False,
    context: int | None = None,
    load: Load | None = None,
    **changes: Any,
) -> PeerRecord:
    """A peer that can answer; they are asked in the order of the alphabet, which is their rtt."""
    offer = ModelOffer(name=model, prefill_rate=100.0, decode_rate=10.0, context_tokens=context)
    return PeerRecord(
        peer_id=PeerId(peer_id),
        capability=Capability.of_one_lane(
            backend="b", simulated=simulated, models=(offer,), load=load or Load(slots=4)
        ),
        incarnation=1,
        sequence=1,
        **({"seen_at": 0.0, "rtt": 0.01 * ord(peer_id[0])} | changes),
    )


def decide(
    *peers: PeerRecord, attempts: Attempts | None = None, request: RouteRequest = ASK
) -> Decision:
    """The decision that the router would make now."""
    policy = attrs.evolve(POLICIES["completion-time"], near=0.0)
    tried = attempts.tried() if attempts is not None else frozenset()
    return policy.decide(attrs.evolve(request, tried=tried), peers, now=0.0, rng=Random(0))


def step(
    attempts: Attempts,
    *peers: PeerRecord,
    now: float = 0.0,
    budget: Budget | None = None,
    **changes: Any,
) -> Try | Wait | GiveUp:
    """Decide, and see what comes next; a wait for a lost peer is waited to its end."""
    request = attrs.evolve(ASK, **changes)
    decision = decide(*peers, attempts=attempts, request=request)
    found = attempts.next_step(decision, now=now, budget=budget)
    while isinstance(found, Wait):
        assert now < found.until
        now = found.until
        found = attempts.next_step(decision, now=now, budget=budget)
    return found


def error_of(found: Any) -> PunchError:
    """What the caller is told."""
    assert isinstance(found, GiveUp)
    return found.error


def fail_all(
    attempts: Attempts, *peers: PeerRecord, error: PunchError, **changes: Any
) -> list[str]:
    """Ask one peer after the other, all of which fail; returns who was asked."""
    asked: list[str] = []
    while isinstance(found := step(attempts, *peers, **changes), Try):
        asked.append(found.peer_id)
        attempts.failed(found.peer_id, error, seconds=1.0)
        assert len(asked) <= len(peers), "a peer is asked again and again"
    return asked


# ---- whom next ----


def test_the_best_peer_is_asked_first() -> None:
    """And nobody has been tried before."""
    attempts = Attempts(deadline=100.0)
    found = step(attempts, peer("b"), peer("a"))
    assert isinstance(found, Try)
    assert (found.peer_id, found.reason) == ("a", "first")
    assert (attempts.failed_attempts, attempts.tried()) == ((), frozenset())


@pytest.mark.parametrize("fault", PEER_FAULTS)
def test_the_fault_of_a_peer_moves_the_request_on(fault: type[PunchError]) -> None:
    """To the next best, never to the same one."""
    attempts, peers = Attempts(deadline=100.0), [peer("a"), peer("b")]
    error = fault("went wrong")
    attempts.failed(PeerId("a"), error, seconds=0.5)
    found = step(attempts, *peers)
    assert isinstance(found, Try)
    assert (found.peer_id, found.reason) == ("b", "failover")
    assert attempts.failed_attempts == (
        FailedAttempt(peer_id=PeerId("a"), error=error, seconds=0.5),
    )


@given(names=st.sets(st.sampled_from("abcdefgh"), max_size=8), limit=st.integers(1, 9))
def test_no_peer_is_asked_twice(names: set[str], limit: int) -> None:
    """Each in turn, best first, up to the limit, and then it ends."""
    attempts = Attempts(deadline=100.0, limit=limit)
    peers = [peer(name) for name in names]
    asked = fail_all(attempts, *peers, error=PeerUnreachable("gone"))
    assert asked == sorted(names)[:limit]
    assert attempts.tried() == frozenset(asked)


def test_a_peer_that_comes_up_in_between_is_asked_too() -> None:
    """Each step looks at the table as it is then."""
    attempts = Attempts(deadline=100.0)
    attempts.failed(PeerId("a"), PeerUnreachable("gone"), seconds=0.1)
    found = step(attempts, peer("a"), peer("z"))
    assert isinstance(found, Try)
    assert found.peer_id == "z"


# ---- when to stop ----


def ends(error: PunchError, *names: str, context: int | None = None) -> Attempts:
    """The attempts of a request that these peers object to."""
    attempts = Attempts(deadline=100.0)
    for name in names:
        attempts.failed(PeerId(name), error, seconds=0.1, context_tokens=context)
    return attempts


@pytest.mark.parametrize("fault", CALLER_FAULTS)
def test_one_peers_word_against_a_request_does_not_end_it(fault: type[PunchError]) -> None:
    """A second one is heard; if that says the same, the caller gets the very error."""
    error, peers = fault("your own"), [peer(name) for name in "abcd"]
    found = step(ends(error, "a"), *peers)
    assert isinstance(found, Try)
    assert found.peer_id == "b"
    assert error_of(step(ends(error, "a", "b"), *peers)) is error


@pytest.mark.parametrize("fault", [*CALLER_FAULTS, PeerUnable])
def test_where_only_one_peer_is_the_caller_hears_its_words(fault: type[PunchError]) -> None:
    """As the caller's fault, whatever it calls it."""
    error = error_of(step(ends(fault("no such field"), "a"), peer("a")))
    assert isinstance(error, RequestError)
    assert (error.message, error.retry_after) == ("no such field", None)


def test_two_lanes_of_one_peer_are_one_word() -> None:
    """Another peer is heard before a second lane, and two lanes are enough where there is none."""
    error = InvalidRequest("no")
    attempts = ends(error, "a")
    assert isinstance(found := step(attempts, peer("b")), Try)
    assert found.peer_id == "b"
    attempts = Attempts(deadline=100.0)
    for offer in ("one", "two"):
        attempts.failed(PeerId("a"), error, seconds=0.1, offer=offer)
    assert isinstance(step(attempts, peer("b")), Try)
    assert error_of(step(attempts)) is error


def test_the_second_word_is_that_of_a_peer_that_has_answered() -> None:
    """Not of the fastest by its own claim: two that lie should not have the last word."""
    known = peer("z", rates={"llama": Rates()})
    found = step(ends(InvalidRequest("no"), "a"), peer("b"), peer("c"), known)
    assert isinstance(found, Try)
    assert found.peer_id == "z"


def test_a_larger_context_is_asked_before_anybody_is_believed() -> None:
    """However many say that it is too long for them."""
    error = ContextTooLong("the prompt has 632 tokens and the context is 512")
    big = peer("z", context=2048)
    found = step(ends(error, "a", "b", "c", context=512), peer("d", context=512), big)
    assert isinstance(found, Try)
    assert found.peer_id == "z"


def test_a_prompt_that_fits_nobody_is_told_in_the_words_of_the_largest() -> None:
    """After one more try than is needed."""
    attempts = Attempts(deadline=100.0)
    small, large = ContextTooLong("9 of 4"), ContextTooLong("9 of 8")
    attempts.failed(PeerId("a"), small, seconds=0.1, context_tokens=4)
    attempts.failed(PeerId("b"), large, seconds=0.1, context_tokens=8)
    assert error_of(step(attempts, peer("c", context=8), peer("d", context=4))) is large


@pytest.mark.parametrize("fault", [PeerRefused, PeerFailed])
def test_an_unconfirmed_word_beside_a_failure_is_a_reason_and_no_verdict(
    fault: type[PunchError],
) -> None:
    """Asking again may help: nobody has agreed."""
    attempts = ends(InvalidRequest("no such field"), "a")
    attempts.failed(PeerId("b"), fault("broke"), seconds=0.1)
    error = error_of(step(attempts))
    assert type(error) is NoPeerAvailable
    assert error.reasons == {"a": "no such field", "b": "broke"}


def test_a_peer_that_is_busy_for_a_moment_is_waited_for_as_a_witness() -> None:
    """Its word may be another; one that is shutting down will have none."""
    attempts = ends(InvalidRequest("no"), "a")
    full = peer("b", load=Load(slots=1, busy=1))
    assert isinstance(attempts.next_step(decide(full, attempts=attempts), now=0.0), Wait)
    assert type(error_of(step(attempts, full))) is NoPeerAvailable
    leaving = peer("b", load=Load(slots=1, draining=True))
    assert isinstance(error_of(step(ends(InvalidRequest("no"), "a"), leaving)), InvalidRequest)


def test_an_objection_is_not_paid_for_from_the_budget_for_faults() -> None:
    """It is none, and the second word is what protects the caller."""
    attempts = ends(InvalidRequest("no"), "a")
    assert isinstance(step(attempts, peer("b"), budget=Budget(reserve=0.0, per_second=0.0)), Try)


def test_a_peer_that_started_anew_is_another_one() -> None:
    """What it had and what was wrong with it are gone with its process."""
    attempts, before = Attempts(deadline=100.0), Presence(incarnation=1, session="s1")
    attempts.failed(PeerId("a"), PeerFailed("out of memory"), seconds=0.1, presence=before)
    present: dict[PeerId, Presence] = {PeerId("a"): before}
    assert attempts.tried(present.get) == {"a"}
    present[PeerId("a")] = attrs.evolve(before, incarnation=2)
    assert attempts.tried(present.get) == frozenset()
    present.clear()
    assert attempts.tried(present.get) == {"a"}


@pytest.mark.parametrize(("fault", "again"), [(PeerUnreachable, True), (PeerFailed, False)])
def test_a_new_connection_is_worth_another_try_where_only_that_was_broken(
    fault: type[PunchError], again: bool
) -> None:
    """The peer itself was well, as far as anybody knows."""
    attempts, before = Attempts(deadline=100.0), Presence(incarnation=1, session="s1")
    attempts.failed(PeerId("a"), fault("gone"), seconds=0.1, presence=before)
    now = attrs.evolve(before, session="s2")
    assert attempts.tried({"a": now}.get) == (frozenset() if again else {"a"})


# ---- going on with a begun answer ----


def begun(digest: str | None = "d" * 64, **options: Any) -> Attempts:
    """The attempts of an answer that peer a has begun and lost."""
    attempts = Attempts(deadline=100.0, **options)
    attempts.delivered(tokens=3, characters=14, digest=digest)
    attempts.failed(PeerId("a"), PeerUnreachable("gone", peer_id="a"), seconds=3.0)
    return attempts


def test_after_the_first_text_another_peer_goes_on() -> None:
    """And it is said that it does."""
    found = step(begun(), peer("a"), peer("b"))
    assert isinstance(found, Try)
    assert (found.peer_id, found.reason) == ("b", "continuation")


@pytest.mark.parametrize(
    ("attempts", "why"),
    [
        (begun(continuable=False), "the request is not to be continued by another peer"),
        (begun(digest=None), "its model file or chat template is unknown"),
    ],
)
def test_an_answer_that_cannot_go_on_says_how_much_there_was(attempts: Attempts, why: str) -> None:
    """However many peers there are."""
    error = error_of(step(attempts, peer("a"), peer("b")))
    assert isinstance(error, AnswerInterrupted)
    assert (error.tokens, error.characters) == (3, 14)
    assert str(error).startswith(
        f"a failed after 3 tokens (14 characters) of the answer: gone; {why}"
    )


def test_an_answer_nobody_can_go_on_with_has_everybodys_reason() -> None:
    """As an answer that was never begun has."""
    error = error_of(step(begun(), peer("a"), peer("b", model="qwen")))
    assert isinstance(error, AnswerInterrupted)
    assert str(error).splitlines() == [
        "a failed after 3 tokens (14 characters) of the answer: gone; nobody could go on with it",
        "  b: does not offer llama; it offers qwen",
    ]


def test_a_deadline_in_the_middle_of_an_answer_says_how_much_there_was() -> None:
    """It may be of use."""
    assert str(error_of(step(begun(), peer("b"), now=100.0))) == (
        "the time ran out after 3 tokens (14 characters) of the answer (a: gone)"
    )


@pytest.mark.parametrize(
    ("attempts", "peers", "can"),
    [
        (begun(), "b", True),
        (begun(), "a", False),
        (begun(continuable=False), "b", False),
        (begun(digest=None), "b", False),
        (begun(limit=1), "b", False),
    ],
)
def test_a_slow_peer_is_given_up_only_where_somebody_could_go_on(
    attempts: Attempts, peers: str, can: bool
) -> None:
    """Otherwise its silence is waited out."""
    found = decide(*(peer(name) for name in peers), attempts=attempts)
    assert attempts.has_alternative(found) == can


@pytest.mark.parametrize(
    ("need", "why"),
    [
        ("tools", "an answer with tools, or held to a schema, cannot be gone on with half way"),
        ("json_schema", "an answer with tools, or held to a schema, cannot be gone on with"),
        ("logprobs", "the log-probabilities of what was delivered are lost with it"),
    ],
)
def test_an_answer_of_one_piece_is_not_gone_on_with(need: str, why: str) -> None:
    """Before its first text it moves on as any other; after it nobody is asked, nor sought."""
    request = attrs.evolve(ASK, needs=frozenset({need}))
    able = attrs.evolve(
        peer("b"),
        capability=Capability.of_one_lane(
            backend="llama_cpp",
            simulated=False,
            models=(ModelOffer(name="llama", features=frozenset({"chat", need})),),
        ),
    )
    fresh = Attempts(deadline=100.0)
    fresh.failed(PeerId("a"), PeerUnreachable("gone", peer_id="a"), seconds=3.0)
    found = fresh.next_step(decide(able, attempts=fresh, request=request), now=0.0)
    assert isinstance(found, Try)
    attempts = begun()
    decision = decide(able, attempts=attempts, request=request)
    assert not attempts.has_alternative(decision)
    error = error_of(attempts.next_step(decision, now=0.0))
    assert isinstance(error, AnswerInterrupted)
    assert str(error).startswith(
        f"a failed after 3 tokens (14 characters) of the answer: gone; {why}"
    )


# ---- waiting for a peer to come back ----


@pytest.mark.parametrize("fault", [PeerUnreachable, PeerTimeout])
def test_a_lost_peer_is_given_a_moment_to_come_back(fault: type[PunchError]) -> None:
    """Five seconds, looking four times a second; one that is back is asked."""
    attempts = Attempts(deadline=100.0)
    attempts.failed(PeerId("a"), fault("gone"), seconds=0.1)
    now, looks = 10.0, 0
    while isinstance(found := attempts.next_step(decide(attempts=attempts), now=now), Wait):
        now, looks = found.until, looks + 1
    assert (now, looks) == (15.0, 20)
    assert isinstance(found, GiveUp)
    back = attempts.next_step(decide(peer("b"), attempts=attempts), now=now)
    assert isinstance(back, Try)


@pytest.mark.parametrize("fault", [PeerRefused, PeerFailed, PeerSimulated])
def test_nobody_waits_where_no_peer_was_lost(fault: type[PunchError]) -> None:
    """They are all there, and have said no."""
    attempts = Attempts(deadline=100.0)
    attempts.failed(PeerId("a"), fault("no"), seconds=0.1)
    assert isinstance(attempts.next_step(decide(attempts=attempts), now=0.0), GiveUp)


def test_the_wait_for_a_lost_peer_ends_with_the_callers_time() -> None:
    """It is all there is."""
    attempts = Attempts(deadline=1.1)
    attempts.failed(PeerId("a"), PeerUnreachable("gone"), seconds=0.1)
    found = attempts.next_step(decide(attempts=attempts), now=1.0)
    assert found == Wait(until=1.1)


# ---- the budget ----


def test_a_network_where_everything_fails_is_not_hammered() -> None:
    """When the budget of all requests is spent, one try is all a request has."""
    budget = Budget(reserve=2.0, per_second=0.0)
    peers = [peer("a"), peer("b")]
    for expected in (Try, GiveUp):
        attempts = Attempts(deadline=100.0)
        assert isinstance(step(attempts, *peers, budget=budget), Try)
        failure = PeerFailed("out of memory", peer_id="a")
        failure.retry_after = 3.0
        attempts.failed(PeerId("a"), failure, seconds=0.1)
        budget.withdraw(0.0)
        found = step(attempts, *peers, budget=budget)
        assert isinstance(found, expected)
    error = error_of(found)
    assert str(error).splitlines()[1:] == ["  a: out of memory"]
    assert error.retry_after == 3.0


def test_going_on_with_a_begun_answer_is_always_paid() -> None:
    """Somebody has read half of it."""
    found = step(begun(), peer("b"), budget=Budget(reserve=0.0, per_second=0.0))
    assert isinstance(found, Try)


def test_no_more_tries_than_the_limit() -> None:
    """Who was not tried is said to be so."""
    attempts = Attempts(deadline=100.0, limit=2)
    peers = [peer(name) for name in "abc"]
    assert fail_all(attempts, *peers, error=PeerUnreachable("gone")) == ["a", "b"]
    error = error_of(step(attempts, *peers))
    assert isinstance(error, NoPeerAvailable)
    assert error.reasons == {"a": "gone", "b": "gone", "c": "was not tried"}


def test_eight_tries_are_enough() -> None:
    """Past them it is the network that is broken."""
    attempts = Attempts(deadline=100.0)
    peers = [peer(name) for name in "abcdefghij"]
    assert len(fail_all(attempts, *peers, error=PeerUnreachable("gone"))) == 8


@pytest.mark.parametrize("now", [100.0, 101.0])
def test_nothing_is_tried_after_the_deadline(now: float) -> None:
    """However many peers there are."""
    error = error_of(step(Attempts(deadline=100.0), peer("a"), now=now))
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "the time ran out before an answer"


def test_the_time_that_ran_out_was_spent_on_somebody() -> None:
    """The text says on whom, and what was wrong with each."""
    attempts = Attempts(deadline=100.0)
    attempts.failed(PeerId("a"), PeerTimeout("silent for 10 s"), seconds=10.0)
    attempts.failed(PeerId("b"), PeerRefused("is full"), seconds=0.1)
    assert str(error_of(step(attempts, peer("c"), now=100.0))) == (
        "the time ran out before an answer (a: silent for 10 s; b: is full)"
    )


# ---- what the caller is told ----


def test_an_empty_namespace_is_named_as_such() -> None:
    """There is nobody to give a reason for."""
    error = error_of(step(Attempts(deadline=100.0)))
    assert (type(error), str(error)) == (
        NoPeerAvailable,
        "no listener is known in this namespace",
    )


def test_an_unknown_model_comes_with_those_on_offer() -> None:
    """A typing error is seen at a glance."""
    peers = [peer("a", model="llama"), peer("b", model="qwen"), peer("c", model="llama")]
    error = error_of(step(Attempts(deadline=100.0), *peers, model="lama"))
    assert type(error) is UnknownModel
    assert str(error).splitlines() == [
        "no listener offers 'lama'; on offer: llama, qwen",
        "  a: does not offer lama; it offers llama",
        "  b: does not offer lama; it offers qwen",
        "  c: does not offer lama; it offers llama",
    ]


def test_an_unknown_digest_is_an_unknown_model() -> None:
    """The name alone is not what was asked for."""
    error = error_of(step(Attempts(deadline=100.0), peer("a"), model_digest="b" * 64))
    assert type(error) is UnknownModel
    assert str(error).startswith(f"no listener offers 'llama' with digest {'b' * 64}; on offer: ")


def test_strict_among_simulators_is_told_so() -> None:
    """Each of them is named."""
    peers = [peer(name, simulated=True) for name in "ab"]
    error = error_of(step(Attempts(deadline=100.0), *peers, strict=True))
    why = "simulates (backend b); strict mode takes real inference only"
    assert isinstance(error, NoRealPeer)
    assert error.reasons == {"a": why, "b": why}


def test_a_peer_that_hid_that_it_simulates_counts_as_one_that_says_so() -> None:
    """Found out by its answer, or known before: the caller is told the same."""
    attempts = Attempts(deadline=100.0)
    attempts.failed(PeerId("a"), PeerSimulated("its answer is simulated"), seconds=0.1)
    error = error_of(step(attempts, peer("a"), peer("b", simulated=True), strict=True))
    assert type(error) is NoRealPeer
    assert set(error.reasons) == {"a", "b"}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            {"resting_until": 2.0},
            "refused a request; left in peace for another 2.0 s",
        ),
        ({"seen_at": -9.0}, "was last heard of 9.0 s ago; the limit is 5 s"),
        ({"in_flight": 4}, "is full: 0 of 4 slots busy, 0 of 0 queued, 4 of them ours"),
    ],
)
def test_where_waiting_may_help_the_error_is_the_general_one(
    other: dict[str, Any], reason: str
) -> None:
    """A real peer with the model exists, so it is neither unknown nor only simulated."""
    peers = [peer("a", model="qwen"), peer("b", simulated=True), peer("c", **other)]
    error = error_of(step(Attempts(deadline=100.0), *peers, strict=True))
    assert type(error) is NoPeerAvailable
    assert error.reasons == {
        "a": "does not offer llama; it offers qwen",
        "b": "simulates (backend b); strict mode takes real inference only",
        "c": reason,
    }


def test_when_all_failed_each_says_why() -> None:
    """The fault itself, not that it was tried."""
    attempts, peers = Attempts(deadline=100.0), [peer("a"), peer("b")]
    attempts.failed(PeerId("a"), PeerUnreachable("no route"), seconds=0.1)
    attempts.failed(PeerId("b"), PeerFailed("out of memory"), seconds=0.1)
    error = error_of(step(attempts, *peers))
    assert str(error).splitlines() == [
        "no listener could answer",
        "  a: no route",
        "  b: out of memory",
    ]


def test_when_to_ask_again_is_the_earliest_that_a_peer_named() -> None:
    """Where nobody named a time, none is made up."""
    attempts, peers = Attempts(deadline=100.0), [peer("a"), peer("b"), peer("c")]
    for name, wait in (("a", 9.0), ("b", 4.0), ("c", None)):
        fault = PeerRefused("is full")
        fault.retry_after = wait
        attempts.failed(PeerId(name), fault, seconds=0.1)
    assert error_of(step(attempts, *peers)).retry_after == 4.0
    assert error_of(step(Attempts(deadline=100.0))).retry_after is None


@given(
    kinds=st.lists(
        st.sampled_from(["good", "simulated", "other model", "resting", "stale", "full"]),
        max_size=6,
    ),
    strict=st.booleans(),
    fault=st.sampled_from(PEER_FAULTS),
)
def test_the_last_error_accounts_for_every_peer(
    kinds: list[str], strict: bool, fault: type[PunchError]
) -> None:
    """Whatever they are: each has a reason, and those that were asked have their own fault."""
    changes: dict[str, dict[str, Any]] = {
        "good": {},
        "simulated": {"simulated": True},
        "other model": {"model": "qwen"},
        "resting": {"resting_until": 9.0},
        "stale": {"seen_at": -9.0},
        "full": {"in_flight": 4},
    }
    peers = [peer(name, **changes[kind]) for name, kind in zip("abcdef", kinds)]  # noqa: B905
    attempts = Attempts(deadline=100.0)
    asked = fail_all(attempts, *peers, error=fault("its fault"), strict=strict)
    error = error_of(step(attempts, *peers, strict=strict))
    assert isinstance(error, NoPeerAvailable)
    assert set(error.reasons) == {p.peer_id for p in peers}
    assert all((error.reasons[p.peer_id] == "its fault") == (p.peer_id in asked) for p in peers)
    simulators = {p.peer_id for p in peers if p.capability.simulated}
    if type(error) is UnknownModel:
        assert set(kinds) == {"other model"}
    if type(error) is NoRealPeer:
        assert set(error.reasons) - set(asked) <= simulators


# ---- patience ----


def patience(found: Try | Wait | GiveUp) -> float:
    """How long the peer may be silent."""
    assert isinstance(found, Try)
    return found.patience


def test_patience_follows_the_prediction() -> None:
    """Four times what is expected before the first text; the decoding comes after it."""
    slow = peer("a", rtt=4.0)
    assert patience(step(Attempts(deadline=1000.0), slow, prompt_tokens=600)) == pytest.approx(40.0)


def test_patience_has_a_least() -> None:
    """A fast peer may still hiccup."""
    assert patience(step(Attempts(deadline=1000.0), peer("a", rtt=0.001), prompt_tokens=1)) == (
        limits.MIN_PATIENCE_SECONDS
    )


def test_patience_never_outlasts_the_deadline() -> None:
    """The caller's time is all there is."""
    assert patience(step(Attempts(deadline=100.0), peer("a"), now=97.0)) == pytest.approx(3.0)


@pytest.mark.parametrize("policy", ["capability", "round-robin", "random", "least-requests"])
def test_where_nothing_is_predicted_patience_is_the_usual(policy: str) -> None:
    """Points and turns are no seconds."""
    decision = POLICIES[policy].decide(ASK, [peer("a")], now=0.0, rng=Random(0))
    assert patience(Attempts(deadline=1000.0).next_step(decision, now=0.0)) == (
        limits.DEFAULT_PATIENCE_SECONDS
    )


# ---- leaving a queue ----


def test_a_queue_is_left_only_for_something_quicker() -> None:
    """By a quarter at least, and twice at most."""
    attempts = Attempts(deadline=1000.0)
    found = decide(peer("b"))
    other = found.score(found.order[0])
    assert attempts.move(found, seconds=1.2 * other, now=0.0) is None
    for _ in range(limits.MAX_MOVES):
        moved = attempts.move(found, seconds=1.3 * other, now=0.0)
        assert moved is not None
        assert (moved.peer_id, moved.reason) == ("b", "move")
    assert attempts.move(found, seconds=100 * other, now=0.0) is None


def test_nobody_moves_to_nobody_or_by_turns() -> None:
    """There must be another peer, and seconds to compare."""
    attempts = Attempts(deadline=1000.0)
    assert attempts.move(decide(), seconds=100.0, now=0.0) is None
    turns = POLICIES["round-robin"].decide(ASK, [peer("a")], now=0.0, rng=Random(0))
    assert attempts.move(turns, seconds=100.0, now=0.0) is None
