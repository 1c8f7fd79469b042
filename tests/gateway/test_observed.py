"""What the observers make of answers that a real router has got, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import request_records as records
import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_text import told
from trio.testing import MockClock

from punch.backends import MockBackend, MockScript
from punch.dialer import Router, chat_request
from punch.events import Bus, RequestRecord
from punch.gateway import Metrics, open_spans
from punch.gateway.keys._charging import cost_of
from punch.testing import Swarm
from punch.wire import Sampling


async def watched(router: Router, swarm: Swarm, *, killed_at: float) -> RequestRecord:
    """An record whose first peer dies some seconds after it was asked."""
    request = chat_request("tell me", sampling=Sampling(max_tokens=20))
    record = records.new(request.request_id, endpoint="/v1/chat/completions")
    async with trio.open_nursery() as nursery, router.answer(request) as answer:

        async def kill() -> None:
            await trio.sleep(killed_at)
            swarm.kill(str(answer.decisions[0].chosen_peer))

        nursery.start_soon(kill)
        while await answer.receive() is not None:
            if record.first_text_at is None:
                record.first_text_at = trio.current_time()
        response = answer.response
        record.decisions, record.attempts = answer.decisions, answer.attempts
        record.segments, record.usage = response.segments, response.usage
        record.cost = cost_of(answer, response)
        record.provenance, record.peer_id = response.provenance, response.executor
    record.ended_at, record.status = trio.current_time(), 200
    return record


def attributes_of(exporter: InMemorySpanExporter, name: str) -> list[dict[str, Any]]:
    """What the spans whose names begin with *name* say."""
    spans = exporter.get_finished_spans()
    return [dict(span.attributes or {}) for span in spans if span.name.startswith(name)]


@pytest.mark.parametrize(
    ("killed_at", "reason", "generated"), [(1.0, "failover", 1), (4.0, "continuation", 2)]
)
async def test_a_peer_that_dies_is_counted_for_what_it_meant(
    killed_at: float, reason: str, generated: int, autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Before the first text it is a failover, after it a continuation, in numbers and in spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for name in "ab":
        await swarm.listener(name, MockBackend(MockScript(delay=3, decode_rate=10.0)))
    async with swarm.router() as router, open_spans(Bus(), provider=provider) as spans:
        metrics = Metrics(router)
        await router.wait_for_peers(lambda peers: len(peers) == 2)
        before = await told(metrics)
        record = await watched(router, swarm, killed_at=killed_at)
        assert spans is not None
        for hear in (metrics.hear, spans.hear):
            for event in records.life(record):
                hear(event)
        found = await told(metrics)

    assert [decision.reason for decision in record.decisions] == ["first", reason]
    assert found["punch_decisions_total", "completion-time", reason] == 1
    assert record.provenance is not None
    assert found["punch_generation_tokens_total", str(record.provenance.model)] == 20
    assert (before["punch_peers",], before["punch_sessions",]) == (2, 2)
    assert (found["punch_peers",], found["punch_sessions",]) == (1, 1)
    made, asked = attributes_of(exporter, "generate"), attributes_of(exporter, "chat")
    assert len(made) == generated
    assert [attributes.get("error.type") for attributes in asked] == ["unreachable", None]
    assert sum(attributes["gen_ai.usage.output_tokens"] for attributes in made) == 20
