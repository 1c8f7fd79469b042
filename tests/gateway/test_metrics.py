"""What Prometheus is told, and that it stays little."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

import attrs
import decision_logs as made
import pytest
import request_records as records
import trio
from prometheus_text import told
from starlette.applications import Starlette
from trio.testing import MockClock

from punch.capability import PeerId
from punch.events import Bus, Cost, RequestRecord
from punch.gateway import Metrics, metrics_route, open_metrics
from punch.gateway.telemetry._metrics import MAX_MODELS, MAX_PEERS, MAX_WORDS
from punch.peers import Breaker, PeerRecord
from punch.wire import Provenance


@attrs.define
class Swarm:
    """As much of a router as is looked at."""

    peers: tuple[PeerRecord, ...] = made.PEERS
    sessions: int = 3


def observe(metrics: Metrics, *watched: RequestRecord) -> None:
    """Exchanges from their beginning to their end."""
    for record in watched:
        for event in records.life(record):
            metrics.hear(event)


async def test_a_request_is_counted_with_its_tokens_and_times() -> None:
    """Under the names that vLLM has for them."""
    metrics = Metrics(Swarm())
    observe(metrics, records.easy())
    found = await told(metrics)

    assert found["punch_requests_total", "/v1/chat/completions", "smollm2", "200"] == 1
    assert found["punch_prompt_tokens_total", "smollm2"] == 420
    assert found["punch_generation_tokens_total", "smollm2"] == 11
    assert found["punch_time_to_first_token_seconds_sum", "smollm2"] == 2
    assert found["punch_time_to_first_token_seconds_bucket", "1.0", "smollm2"] == 0
    assert found["punch_time_to_first_token_seconds_bucket", "2.5", "smollm2"] == 1
    assert found["punch_time_per_output_token_seconds_sum", "smollm2"] == pytest.approx(0.1)
    assert found["punch_e2e_request_latency_seconds_sum", "smollm2"] == 3
    assert found["punch_decisions_total", "completion-time", "first"] == 1


async def test_failovers_and_continuations_are_told_apart() -> None:
    """One is before the first text, the other after it."""
    metrics = Metrics(Swarm())
    observe(metrics, records.continued(), records.failed_over(), records.failed_over())
    found = await told(metrics)

    assert found["punch_decisions_total", "completion-time", "first"] == 3
    assert found["punch_decisions_total", "completion-time", "continuation"] == 1
    assert found["punch_decisions_total", "completion-time", "failover"] == 2
    assert found["punch_continuations_total",] == 1
    assert found["punch_failovers_total",] == 2


async def test_a_decision_that_found_nobody_is_no_failover() -> None:
    """It is what the request failed with."""
    metrics = Metrics(Swarm())
    nobody = attrs.evolve(made.decide(peers=()), reason="failover")
    observe(metrics, records.easy(decisions=(nobody,), status=503, error_code="no_peer"))
    found = await told(metrics)

    assert found["punch_decisions_total", "completion-time", "failover"] == 1
    assert found["punch_failovers_total",] == 0


async def test_how_long_it_takes_to_fail_is_no_latency() -> None:
    """A broken swarm must not look fast."""
    metrics = Metrics(Swarm())
    observe(metrics, records.easy(status=503, error_code="no_peer", first_text_at=None))
    observe(metrics, records.easy(status=None, error_code="disconnected", cost=Cost(), tokens=0))
    found = await told(metrics)

    assert ("punch_e2e_request_latency_seconds_count", "smollm2") not in found
    assert found["punch_requests_total", "/v1/chat/completions", "smollm2", "503"] == 1
    assert found["punch_requests_total", "/v1/chat/completions", "smollm2", "499"] == 1


async def test_what_runs_and_what_waits_are_told_apart() -> None:
    """As the gateway stands at the scrape."""
    waiting = 0
    metrics = Metrics(Swarm(), waiting=lambda: waiting)
    for number in range(5):
        metrics.hear(records.started(records.easy(request_id=f"{number}")))
    waiting = 2
    found = await told(metrics)

    assert found["punch_num_requests_running",] == 3
    assert found["punch_num_requests_waiting",] == 2
    assert (found["punch_peers",], found["punch_sessions",]) == (3, 3)
    assert ("process_resident_memory_bytes",) in found
    assert any(name[0] == "punch_build_info" for name in found)


async def test_the_breaker_of_a_peer_is_the_worst_of_its_models() -> None:
    """Closed, half-open, open: 0, 1, 2."""
    broken = Breaker(failures=1, until=100.0)
    probing = Breaker(failures=1, until=100.0, probing=True)
    peers = (
        made.record(made.FAST),
        made.record(made.SLOW, breakers={"smollm2": probing}),
        made.record(made.MOCK, breakers={None: broken, "smollm2": probing}),
    )
    found = await told(Metrics(Swarm(peers=peers)))

    states = [found["punch_peer_breaker_state", peer.peer_id] for peer in peers]
    assert states == [0, 1, 2]


async def test_peers_beyond_two_hundred_are_one() -> None:
    """The worst of them, and all their requests."""
    peers = [made.record(PeerId(f"peer-{number}")) for number in range(MAX_PEERS + 50)]
    peers[-1] = made.record(PeerId("last"), breakers={None: Breaker(failures=1)})
    found = await told(Metrics(Swarm(peers=tuple(peers))))

    names = [name for name in found if name[0] == "punch_peer_breaker_state"]
    assert len(names) == MAX_PEERS + 1
    assert found["punch_peer_breaker_state", "other"] == 2
    assert found["punch_peers",] == MAX_PEERS + 50


async def test_models_that_nobody_offers_are_one(autojump_clock: MockClock) -> None:
    """A caller can ask for anything."""
    metrics = Metrics(Swarm())
    refused = {"provenance": None, "status": 404, "error_code": "unknown_model", "decisions": ()}
    for number in range(500):
        observe(metrics, records.easy(model=f"made up {number}", **refused))
    observe(metrics, records.easy(model=None, **refused))
    observe(metrics, records.easy(model=None))
    found = await told(metrics)

    assert found["punch_requests_total", "/v1/chat/completions", "other", "404"] == 500
    assert found["punch_requests_total", "/v1/chat/completions", "auto", "404"] == 1
    assert found["punch_requests_total", "/v1/chat/completions", "smollm2", "200"] == 1


async def test_labels_stay_few_whatever_peers_and_callers_say(autojump_clock: MockClock) -> None:
    """Peers offer thousands of models, and come and go."""
    names = [f"model {number}" for number in range(400)] + ["x" * 5000]
    swarm = Swarm(peers=(made.record(made.FAST, models=names),))
    metrics = Metrics(swarm)
    for number, name in enumerate(names):
        from_it = Provenance(kind="real", backend="llama_cpp", model=name)
        observe(metrics, records.easy(provenance=from_it, endpoint=f"/{number}"))
    found = await told(metrics)

    models = {name[1] for name in found if name[0] == "punch_prompt_tokens_total"}
    endpoints = {name[1] for name in found if name[0] == "punch_requests_total"}
    assert len(models) == MAX_MODELS + 1
    assert len(endpoints) <= MAX_WORDS + 1
    assert sum(v for n, v in found.items() if n[0] == "punch_requests_total") == len(names)


async def test_a_new_model_is_counted_by_its_name_within_a_second(
    autojump_clock: MockClock,
) -> None:
    """The models on offer are not looked through for every request."""
    swarm = Swarm(peers=())
    metrics = Metrics(swarm)
    observe(metrics, records.easy())
    swarm.peers = made.PEERS
    await trio.sleep(1)
    observe(metrics, records.easy())
    found = await told(metrics)

    assert found["punch_prompt_tokens_total", "other"] == 420
    assert found["punch_prompt_tokens_total", "smollm2"] == 420


async def test_the_route_answers_in_the_format_that_was_asked_for() -> None:
    """Prometheus itself asks for OpenMetrics."""
    metrics = Metrics(Swarm())
    observe(metrics, records.easy())
    app = Starlette(routes=[metrics_route(metrics)])
    for accept, media_type in (
        (b"", "text/plain"),
        (b"application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
    ):
        sent: list[MutableMapping[str, Any]] = []

        async def send(
            message: MutableMapping[str, Any], sent: list[MutableMapping[str, Any]] = sent
        ) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http", "method": "GET", "path": "/metrics", "raw_path": b"/metrics",
            "query_string": b"", "headers": [(b"accept", accept)], "http_version": "1.1",
            "scheme": "http", "root_path": "", "server": ("x", 80), "client": ("x", 1),
        }  # fmt: skip
        await app(scope, receive, send)
        assert sent[0]["status"] == 200
        assert dict(sent[0]["headers"])[b"content-type"].startswith(media_type.encode())
        assert b"punch_build_info" in sent[1]["body"]
        assert b"_created" not in sent[1]["body"]


async def test_counting_a_request_takes_less_than_a_tenth_of_a_millisecond() -> None:
    """The worst case: one that was continued."""
    metrics, record = Metrics(Swarm()), records.continued()
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(50):
            observe(metrics, record)
        best = min(best, (time.perf_counter() - began) / 50)
    assert best < 100e-6


async def test_what_was_too_fast_to_be_counted_is_counted_as_that() -> None:
    """And a request whose end is among it does not run for ever."""
    metrics = Metrics(Swarm())
    for ended_at in (None, 103.0):
        metrics.hear(records.started(records.easy(ended_at=ended_at)))
    metrics.lose(5)
    found = await told(metrics)

    assert found["punch_events_lost_total",] == 5
    assert found["punch_num_requests_running",] == 1


async def test_a_scrape_counts_what_has_ended_before_it() -> None:
    """However many events wait for the metrics' own task."""
    events = Bus()
    async with open_metrics(Swarm(), events=events) as metrics:
        for _ in range(3):
            for event in records.life(records.easy()):
                events.publish(event)
        found = await told(metrics)

    assert found["punch_requests_total", "/v1/chat/completions", "smollm2", "200"] == 3
