"""Who may be asked at all, and what is said of those who may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from strategies import NOW, peer_tables, route_requests

from punch.capability import Capability, Lane, Load, ModelOffer, PeerId
from punch.peers import Breaker, Candidate, LaneRecord, PeerRecord, candidates_of
from punch.routing import FRESH_SECONDS, STANDARD_FILTERS, RouteRequest, route_request
from punch.routing.names import NO_WISHES
from punch.wire import CommandRequest

BY_NAME = {step.name: step for step in STANDARD_FILTERS}
LLAMA = ModelOffer(name="llama", digest="a" * 64, context_tokens=1000)
ANY = RouteRequest()
PEER = PeerRecord(
    peer_id=PeerId("p"),
    capability=Capability.of_one_lane(
        backend="llama_cpp", simulated=False, models=(LLAMA,), load=Load(slots=2)
    ),
    incarnation=1,
    sequence=1,
    seen_at=NOW,
)


def peer(*, load: dict[str, Any] | None = None, **changes: Any) -> PeerRecord:
    """A peer that passes everything, changed: in its load, its capability or its record."""
    fields = {field.name for field in attrs.fields(PeerRecord)}
    claim = {name: value for name, value in changes.items() if name not in fields}
    (lane,) = PEER.capability.lanes
    of_lane = {name: claim.pop(name) for name in list(claim) if hasattr(lane, name)}
    of_lane["load"] = attrs.evolve(lane.load, **(load or {}))
    claim["lanes"] = (attrs.evolve(lane, **of_lane),)
    own = {name: value for name, value in changes.items() if name in fields}
    return attrs.evolve(PEER, capability=attrs.evolve(PEER.capability, **claim), **own)


def broken(model: str | None = None, **breaker: Any) -> PeerRecord:
    """A peer that has failed."""
    return peer(breakers={model: Breaker(**breaker)})


def continuing_peer(**changes: Any) -> PeerRecord:
    """A peer that goes on with answers begun elsewhere."""
    plain = attrs.evolve(LLAMA, continues=True, chat_template="c" * 64)
    return peer(models=(attrs.evolve(plain, **changes),))


GOES_ON = RouteRequest(continuing=True, chat_template="c" * 64)
GOES_ON_PLAIN = attrs.evolve(GOES_ON, command="complete")


def of(one: PeerRecord, request: RouteRequest = ANY) -> Candidate:
    """The only candidate of a peer."""
    (candidate,) = one.candidates(request.model, request.model_digest, request.offer)
    return candidate


def all_of(peers: list[PeerRecord], request: RouteRequest) -> list[Candidate]:
    """The candidates of all peers."""
    return candidates_of(peers, request.model, request.model_digest, request.offer)


def passes(name: str, request: RouteRequest, one: PeerRecord) -> bool:
    """Whether the filter of this name keeps a peer."""
    candidate = of(one, request)
    return list(BY_NAME[name].keep(request, [candidate], NOW)) == [candidate]


def test_a_lane_that_rests_is_asked_only_where_nobody_else_is_left() -> None:
    """It may be well again; one that has failed for good is not asked at all."""
    other = attrs.evolve(REAL, id="second")
    models = (offer_of(REAL), offer_of(other))
    request = RouteRequest(model="llama")

    def judged(state: str, second: str) -> dict[str, str]:
        lanes = (attrs.evolve(REAL, state=state), attrs.evolve(other, state=second))
        return standing(
            request, attrs.evolve(PEER, capability=Capability(lanes=lanes, models=models))
        )

    assert judged("resting", "ready") == {"p/llama/llama": "state", "p/second/llama": ""}
    assert judged("resting", "failed") == {"p/llama/llama": "", "p/second/llama": "state"}
    assert judged("failed", "failed") == {"p/llama/llama": "state", "p/second/llama": "state"}


def test_the_standard_filters_and_their_order() -> None:
    """The first to remove a peer gives the reason, so the plainest reasons come first."""
    assert list(BY_NAME) == [
        "only",
        "privacy",
        "real",
        "tried",
        "fresh",
        "strict",
        "model",
        "features",
        "caps",
        "continuation",
        "state",
        "breaker",
        "resting",
        "slots",
        "context",
        "quick",
        "avoid",
        "prefer",
    ]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_healthy_peer_passes_every_filter(name: str) -> None:
    """The peer that the other tests change."""
    assert passes(name, ANY, PEER)
    assert passes(name, RouteRequest(model="llama", strict=True, prompt_tokens=900), PEER)


@pytest.mark.parametrize(
    ("name", "request_", "passing"),
    [
        ("tried", RouteRequest(tried=frozenset({PeerId("q")})), peer()),
        ("fresh", ANY, peer(seen_at=NOW - FRESH_SECONDS)),
        ("strict", ANY, peer(simulated=True)),
        ("model", RouteRequest(model_digest="a" * 64), peer()),
        ("context", RouteRequest(prompt_tokens=1 << 40), peer()),
        ("context", RouteRequest(prompt_tokens=1 << 40), peer(models=(ModelOffer(name="m"),))),
        ("continuation", GOES_ON, continuing_peer()),
        ("continuation", GOES_ON_PLAIN, continuing_peer(chat_template=None)),
        ("breaker", ANY, broken(failures=3, until=NOW)),
        ("breaker", ANY, broken("another model", failures=3, until=NOW + 9)),
        ("resting", ANY, peer(resting_until=NOW)),
        ("slots", ANY, peer(load={"busy": 1})),
        ("slots", ANY, peer(load={"busy": 2, "queued": 1, "queue_limit": 2})),
    ],
)
def test_the_limit_itself_passes(name: str, request_: RouteRequest, passing: PeerRecord) -> None:
    """Each filter, at its edge."""
    assert passes(name, request_, passing)


@pytest.mark.parametrize(
    ("name", "request_", "removed", "why"),
    [
        ("tried", RouteRequest(tried=frozenset({PeerId("p")})), peer(), "was already asked"),
        (
            "fresh",
            ANY,
            peer(seen_at=NOW - 7.25),
            "was last heard of 7.2 s ago; the limit is 5 s",
        ),
        (
            "strict",
            RouteRequest(strict=True),
            peer(simulated=True, backend="mock"),
            "simulates (backend mock); strict mode takes real inference only",
        ),
        (
            "model",
            RouteRequest(model="phi"),
            peer(models=(LLAMA, ModelOffer(name="qwen"))),
            "does not offer phi; it offers llama, qwen",
        ),
        (
            "model",
            RouteRequest(model="llama", model_digest="b" * 64),
            peer(),
            "does not offer llama with digest bbbbbbbbbbbb; it offers llama",
        ),
        ("model", ANY, peer(models=()), "does not offer any model; it offers none"),
        (
            "features",
            RouteRequest(command="embed"),
            peer(),
            "cannot embed; it can chat, complete",
        ),
        (
            "continuation",
            GOES_ON,
            continuing_peer(continues=False),
            "cannot go on with an answer that another peer began",
        ),
        (
            "continuation",
            GOES_ON_PLAIN,
            peer(),
            "cannot go on with an answer that another peer began",
        ),
        (
            "continuation",
            GOES_ON,
            continuing_peer(chat_template="d" * 64),
            "writes a conversation with chat template dddddddddddd; the answer was begun with "
            "cccccccccccc",
        ),
        (
            "continuation",
            GOES_ON,
            continuing_peer(chat_template=None),
            "writes a conversation with chat template unknown; the answer was begun with "
            "cccccccccccc",
        ),
        (
            "resting",
            ANY,
            peer(resting_until=NOW + 1.5),
            "refused a request; left in peace for another 1.5 s",
        ),
        ("slots", ANY, peer(load={"draining": True}), "is shutting down"),
        (
            "slots",
            ANY,
            peer(load={"busy": 2, "queued": 4, "queue_limit": 4}),
            "is full: 2 of 2 slots busy, 4 of 4 queued, 0 of them ours",
        ),
        (
            "slots",
            ANY,
            peer(sent_since_report=2, in_flight=2),
            "is full: 0 of 2 slots busy, 0 of 0 queued, 2 of them ours",
        ),
    ],
)
def test_who_is_removed_is_told_why(
    name: str, request_: RouteRequest, removed: PeerRecord, why: str
) -> None:
    """In a sentence, with the values."""
    assert not passes(name, request_, removed)
    assert BY_NAME[name].why(request_, of(removed, request_), NOW) == why


@given(request=route_requests, peers=peer_tables())
def test_a_filter_keeps_or_explains(request: RouteRequest, peers: list[PeerRecord]) -> None:
    """It keeps them in their order, changes none, and has a reason for each of the others."""
    candidates = all_of(peers, request)
    # All filters for one example: to draw it takes longer than to look at it.
    for step in STANDARD_FILTERS:
        note(f"filter: {step.name}")
        kept = list(step.keep(request, candidates, NOW))
        assert kept == [one for one in candidates if one in kept]
        for one in candidates:
            if one not in kept:
                assert step.why(request, one, NOW)


@given(request=route_requests, peers=peer_tables())
def test_a_filter_judges_each_peer_by_itself(
    request: RouteRequest, peers: list[PeerRecord]
) -> None:
    """Who else is there does not matter."""
    candidates = all_of(peers, request)
    for step in STANDARD_FILTERS:
        if step.name not in ("breaker", "real", "context"):
            note(f"filter: {step.name}")
            alone = [one for one in candidates if list(step.keep(request, [one], NOW))]
            assert list(step.keep(request, candidates, NOW)) == alone


# ---- breakers ----


@pytest.mark.parametrize(
    ("model", "breaker", "why"),
    [
        (None, {"failures": 2, "until": NOW + 1.5}, "left alone for another 1.5 s"),
        ("llama", {"failures": 2, "until": NOW + 1.5}, "left alone for another 1.5 s"),
        (
            "llama",
            {"failures": 2, "until": NOW - 1, "probing": True},
            "a single request is finding out whether it is well again",
        ),
    ],
)
def test_an_open_breaker_keeps_requests_away(
    model: str | None, breaker: dict[str, Any], why: str
) -> None:
    """That of the whole peer, or of the model asked for, if there is anybody else."""
    bad, well = broken(model, **breaker), peer(peer_id=PeerId("well"))
    assert list(BY_NAME["breaker"].keep(ANY, [of(bad), of(well)], NOW)) == [of(well)]
    assert BY_NAME["breaker"].why(ANY, of(bad), NOW) == f"failed 2 times in a row; {why}"


@given(peers=peer_tables(min_size=1), request=route_requests)
def test_when_every_breaker_is_open_none_counts(
    peers: list[PeerRecord], request: RouteRequest
) -> None:
    """Somebody must be asked; otherwise it removes exactly those that are open."""
    candidates = all_of(peers, request)
    kept = list(BY_NAME["breaker"].keep(request, candidates, NOW))
    alone = [one for one in candidates if one.breaker.admits(NOW)]
    assert kept == (alone or candidates)


def test_an_unknown_template_is_not_taken_to_be_the_same() -> None:
    """Two peers that do not say what they write with may write differently."""
    request = attrs.evolve(GOES_ON, chat_template=None)
    (step,) = (step for step in STANDARD_FILTERS if step.name == "continuation")
    assert step.keep(request, [of(continuing_peer(chat_template=None))], 0.0) == []
    # The caller's own beginning may go on with any template that is known.
    known = of(continuing_peer())
    assert step.keep(request, [known], 0.0) == [known]


def test_nobody_who_is_broken_is_better_than_somebody_who_works_on_it() -> None:
    """When all the others are open it fails open, but not for an alternative."""
    (step,) = (step for step in STANDARD_FILTERS if step.name == "breaker")
    broken = of(attrs.evolve(peer(), breakers={None: Breaker(failures=3, until=NOW + 9)}))
    assert step.keep(RouteRequest(), [broken], NOW) == [broken]
    assert step.keep(RouteRequest(alternative=True), [broken], NOW) == []


@pytest.mark.parametrize("need", ["tools", "json_schema", "logprobs"])
def test_a_peer_that_lacks_what_the_answer_needs_is_left_out(need: str) -> None:
    """Whatever its command; the reason names what is missing."""
    request = attrs.evolve(ANY, needs=frozenset({need}))
    assert not passes("features", request, PEER)
    why = BY_NAME["features"].why(request, of(PEER, request), NOW)
    assert why.startswith("cannot ")
    assert why.endswith(f"({need}); it can chat, complete")
    able = attrs.evolve(LLAMA, features=LLAMA.features | {need})
    assert passes("features", request, peer(models=(able,)))


def test_all_that_a_peer_lacks_is_named() -> None:
    """The command as well."""
    request = RouteRequest(command="embed", needs=frozenset({"tools", "logprobs"}))
    assert BY_NAME["features"].why(request, of(PEER, request), NOW) == (
        "cannot embed, give log-probabilities (logprobs), call tools (tools); it can chat, complete"
    )


def test_texts_that_are_read_one_by_one_need_room_for_the_longest_only() -> None:
    """As embeddings are: each text has the context to itself."""
    words = ("short", "word " * 500)
    request = route_request(CommandRequest(request_id="r", command="embed", inputs=words * 10))
    assert request.prompt_tokens > 2 * 1000
    assert of_contexts(request, 1000, 2000) == [1000, 2000]
    assert of_contexts(attrs.evolve(request, longest_tokens=1001), 1000, 2000) == [2000]


# ---- contexts ----


def of_contexts(request: RouteRequest, *contexts: int | None) -> list[int | None]:
    """The contexts of the peers that are kept, of peers with these."""
    peers = [
        peer(models=(attrs.evolve(LLAMA, context_tokens=tokens),), peer_id=PeerId(f"p{number}"))
        for number, tokens in enumerate(contexts)
    ]
    kept = BY_NAME["context"].keep(request, all_of(peers, request), NOW)
    return [candidate.offer.context_tokens for candidate in kept]


def room(prompt: int, expected: int = 100, wanted: int | None = None) -> RouteRequest:
    """A request with an estimated prompt and an expected answer."""
    return RouteRequest(prompt_tokens=prompt, output_tokens=expected, max_tokens=wanted)


def test_an_estimate_chooses_between_contexts_and_refuses_none() -> None:
    """What is too long for all, by the estimate, is for the largest to count."""
    assert of_contexts(room(5000), 512) == [512]
    assert of_contexts(room(5000), 512, 2048, 1024) == [2048]
    assert of_contexts(room(632), 512, 2048) == [2048]
    assert of_contexts(room(100), 512, 2048) == [512, 2048]
    assert of_contexts(room(120), 512, 2048) == [2048]
    assert of_contexts(room(632), 512, None) == [None]
    assert of_contexts(room(632), 512, 2048, None) == [2048, None]


def test_room_for_the_whole_answer_comes_first() -> None:
    """Then for the one that is expected, and then for the prompt alone."""
    assert of_contexts(room(300, wanted=400), 512, 2048) == [2048]
    assert of_contexts(room(300, wanted=200), 512, 2048) == [512, 2048]
    assert of_contexts(room(300, wanted=4000), 512, 2048, 2048) == [2048, 2048]
    assert of_contexts(room(300, wanted=4000), 710, 2048) == [710, 2048]
    assert of_contexts(room(300, wanted=4000), 300, 450) == [450]
    assert of_contexts(room(450), 512, 500) == [512, 500]


@given(
    contexts=st.lists(st.none() | st.integers(1, 5000), min_size=1, max_size=5),
    prompt=st.integers(0, 6000),
    expected=st.integers(1, 500),
    more=st.none() | st.integers(0, 9000),
)
def test_some_context_is_always_kept_and_never_a_smaller_one_alone(
    contexts: list[int | None], prompt: int, expected: int, more: int | None
) -> None:
    """Whatever is kept is at least as large as all that is left out."""
    request = room(prompt, expected, None if more is None else expected + more)
    kept = of_contexts(request, *contexts)
    assert kept
    known = [tokens for tokens in kept if tokens is not None]
    out = [tokens for tokens in contexts if tokens is not None and tokens not in known]
    assert (max(out, default=0) < min(known, default=1 << 40)) or not known


def test_the_reason_for_a_small_context_names_no_number_that_nobody_counted() -> None:
    """Only its own size is known."""
    small = peer(models=(attrs.evolve(LLAMA, context_tokens=512),))
    why = BY_NAME["context"].why(room(632), of(small), NOW)
    assert why.startswith("has a context of 512 tokens; another has more")
    assert "632" not in why
    why = BY_NAME["context"].why(room(100, wanted=4000), of(small), NOW)
    assert "the longest answer that is allowed" in why


# ---- lanes ----

REAL = Lane(id="llama", backend="llama_cpp", simulated=False, load=Load(slots=1))
MOCK = Lane(id="mock", backend="mock", simulated=True, load=Load(slots=1))


def offer_of(lane: Lane, name: str = "llama") -> ModelOffer:
    """An offer of a lane."""
    return attrs.evolve(LLAMA, name=name, lane=lane.id, id=f"{lane.id}/{name}")


def two_lanes(*, model_of_mock: str = "llama", **real: Any) -> PeerRecord:
    """A peer with a real lane and one that simulates."""
    lanes = (attrs.evolve(REAL, **real), MOCK)
    models = (offer_of(REAL), offer_of(MOCK, model_of_mock))
    return attrs.evolve(PEER, capability=Capability(lanes=lanes, models=models))


def standing(request: RouteRequest, *peers: PeerRecord) -> dict[str, str]:
    """Id of each candidate to the filter that removes it, or to nothing."""
    kept: Sequence[Candidate] = all_of(list(peers), request)
    found = {one.id: "" for one in kept}
    for step in STANDARD_FILTERS:
        passed = step.keep(request, kept, NOW)
        found |= {one.id: step.name for one in kept if one not in passed}
        kept = passed
    return found


@pytest.mark.parametrize("reason", ["busy", "failed", "resting", "tried"])
def test_a_simulated_offer_never_takes_the_place_of_a_real_one(reason: str) -> None:
    """Neither where that is free nor where it cannot be asked now."""
    load = Load(slots=1, busy=1) if reason == "busy" else REAL.load
    one = two_lanes(load=load, state="failed" if reason == "failed" else "ready")
    request = RouteRequest(model="llama")
    if reason == "resting":
        one = attrs.evolve(one, lanes={"llama": LaneRecord(resting_until=NOW + 9)})
    if reason == "tried":
        request = attrs.evolve(request, tried=frozenset({"p/llama/llama"}))
    removed_by = {"busy": "slots", "failed": "state"}.get(reason, reason)
    assert standing(request, one) == {"p/llama/llama": removed_by, "p/mock/llama": "real"}


def test_a_simulated_offer_is_asked_where_no_real_one_is() -> None:
    """For its own model, or by its id; and not once a real one was asked for this request."""
    one = two_lanes(model_of_mock="mock")
    assert standing(RouteRequest(model="mock"), one) == {"p/mock/mock": ""}
    assert standing(RouteRequest(offer="mock/mock"), one) == {"p/mock/mock": ""}
    assert standing(RouteRequest(), one) == {"p/llama/llama": ""}
    assert standing(RouteRequest(), two_lanes()) == {"p/llama/llama": "", "p/mock/llama": "real"}
    alone = RouteRequest(model="mock", real_only=True)
    assert standing(alone, one) == {"p/mock/mock": "real"}
    assert standing(RouteRequest(model="mock", strict=True), one) == {"p/mock/mock": "strict"}


@pytest.mark.parametrize(
    ("state", "kept"), [("starting", False), ("resting", False), ("failed", True)]
)
def test_a_real_lane_that_is_about_to_have_a_model_counts_where_any_will_do(
    state: str, kept: bool
) -> None:
    """On the peer of the mock, or on another; a model that is named is not taken to be that one."""
    coming = attrs.evolve(REAL, state=state)
    alone = attrs.evolve(PEER, peer_id=PeerId("q"), capability=Capability(lanes=(coming,)))
    mock = attrs.evolve(
        PEER, capability=Capability(lanes=(MOCK,), models=(offer_of(MOCK, "mock"),))
    )
    both = attrs.evolve(
        PEER, capability=Capability(lanes=(coming, MOCK), models=(offer_of(MOCK, "mock"),))
    )
    for peers in ((mock, alone), (both,)):
        assert standing(RouteRequest(), *peers)["p/mock/mock"] == ("" if kept else "real")
        assert standing(RouteRequest(model="mock"), *peers)["p/mock/mock"] == ""


def test_a_lane_that_starts_is_a_candidate_with_its_seconds() -> None:
    """Others that are not ready are none, whatever they are called."""
    states = (
        ("ready", ""),
        ("starting", ""),
        ("failed", "state"),
        ("a state of another year", "state"),
    )
    for state, by in states:
        lane = attrs.evolve(REAL, state=state)
        one = attrs.evolve(PEER, capability=Capability(lanes=(lane,), models=(offer_of(lane),)))
        assert standing(RouteRequest(model="llama"), one) == {"p/llama/llama": by}


def test_lanes_of_one_peer_are_judged_apart() -> None:
    """One is full, breaks or drains, and the other answers."""
    other = attrs.evolve(REAL, id="second")
    models = (offer_of(REAL), offer_of(other))
    request = RouteRequest(model="llama")
    for changes, by in (
        ({"load": Load(slots=1, busy=1)}, "slots"),
        ({"load": Load(draining=True)}, "slots"),
        ({"state": "a state of another year"}, "state"),
    ):
        lanes = (attrs.evolve(REAL, **changes), other)
        one = attrs.evolve(PEER, capability=Capability(lanes=lanes, models=models))
        assert standing(request, one) == {"p/llama/llama": by, "p/second/llama": ""}
    one = attrs.evolve(PEER, capability=Capability(lanes=(REAL, other), models=models))
    broken_one = attrs.evolve(one, breakers={"llama/llama": Breaker(failures=1, until=NOW + 9)})
    assert standing(request, broken_one) == {"p/llama/llama": "breaker", "p/second/llama": ""}
    gone = attrs.evolve(one, breakers={None: Breaker(failures=1, until=NOW + 9)})
    well = attrs.evolve(one, peer_id=PeerId("well"))
    assert standing(request, gone, well) == {
        "p/llama/llama": "breaker",
        "p/second/llama": "breaker",
        "well/llama/llama": "",
        "well/second/llama": "",
    }


@given(peer_tables(), route_requests)
def test_what_is_plain_passes_every_filter_that_need_not_look_at_it(
    peers: list[PeerRecord], request: RouteRequest
) -> None:
    """A decision among plain candidates leaves these filters out."""
    candidates = candidates_of(peers, request.model, request.model_digest, request.offer)
    plain = [candidate for candidate in [*candidates, of(peer())] if candidate.is_plain]
    for step in STANDARD_FILTERS:
        if step.passes_plain:
            assert list(step.keep(request, plain, NOW)) == plain


@given(peer_tables(), route_requests)
def test_all_pass_for_a_usual_request_where_a_filter_need_not_look_at_it(
    peers: list[PeerRecord], request: RouteRequest
) -> None:
    """A decision on such a request leaves these filters out."""
    usual = attrs.evolve(request, wishes=NO_WISHES, tried=frozenset(), strict=False)
    usual = attrs.evolve(usual, continuing=False)
    assert usual.is_usual
    candidates = candidates_of(peers, request.model, request.model_digest, request.offer)
    for step in STANDARD_FILTERS:
        if step.passes_usual:
            assert step.keep(usual, candidates, NOW) == candidates
