"""The spans of a request: who is under whom, how long each took, and what it says."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import decision_logs as made
import pytest
import request_records as records
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from punch.events import Bus, Cost, RequestRecord
from punch.gateway import open_spans

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


async def spans_of(
    record: RequestRecord, provider: TracerProvider, exporter: InMemorySpanExporter
) -> list[ReadableSpan]:
    """The spans of one record, in the order they began."""
    async with open_spans(Bus(), provider=provider) as spans:
        assert spans is not None
        for event in records.life(record):
            spans.hear(event)
    found = exporter.get_finished_spans()
    ids = [span.context.span_id for span in found]
    assert len(set(ids)) == len(ids)
    return sorted(found, key=lambda span: (span.start_time, -found.index(span)))


def tree(spans: Sequence[ReadableSpan]) -> list[str]:
    """Each span, indented below the one it belongs to."""
    by_id = {span.context.span_id: span for span in spans}

    def depth(span: ReadableSpan) -> int:
        parent = by_id.get(span.parent.span_id) if span.parent is not None else None
        return 0 if parent is None else 1 + depth(parent)

    return ["  " * depth(span) + span.name for span in spans]


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """What a span says."""
    return dict(span.attributes or {})


async def test_an_easy_request_is_four_spans_one_below_the_other(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Gateway, decision, attempt, backend."""
    spans = await spans_of(records.easy(), provider, exporter)

    assert tree(spans) == [
        "POST /v1/chat/completions",
        "  decide",
        "    chat smollm2",
        "      generate smollm2",
    ]
    assert [span.kind for span in spans] == [
        SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.INTERNAL,
    ]  # fmt: skip
    assert {round(seconds(span), 3) for span in spans} == {3.0}
    assert len({span.context.trace_id for span in spans}) == 1


async def test_attributes_are_those_of_the_conventions(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """And there is no text in them."""
    gateway, decision, attempt, backend = await spans_of(records.easy(), provider, exporter)

    assert attributes_of(gateway) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "smollm2",
        "punch.request_id": "easy-1",
        "punch.key_id": "ada",
        "punch.stream": False,
        "punch.continuations": 0,
    }
    assert attributes_of(decision) == {
        "punch.policy": "completion-time",
        "punch.reason": "first",
        "punch.candidates": 3,
        "punch.removed": 1,
        "punch.peer_id": made.FAST,
        "punch.predicted_seconds": made.decide().candidates()[0].score,
    }
    assert attributes_of(attempt) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "smollm2",
        "gen_ai.request.stream": False,
        "gen_ai.provider.name": "llama_cpp",
        "server.address": made.FAST,
    }
    assert attributes_of(backend) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llama_cpp",
        "gen_ai.response.id": "easy-1",
        "gen_ai.response.model": "smollm2",
        "gen_ai.response.time_to_first_chunk": 2.0,
        "gen_ai.usage.input_tokens": 420,
        "gen_ai.usage.output_tokens": 11,
        "punch.provenance": "real",
    }


