"""Made-up requests, decided by the real policies and written by the real log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import attrs

from punch.capability import Capability, Load, ModelOffer, PeerId
from punch.decision_log import open_decision_log
from punch.events import Answered, Attempted, Bus, Decided
from punch.peers import Breaker, PeerRecord
from punch.routing import (
    POLICIES,
    Decision,
    RouteRequest,
    Startable,
    StartableOffer,
    Starts,
)
from punch.wire import Provenance, Segment, Timings, Usage

DIGEST = "ab" * 32
NO_BREAKERS: Mapping[str | None, Breaker] = MappingProxyType({})
FAST = PeerId("12D3KooWQ1fastFastFastFastFastFastFastFastFastFastfast1")
SLOW = PeerId("12D3KooWQ2slowSlowSlowSlowSlowSlowSlowSlowSlowSlowslow2")
MOCK = PeerId("12D3KooWQ3mockMockMockMockMockMockMockMockMockMockmock3")
HEAD = PeerId("12D3KooWQ4headHeadHeadHeadHeadHeadHeadHeadHeadHeadhead4")

REQUEST = RouteRequest(model="smollm2", model_digest=DIGEST, prompt_tokens=420, strict=True)


def record(
    peer_id: PeerId,
    *,
    rate: float = 20.0,
    backend: str = "llama_cpp",
    models: Sequence[str] = ("smollm2",),
    seen_at: float = 99.5,
    breakers: Mapping[str | None, Breaker] = NO_BREAKERS,
) -> PeerRecord:
    """A peer that can answer `REQUEST`, with *rate* answer tokens a second."""
    offers = tuple(
        ModelOffer(
            name=name,
            digest=DIGEST,
            continues=True,
            chat_template="c" * 64,
            prefill_rate=10 * rate,
            decode_rate=rate,
        )
        for name in models
    )
    return PeerRecord(
        peer_id=peer_id,
        breakers=breakers,
        capability=Capability.of_one_lane(
            backend=backend,
            simulated=backend == "mock",
            models=offers,
            load=Load(slots=2, queue_limit=8),
        ),
        incarnation=1,
        sequence=1,
        seen_at=seen_at,
        rtt=0.004,
    )


PEERS = (record(FAST, rate=25.0), record(SLOW, rate=12.0), record(MOCK, backend="mock"))


def decide(
    policy: str = "completion-time",
    peers: Sequence[PeerRecord] = PEERS,
    request: RouteRequest = REQUEST,
    now: float = 100.0,
    startable: Sequence[Startable] = (),
) -> Decision:
    """What *policy* decides."""
    settled = attrs.evolve(POLICIES[policy], explore=0.0)
    return settled.decide(request, peers, now=now, rng=Random(1), startable=startable)


def note_decided(
    events: Bus,
    request_id: str,
    decision: Decision | None = None,
    *,
    reason: str = "first",
    at: float = 100.0,
) -> None:
    """A decision for a request."""
    decision = decision or decide()
    events.publish(Decided(at=at, request_id=request_id, reason=reason, decision=decision))


def note_attempted(events: Bus, request_id: str, *, at: float = 110.0, **fields: Any) -> None:
    """What came of an attempt."""
    given = {"peer_id": PeerId("a"), "reason": "first", "outcome": "success"} | fields
    events.publish(Attempted(at=at, request_id=request_id, **given))


def note_ended(
    events: Bus, request_id: str, *, status: str = "success", at: float = 110.0, **fields: Any
) -> None:
    """The end of a request."""
    events.publish(Answered(at=at, request_id=request_id, status=status, **fields))


def note_success(
    events: Bus, request_id: str = "easy-1", *, policy: str = "completion-time"
) -> None:
    """A request that its first peer answered."""
    decision = decide(policy)
    note_decided(events, request_id, decision)
    note_attempted(
        events,
        request_id,
        peer_id=decision.chosen_peer,
        reason="first",
        outcome="success",
        error=None,
        seconds=9.0,
        first_text=1.5,
        tokens=200,
        characters=900,
    )
    note_ended(
        events,
        request_id,
        status="success",
        error=None,
        seconds=9.1,
        first_text=1.6,
        **ending(decision.chosen_peer),
    )


def note_continued(events: Bus, request_id: str = "long-1") -> None:
    """A request whose first peer went silent in the middle of the answer."""
    note_decided(events, request_id)
    note_attempted(
        events,
        request_id,
        peer_id=FAST,
        reason="first",
        outcome="silent",
        error="no token within 1.5 s",
        seconds=3.4,
        first_text=0.62,
        tokens=41,
        characters=183,
    )
    on = attrs.evolve(
        REQUEST,
        continuing=True,
        chat_template="c" * 64,
        prompt_tokens=461,
        tried=frozenset({FAST}),
    )
    note_decided(events, request_id, decide(request=on, now=103.4), reason="continuation", at=103.4)
    note_attempted(
        events,
        request_id,
        peer_id=SLOW,
        reason="continuation",
        outcome="success",
        error=None,
        seconds=14.2,
        first_text=3.9,
        tokens=120,
        characters=520,
    )
    note_ended(
        events,
        request_id,
        status="success",
        error=None,
        seconds=17.6,
        first_text=0.62,
        **ending(SLOW),
        segments=(
            Segment(peer_id=FAST, tokens=41, characters=183, seconds=3.4, reason="silent"),
            Segment(peer_id=SLOW, tokens=120, characters=520, seconds=14.2, reason="stop"),
        ),
    )


SPLIT = StartableOffer(
    id="smollm2/2",
    peer_id=HEAD,
    offer=ModelOffer(
        name="smollm2", digest=DIGEST, prefill_rate=900.0, decode_rate=90.0, split=True
    ),
    seconds=2.5,
    workers=2,
    owners=("ann", "bob"),
    plan="12 + 12 layers; 2 round trips of 4 ms a token\nmore of it",
)


def note_started(events: Bus, request_id: str = "split-1") -> None:
    """A request for which a split was started."""
    startable = Starts().look([SPLIT], now=100.0)
    note_decided(events, request_id, decide(startable=startable))
    note_attempted(events, request_id, peer_id=HEAD, lane="start", reason="start", seconds=2.6)
    running = record(HEAD, rate=90.0)
    note_decided(events, request_id, decide(peers=(*PEERS, running), now=102.6), at=102.6)
    note_attempted(events, request_id, peer_id=HEAD, seconds=2.8, first_text=0.5, tokens=200)
    note_ended(events, request_id, seconds=5.4, first_text=3.1, **ending(HEAD))


def ending(peer_id: PeerId | None) -> dict[str, Any]:
    """What is known of an answer that *peer_id* ended."""
    return {
        "executor": peer_id,
        "finish_reason": "stop",
        "provenance": Provenance(
            kind="real", backend="llama_cpp", model="smollm2", model_digest=DIGEST
        ),
        "usage": Usage(prompt_tokens=461, completion_tokens=161, cached_tokens=64),
        "timings": Timings(total=14.0, first_token=3.8, batch=1.0),
    }


async def write(path: Path, *notes: Callable[[Bus], None]) -> None:
    """Write a log of these requests."""
    events = Bus()
    async with open_decision_log(path, events):
        for note in notes:
            note(events)
