"""Makes OpenTelemetry spans of each ended request, as a tree. The only importer of the library.

::

    POST /v1/chat/completions        SERVER    the request, from arrival to its last byte
      decide                         INTERNAL  one decision, and all that came of it
        chat smollm2                 CLIENT    asking the peer that was chosen
          generate smollm2           INTERNAL  what its backend delivered, if it did

Attributes are those of the semantic conventions for HTTP and for generative AI; what they have
no word for begins with ``punch.``. There is no text of a prompt or an answer in them.

The spans of a request are made when it is over, from what is known then: nothing is held for one
that is under way. They are sent by a thread of the exporter's, which drops them if the collector
is too slow. Without the extra ``otel`` or a collector's address nothing of this is even imported.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from ..._logs import get_logger
from ..._subscribers import open_subscriber
from ..._version import __version__
from ...events import Bus, Event, RequestEnded, RequestRecord
from ...routing import Decision, FailedAttempt
from ...wire import Segment, short_word

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

log = get_logger(__name__)

# How long the last spans may take to be sent when the gateway ends, in seconds.
CLOSE_SECONDS = 3.0

# OpenTelemetry's clock counts in billionths of a second.
_PER_SECOND = 1_000_000_000

Attributes = dict[str, "AttributeValue"]


@attrs.frozen(kw_only=True)
class _Step:
    """A decision and what came of it; times in seconds of trio's clock."""

    decision: Decision
    attempt: FailedAttempt | None
    segment: Segment | None
    ended_at: float
    is_last: bool


class Spans:
    """Makes spans: a subscriber of `KINDS`. Made by `open_spans`."""

    KINDS = (RequestEnded,)

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer: Tracer = provider.get_tracer("punch", __version__)
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()

    def hear(self, event: Event) -> None:
        """Make the spans of a request that is over."""
        if isinstance(event, RequestEnded):
            self._make(event.request)

    def _make(self, record: RequestRecord) -> None:
        tree = _Tree(self._tracer, record)
        kind = self._trace.SpanKind
        parent = self._parent(record.traceparent)
        whole = tree.start(_name(record), kind.SERVER, parent, record.began_at)
        # A sampler may not want this trace: then there is nobody to fill it in for.
        if whole.is_recording():
            whole.set_attributes(_of_gateway(record))
            self._fail(whole, record.error_code if _is_ours(record) else None)
            for step in _steps_of(record, tree.ended_at):
                self._add(tree, whole, record, step)
        tree.end(whole, tree.ended_at)

    def _add(self, tree: _Tree, whole: Span, record: RequestRecord, step: _Step) -> None:
        kind = self._trace.SpanKind
        decision, began = step.decision, step.decision.now
        inside = self._trace.set_span_in_context(whole)
        decided = tree.start("decide", kind.INTERNAL, inside, began)
        decided.set_attributes(_of_decision(decision))
        if decision.chosen is not None:
            inside = self._trace.set_span_in_context(decided)
            name = f"{_operation(record)} {_model(record, decision)}"
            attempt = tree.start(name, kind.CLIENT, inside, began)
            attempt.set_attributes(_of_attempt(record, decision))
            self._fail(attempt, step.attempt.error.code if step.attempt is not None else None)
            if step.segment is not None or (step.is_last and record.provenance is not None):
                inside = self._trace.set_span_in_context(attempt)
                name = f"generate {_model(record, decision)}"
                made = tree.start(name, kind.INTERNAL, inside, began)
                made.set_attributes(_of_backend(record, step))
                tree.end(made, step.ended_at)
            tree.end(attempt, step.ended_at)
        tree.end(decided, step.ended_at)

    def _parent(self, traceparent: str | None) -> Context | None:
        if traceparent is None:
            return None
        # One that makes no sense is as none: W3C Trace Context, section 3.2.
        return self._propagator.extract({"traceparent": traceparent})

    def _fail(self, span: Span, code: str | None) -> None:
        if code is not None:
            span.set_attribute("error.type", code)
            span.set_status(self._trace.StatusCode.ERROR)


class _Tree:
    """The spans of one request, on OpenTelemetry's clock."""

    def __init__(self, tracer: Tracer, record: RequestRecord) -> None:
        self._tracer = tracer
        now = trio.current_time()
        self._base = time.time_ns() - int(now * _PER_SECOND)
        self.ended_at = now if record.ended_at is None else record.ended_at

    def start(self, name: str, kind: object, parent: Context | None, at: float) -> Span:
        return self._tracer.start_span(name, context=parent, kind=kind, start_time=self._ns(at))  # type: ignore[arg-type]  # a SpanKind

    def end(self, span: Span, at: float) -> None:
        span.end(self._ns(at))

    def _ns(self, at: float) -> int:
        return self._base + int(at * _PER_SECOND)


def _steps_of(record: RequestRecord, ended_at: float) -> Iterator[_Step]:
    """Every decision with its outcome: a peer is attempt once, so its id finds it."""
    failed, segments = list(record.attempts), list(record.segments)
    for number, decision in enumerate(record.decisions, start=1):
        is_last = number == len(record.decisions)
        attempt = next((a for a in failed if a.peer_id == decision.chosen_peer), None)
        segment = next((s for s in segments if s.peer_id == decision.chosen_peer), None)
        if attempt is not None:
            failed.remove(attempt)
        if segment is not None:
            segments.remove(segment)
        if attempt is not None:
            end = decision.now + attempt.seconds
        elif segment is not None and not is_last:
            end = decision.now + segment.seconds
        else:
            # The last one, or one that gave way to the next: to a hedge, or in a queue.
            end = ended_at if is_last else record.decisions[number].now
        yield _Step(
            decision=decision,
            attempt=attempt,
            segment=segment,
            ended_at=max(decision.now, min(end, ended_at)),
            is_last=is_last and attempt is None,
        )