async def test_an_answer_that_was_joined_has_the_counts_of_the_whole(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Prompt and answer alike, though nothing of it was made for this caller."""
    record = records.easy(cost=Cost(prompt=0, answer=0))
    *_, backend = await spans_of(record, provider, exporter)

    assert attributes_of(backend)["gen_ai.usage.input_tokens"] == 420
    assert attributes_of(backend)["gen_ai.usage.output_tokens"] == 11


async def test_a_continuation_is_a_second_decision_with_its_own_attempt(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """The first one failed, and still delivered its part."""
    spans = await spans_of(records.continued(), provider, exporter)

    part = ["  decide", "    chat smollm2", "      generate smollm2"]
    assert tree(spans) == ["POST /v1/chat/completions", *part, *part]
    first, second = spans[2], spans[5]
    assert (first.status.status_code, attributes_of(first)["error.type"]) == (
        StatusCode.ERROR,
        "silent",
    )
    assert second.status.status_code is StatusCode.UNSET
    assert [round(seconds(span), 3) for span in (first, second)] == [3.4, 14.2]
    assert attributes_of(spans[4])["punch.reason"] == "continuation"
    assert attributes_of(spans[0])["punch.continuations"] == 1
    assert [attributes_of(spans[n])["gen_ai.usage.output_tokens"] for n in (3, 6)] == [41, 120]


async def test_a_peer_that_said_nothing_has_no_backend_span(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Nobody knows what it did."""
    spans = await spans_of(records.failed_over(), provider, exporter)

    assert tree(spans)[1:4] == ["  decide", "    chat smollm2", "  decide"]


async def test_a_request_that_nobody_could_answer_ends_with_its_decision(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """And is an error of the server's."""
    nobody = made.decide(peers=())
    record = records.easy(
        decisions=(nobody,), segments=(), provenance=None, status=503, error_code="no_peer"
    )
    gateway, decision = await spans_of(record, provider, exporter)

    assert decision.name == "decide"
    assert (gateway.status.status_code, attributes_of(gateway)["error.type"]) == (
        StatusCode.ERROR,
        "no_peer",
    )


async def test_a_callers_mistake_is_no_error_of_the_servers(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """The conventions for HTTP want it so."""
    record = records.easy(
        decisions=(), segments=(), provenance=None, status=401, error_code="unauthorized"
    )
    (gateway,) = await spans_of(record, provider, exporter)

    assert gateway.status.status_code is StatusCode.UNSET
    assert attributes_of(gateway)["error.type"] == "unauthorized"


async def test_a_hedge_ends_its_loser_with_the_next_decision(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Whoever gave way has neither failed nor answered."""
    first = made.decide(now=100.0)
    second = attrs.evolve(
        made.decide(request=attrs.evolve(made.REQUEST, tried=frozenset({made.FAST})), now=101.0),
        reason="hedge",
    )
    record = records.easy(
        decisions=(first, second),
        segments=(attrs.evolve(records.easy().segments[0], peer_id=made.SLOW),),
    )
    spans = await spans_of(record, provider, exporter)

    assert [round(seconds(span), 3) for span in spans if span.kind is SpanKind.CLIENT] == [1, 2]


@pytest.mark.parametrize(
    ("given", "continues"),
    [(TRACEPARENT, True), (None, False), ("", False), ("00-xyz-1-01", False), ("é" * 500, False)],
)
async def test_a_callers_trace_is_gone_on_with(
    provider: TracerProvider, exporter: InMemorySpanExporter, given: Any, continues: bool
) -> None:
    """And one that makes no sense is as none."""
    spans = await spans_of(records.easy(traceparent=given), provider, exporter)

    assert (f"{spans[0].context.trace_id:032x}" == TRACE) is continues
    assert (spans[0].parent is not None) is continues


async def test_a_trace_that_is_not_sampled_costs_nothing_more(
    exporter: InMemorySpanExporter,
) -> None:
    """The sampler is OpenTelemetry's own."""
    provider = TracerProvider(shutdown_on_exit=False, sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    assert await spans_of(records.continued(), provider, exporter) == []


async def test_without_a_collector_there_is_no_observer() -> None:
    """Zero is what that costs."""
    async with open_spans(Bus()) as spans:
        assert spans is None
    async with open_spans(Bus(), endpoint="") as spans:
        assert spans is None


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    """Nor if the extra is not installed."""
    program = """
import sys, trio
import punch.gateway
async def main(**kwargs):
    async with punch.gateway.open_spans(punch.events.Bus(), **kwargs) as spans:
        assert spans is None
trio.run(main)
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
sys.modules["opentelemetry"] = None
trio.run(lambda: main(endpoint="http://127.0.0.1:1"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert "punch-router[otel]" in done.stderr or "OpenTelemetry is not installed" in done.stderr


async def test_making_spans_takes_little_time(provider: TracerProvider) -> None:
    """A continued request has seven; with the real exporter's queue in place of a list."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    record = records.continued()
    async with open_spans(Bus(), provider=provider) as spans:
        assert spans is not None
        best = float("inf")
        for _ in range(10):
            began = time.perf_counter()
            for _ in range(10):
                spans.hear(records.ended(record))
            best = min(best, (time.perf_counter() - began) / 10)
    await trio.to_thread.run_sync(provider.shutdown)
    assert best < 2e-3
