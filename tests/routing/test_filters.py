"""Who may be asked at all, and what is said of those who may not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from strategies import NOW, peer_tables, route_requests

from punch.capability import Capability, Load, ModelOffer, PeerId
from punch.peers import PeerRecord
from punch.routing import FRESH_SECONDS, STANDARD_FILTERS, Filter, RouteRequest

BY_NAME = {step.name: step for step in STANDARD_FILTERS}
LLAMA = ModelOffer(name="llama", digest="a" * 64, context_tokens=1000)
ANY = RouteRequest()
PEER = PeerRecord(
    peer_id=PeerId("p"),
    capability=Capability(
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
    if load is not None:
        claim["load"] = attrs.evolve(PEER.capability.load, **load)
    own = {name: value for name, value in changes.items() if name in fields}
    return attrs.evolve(PEER, capability=attrs.evolve(PEER.capability, **claim), **own)


def passes(name: str, request: RouteRequest, one: PeerRecord) -> bool:
    """Whether the filter of this name keeps a peer."""
    return list(BY_NAME[name].keep(request, [one], NOW)) == [one]


def test_the_standard_filters_and_their_order() -> None:
    """The first to remove a peer gives the reason, so the plainest reasons come first."""
    assert list(BY_NAME) == [
        "tried",
        "fresh",
        "strict",
        "model",
        "features",
        "context",
        "cooling",
        "slots",
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
        ("context", RouteRequest(prompt_tokens=2000), peer()),
        ("context", RouteRequest(prompt_tokens=1 << 40), peer(models=(ModelOffer(name="m"),))),
        ("cooling", ANY, peer(cooling_until=NOW, failures=3)),
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
            "context",
            RouteRequest(prompt_tokens=2001),
            peer(),
            "takes 1000 tokens; the prompt has about 2001",
        ),
        (
            "cooling",
            ANY,
            peer(cooling_until=NOW + 1.5, failures=2),
            "failed 2 times in a row; left alone for another 1.5 s",
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
    assert BY_NAME[name].why(request_, removed, NOW) == why


@pytest.mark.parametrize("step", STANDARD_FILTERS, ids=lambda step: step.name)
@given(request=route_requests, peers=peer_tables())
def test_a_filter_keeps_or_explains(
    step: Filter, request: RouteRequest, peers: list[PeerRecord]
) -> None:
    """It keeps peers in their order, changes none, and has a reason for each of the others."""
    kept = list(step.keep(request, peers, NOW))
    assert kept == [one for one in peers if one in kept]
    for one in peers:
        if one not in kept:
            assert step.why(request, one, NOW)


@pytest.mark.parametrize("step", STANDARD_FILTERS, ids=lambda step: step.name)
@given(request=route_requests, peers=peer_tables())
def test_a_filter_judges_each_peer_by_itself(
    step: Filter, request: RouteRequest, peers: list[PeerRecord]
) -> None:
    """Who else is there does not matter."""
    alone = [one for one in peers if list(step.keep(request, [one], NOW))]
    assert list(step.keep(request, peers, NOW)) == alone