def _name(record: RequestRecord) -> str:
    # A name of few values, as the conventions ask for: the route, not the path.
    return f"POST {record.endpoint}"


def _operation(record: RequestRecord) -> str:
    """The operation's name in the conventions."""
    command = record.decisions[0].request.command if record.decisions else "chat"
    return {"complete": "text_completion", "embed": "embeddings"}.get(command, "chat")


def _model(record: RequestRecord, decision: Decision) -> str:
    return short_word(decision.request.model or record.model or "auto")


def _is_ours(record: RequestRecord) -> bool:
    """Whether the error is the server's: a client's is none, by the conventions for HTTP."""
    return record.status is not None and record.status >= 500


def _of_gateway(record: RequestRecord) -> Attributes:
    found: Attributes = {
        "http.request.method": "POST",
        "http.route": record.endpoint,
        "gen_ai.operation.name": _operation(record),
        "gen_ai.request.model": short_word(record.model or "auto"),
        "punch.request_id": record.request_id,
        "punch.stream": record.stream,
        "punch.continuations": sum(d.reason == "continuation" for d in record.decisions),
    }
    if record.status is not None:
        found["http.response.status_code"] = record.status
    if record.key_id is not None:
        found["punch.key_id"] = record.key_id
    if record.error_code is not None:
        found["error.type"] = record.error_code
    return found


def _of_decision(decision: Decision) -> Attributes:
    found: Attributes = {
        "punch.policy": decision.policy,
        "punch.reason": decision.reason,
        "punch.candidates": len(decision.order) + len(decision.removed),
        "punch.removed": len(decision.removed),
    }
    if decision.chosen is not None:
        found["punch.peer_id"] = decision.chosen.peer_id
        if decision.unit == "s":
            found["punch.predicted_seconds"] = decision.score(decision.chosen)
    return found


def _of_attempt(record: RequestRecord, decision: Decision) -> Attributes:
    return {
        "gen_ai.operation.name": _operation(record),
        "gen_ai.request.model": _model(record, decision),
        "gen_ai.provider.name": _backend(decision),
        "gen_ai.request.stream": record.stream,
        "server.address": str(decision.chosen_peer),
    }


def _of_backend(record: RequestRecord, step: _Step) -> Attributes:
    found: Attributes = {
        "gen_ai.operation.name": _operation(record),
        "gen_ai.provider.name": _backend(step.decision),
        "gen_ai.response.id": record.request_id,
    }
    made_by = record.provenance
    if made_by is not None:
        found["gen_ai.response.model"] = short_word(made_by.model or "")
        found["punch.provenance"] = made_by.kind
    if step.segment is not None and not step.is_last:
        found["gen_ai.usage.output_tokens"] = step.segment.tokens
    elif step.is_last:
        earlier = [s.tokens for s in record.segments if s is not step.segment]
        # Of the answer, as the prompt's: what of it was made for this caller is the cost.
        counted = record.usage.completion_tokens
        whole = record.cost.answer if counted is None else counted
        found["gen_ai.usage.output_tokens"] = max(0, whole - sum(earlier))
        if record.usage.prompt_tokens is not None:
            found["gen_ai.usage.input_tokens"] = record.usage.prompt_tokens
        if record.usage.cached_tokens is not None:
            found["gen_ai.usage.cache_read.input_tokens"] = record.usage.cached_tokens
    first = record.first_text_at
    if first is not None and step.decision.now <= first <= step.ended_at:
        found["gen_ai.response.time_to_first_chunk"] = first - step.decision.now
    return found


def _backend(decision: Decision) -> str:
    chosen = decision.chosen
    return "unknown" if chosen is None else short_word(chosen.lane.backend)


@asynccontextmanager
async def open_spans(
    events: Bus, *, endpoint: str | None = None, provider: TracerProvider | None = None
) -> AsyncIterator[Spans | None]:
    """Spans of every request that ends, for as long as the context lasts; `None` without a place.

    Args:
      events: Where the gateway publishes.
      endpoint: The collector, as ``OTEL_EXPORTER_OTLP_ENDPOINT`` has it: ``http://HOST:4318``.
        The exporter reads the other variables of OpenTelemetry itself.
      provider: Where spans go instead; it stays open.

    """
    made = provider
    if made is None and endpoint:
        made = _provider(endpoint)
    if made is None:
        yield None
        return
    spans = Spans(made)
    try:
        async with open_subscriber(events, *spans.KINDS, handle=spans.hear, lost=_lose):
            yield spans
    finally:
        if made is not provider:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await trio.to_thread.run_sync(made.shutdown, abandon_on_cancel=True)


def _lose(count: int) -> None:
    log.warning("traces of requests are missing: there were too many at once", lost=count)


def _provider(endpoint: str) -> TracerProvider | None:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning(
            "no traces: OTEL_EXPORTER_OTLP_ENDPOINT is set and OpenTelemetry is not installed",
            remedy="pip install 'punch-router[otel]'",
        )
        return None
    resource = Resource.create({"service.version": __version__})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        # Nobody has given it another name with OTEL_SERVICE_NAME.
        resource = resource.merge(Resource({"service.name": "punch-gateway"}))
    # Its own end at exit would wait for a collector that is not there.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
