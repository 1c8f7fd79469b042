"""Made-up requests of a gateway, decided by the real policies, and their events."""

from __future__ import annotations

from typing import Any

import attrs
import decision_logs as made
import trio

from punch.events import Cost, Event, RequestChanged, RequestEnded, RequestRecord, RequestStarted
from punch.exceptions import PeerTimeout
from punch.routing import Decision, FailedAttempt
from punch.wire import Provenance, Segment, Usage

REAL = Provenance(kind="real", backend="llama_cpp", model="smollm2", model_digest=made.DIGEST)


def started(record: RequestRecord) -> RequestStarted:
    """Its first event."""
    return RequestStarted(at=record.began_at, request=record)


def changed(record: RequestRecord) -> RequestChanged:
    """One of those in between."""
    return RequestChanged(at=record.began_at, request=record)


def ended(record: RequestRecord) -> RequestEnded:
    """Its last event."""
    return RequestEnded(at=record.ended_at or record.began_at, request=record)


def life(record: RequestRecord) -> list[Event]:
    """All of them."""
    return [started(record), changed(record), ended(record)]


def new(request_id: str, **fields: Any) -> RequestRecord:
    """One that arrives now."""
    record = RequestRecord(request_id=request_id, endpoint="/x", began_at=trio.current_time())
    return attrs.evolve(record, **fields)


def easy(**changes: Any) -> RequestRecord:
    """One that its first peer answered: 2 s to the first of 11 tokens, and 1 s for the others."""
    record = RequestRecord(
        request_id="easy-1",
        endpoint="/v1/chat/completions",
        key_id="ada",
        model="smollm2",
        began_at=100.0,
        first_text_at=102.0,
        ended_at=103.0,
        status=200,
        peer_id=made.FAST,
        provenance=REAL,
        decisions=(made.decide(now=100.0),),
        segments=(
            Segment(peer_id=made.FAST, tokens=11, characters=40, seconds=3.0, reason="stop"),
        ),
        usage=Usage(prompt_tokens=420, completion_tokens=11),
        cost=Cost(prompt=420, answer=11),
        tokens=11,
    )
    return attrs.evolve(record, **changes)


def continued() -> RequestRecord:
    """One whose first peer went silent after 41 tokens, and the second one ended it."""
    return easy(
        request_id="long-1",
        stream=True,
        first_text_at=100.6,
        ended_at=117.6,
        peer_id=made.SLOW,
        decisions=(made.decide(now=100.0), attrs.evolve(_second(), reason="continuation")),
        attempts=(_silent(),),
        segments=(
            Segment(peer_id=made.FAST, tokens=41, characters=183, seconds=3.4, reason="silent"),
            Segment(peer_id=made.SLOW, tokens=120, characters=520, seconds=14.2, reason="stop"),
        ),
        usage=Usage(prompt_tokens=420, completion_tokens=161, cached_tokens=64),
        cost=Cost(prompt=420, answer=161),
        tokens=161,
    )


def failed_over() -> RequestRecord:
    """One whose first peer said nothing, and the second one answered."""
    return easy(
        request_id="over-1",
        peer_id=made.SLOW,
        decisions=(made.decide(now=100.0), attrs.evolve(_second(), reason="failover")),
        attempts=(_silent(),),
        segments=(
            Segment(peer_id=made.SLOW, tokens=11, characters=40, seconds=1.0, reason="stop"),
        ),
    )


def _silent() -> FailedAttempt:
    return FailedAttempt(
        peer_id=made.FAST, error=PeerTimeout("silent", peer_id=made.FAST), seconds=3.4
    )


def _second() -> Decision:
    on = attrs.evolve(made.REQUEST, continuing=True, tried=frozenset({made.FAST}))
    return made.decide(request=on, now=103.4)
