"""Counts for Prometheus, at ``/metrics``. The only importer of `prometheus_client`.

Names are those of vLLM where it has one (and so of the llm-d dashboards made for it), with
``punch_`` in the place of ``vllm:``; the buckets are vLLM's too, so that both fit one diagram.

| name | labels | from |
| --- | --- | --- |
| punch_requests_total | endpoint, status, model | requests that ended |
| punch_refused_total | status | requests that asked no model and got an error |
| punch_events_lost_total | | events that the metrics were too slow to count |
| punch_num_requests_running, punch_num_requests_waiting | | the gateway, now |
| punch_prompt_tokens_total, punch_generation_tokens_total | model | what keys pay for |
| punch_time_to_first_token_seconds | model | arrival to the first text |
| punch_time_per_output_token_seconds | model | first text to the end, for each further token |
| punch_e2e_request_latency_seconds | model | arrival to the end |
| punch_decisions_total | policy, reason | first, failover, continuation, hedge, move |
| punch_failovers_total, punch_continuations_total | | those decisions that found a peer |
| punch_peers, punch_sessions | | the router, now |
| punch_peer_breaker_state | peer | 0 closed, 1 half-open, 2 open: the worst of its models |
| punch_peer_requests_running, punch_peer_requests_waiting | peer | its last load report |
| punch_peer_info | peer, name | 1, for what it says that its machine is called |
| punch_served_requests_total, punch_served_refused_total | machine | a listener of this process |
| punch_served_prompt_tokens_total, punch_served_tokens_total | machine | the same |
| punch_served_machine_info | machine, name | 1, for what people here call a member's machine |
| punch_build_info | version, python | 1 |
| process_* | | memory, descriptors, processor time of this process |

Every set of labels is bounded: callers and peers choose some of the words in it.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Protocol

import trio
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..._subscribers import open_subscriber
from ..._version import __version__
from ...events import (
    DISCONNECTED,
    Bus,
    Event,
    RequestEnded,
    RequestRecord,
    RequestRefused,
    RequestStarted,
)
from ...listener import MemberUsage
from ...peers import PeerRecord
from ...wire import MAX_WORD_CHARACTERS

# Label values of each kind; what comes later is `OTHER`.
MAX_MODELS = 100
MAX_PEERS = 200
MAX_WORDS = 64
OTHER = "other"

# A model that the router was to choose, and that was never chosen.
ANY = "auto"

# How long the models on offer are taken to be the same, in seconds: adverts come every second.
OFFERS_SECONDS = 1.0

# nginx's status for a client that went away before there was one.
CLIENT_GONE = "499"

# vLLM 0.11, vllm/v1/metrics/loggers.py, in seconds.
FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
PER_TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
LATENCY_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip

_BREAKER_STATES = {"closed": 0, "half-open": 1, "open": 2}


class Watched(Protocol):
    """The part of a `Router` that the metrics read."""

    @property
    def peers(self) -> tuple[PeerRecord, ...]:
        """A snapshot of the listeners that are connected."""

    @property
    def sessions(self) -> int:
        """How many sessions with listeners are open."""


Served = Callable[[], Sequence[MemberUsage]]
"""Gives what each member has asked of the listener of this process: a bounded number of rows."""


Counts = dict[tuple[str, ...], int]
"""Numbers by the values of a counter's labels."""


class _Words:
    """The values that a label has had: the first ones, up to a number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __contains__(self, word: str) -> bool:
        return word in self._known

    def bounded(self, word: str) -> str:
        """*word*, or `OTHER` if there are too many."""
        if word in self._known:
            return word
        if len(self._known) >= self._most or len(word) > MAX_WORD_CHARACTERS:
            return OTHER
        self._known.add(word)
        return word


class Metrics:
    """Counts what the gateway does: a subscriber of `KINDS`. Made by `open_metrics`.

    Args:
      router: Whose peers are shown.
      waiting: Says how many requests wait for the gateway, see `Quotas.statistics`.
      served: Says what members have asked of the listener of this process, if there is one.

    """

    KINDS = (RequestStarted, RequestEnded, RequestRefused)

    def __init__(
        self,
        router: Watched,
        *,
        waiting: Callable[[], int] = lambda: 0,
        served: Served = tuple,
    ) -> None:
        self.registry = CollectorRegistry()
        """The registry of all metrics; further collectors may be added."""
        self._router = router
        self._under_way: set[RequestRecord] = set()
        self._catch_up: Callable[[], None] | None = None
        self._models = _Words(MAX_MODELS)
        self._words = _Words(MAX_WORDS)
        self._offered: frozenset[str] = frozenset()
        self._offered_at = -float("inf")
        self._now = _Now(
            router, running=lambda: len(self._under_way), waiting=waiting, served=served
        )
        registry = self.registry
        requests = Counter(
            "punch_requests", "Requests that ended.", ("endpoint", "status", "model"),
            registry=registry,
        )  # fmt: skip
        refused = Counter(
            "punch_refused", "Requests that asked no model and got an error.", ("status",),
            registry=registry,
        )  # fmt: skip
        prompt_tokens = Counter(
            "punch_prompt_tokens", "Tokens of prompts.", ("model",), registry=registry
        )
        generation_tokens = Counter(
            "punch_generation_tokens", "Tokens of answers.", ("model",), registry=registry
        )
        first_token = Histogram(
            "punch_time_to_first_token_seconds", "Arrival to the first text.", ("model",),
            registry=registry, buckets=FIRST_TOKEN_BUCKETS,
        )  # fmt: skip
        per_token = Histogram(
            "punch_time_per_output_token_seconds",
            "First text to the end, for each token after the first.", ("model",),
            registry=registry, buckets=PER_TOKEN_BUCKETS,
        )  # fmt: skip
        latency = Histogram(
            "punch_e2e_request_latency_seconds", "Arrival to the end.", ("model",),
            registry=registry, buckets=LATENCY_BUCKETS,
        )  # fmt: skip
        decisions = Counter(
            "punch_decisions", "Decisions made for requests that ended.", ("policy", "reason"),
            registry=registry,
        )  # fmt: skip
        # A series is looked up once: the library's own look-up costs more than the counting. They
        # are as few as the words in them.
        self._first_token = cache(first_token.labels)
        self._per_token = cache(per_token.labels)
        self._latency = cache(latency.labels)
        # What was counted since the last scrape, by the values of the labels: the library takes
        # seven calls for each of them.
        self._requests: Counts = defaultdict(int)
        self._refused: Counts = defaultdict(int)
        self._prompt_tokens: Counts = defaultdict(int)
        self._generation_tokens: Counts = defaultdict(int)
        self._decisions: Counts = defaultdict(int)
        self._counted = (
            (requests, self._requests),
            (refused, self._refused),
            (prompt_tokens, self._prompt_tokens),
            (generation_tokens, self._generation_tokens),
            (decisions, self._decisions),
        )
        self._failovers = Counter(
            "punch_failovers", "Another peer was asked before the first text.", registry=registry
        )
        self._continuations = Counter(
            "punch_continuations", "Another peer went on with a begun answer.", registry=registry
        )
        self._lost = Counter(
            "punch_events_lost", "Events that the metrics were too slow to count.",
            registry=registry,
        )  # fmt: skip
        registry.register(self._now)
        ProcessCollector(registry=registry)

    # ---- counting ----

    def hear(self, event: Event) -> None:
        """Count what an event says."""
        if isinstance(event, RequestStarted):
            self._under_way.add(event.request)
        elif isinstance(event, RequestEnded):
            self._count(event.request)
        elif isinstance(event, RequestRefused):
            self._refused[str(event.status),] += 1

    def lose(self, count: int) -> None:
        """Count lost events, and forget requests whose end may have been among them."""
        self._lost.inc(count)
        self._under_way = {each for each in self._under_way if each.ended_at is None}

    def _count(self, record: RequestRecord) -> None:
        self._under_way.discard(record)
        model = self._model_of(record)
        endpoint = self._words.bounded(record.endpoint)
        self._requests[endpoint, _status(record), model] += 1
        cost = record.cost
        self._prompt_tokens[model,] += cost.prompt
        self._generation_tokens[model,] += cost.answer
        self._observe_times(record, model, cost.answer)
        for decision in record.decisions:
            policy = self._words.bounded(decision.policy)
            self._decisions[policy, self._words.bounded(decision.reason)] += 1
            if decision.chosen is not None and decision.reason == "failover":
                self._failovers.inc()
            elif decision.chosen is not None and decision.reason == "continuation":
                self._continuations.inc()

    def _observe_times(self, record: RequestRecord, model: str, answer: int) -> None:
        began, first, ended = record.began_at, record.first_text_at, record.ended_at
        if first is not None:
            self._first_token(model).observe(first - began)
        if ended is None or record.error_code is not None:
            # Failures are left out: they are quick, and would make a broken swarm look fast.
            return
        self._latency(model).observe(ended - began)
        if first is not None and answer > 1:
            self._per_token(model).observe((ended - first) / (answer - 1))

    def _model_of(self, record: RequestRecord) -> str:
        """The model that answered, or else was asked for, if it is or was on offer."""
        made_by = record.provenance
        name = made_by.model if made_by is not None and made_by.model else record.model
        if name is None:
            return ANY
        if name in self._models:
            return name
        now = trio.current_time()
        if now - self._offered_at >= OFFERS_SECONDS:
            offers = [offer.name for peer in self._router.peers for offer in peer.capability.models]
            self._offered, self._offered_at = frozenset(offers), now
        return self._models.bounded(name) if name in self._offered else OTHER

    # ---- scrapes ----

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format that *accept* prefers, and that format's media type."""
        if self._catch_up is not None:
            self._catch_up()
        for counter, counts in self._counted:
            for values, number in counts.items():
                counter.labels(*values).inc(number)
            counts.clear()
        encode, media_type = choose_encoder(accept)
        # Here, where the router lives; spelling it out takes a while, and a thread can do that.
        self._now.look()
        lean = _WithoutBirthdays(self.registry)
        return await trio.to_thread.run_sync(encode, lean), media_type


def _status(record: RequestRecord) -> str:
    if record.status is not None:
        return str(record.status)
    return CLIENT_GONE if record.error_code == DISCONNECTED else "none"


class _WithoutBirthdays:
    """A registry without the moment at which each series was made, which doubles the counters.

    The library can leave them out itself, but only for the whole process, which may not be ours.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


class _Now(Collector):
    """Gauges of the router and the gateway, as they are at a scrape."""

    def __init__(
        self,
        router: Watched,
        *,
        running: Callable[[], int],
        waiting: Callable[[], int],
        served: Served,
    ) -> None:
        self._router = router
        self._served = served
        self._running = running
        self._waiting = waiting
        self._seen: list[Metric] = []

    def look(self) -> None:
        """Make the metrics of this moment, in trio's thread."""
        waiting, peers = self._waiting(), self._router.peers
        seen: list[Metric] = [
            _gauge("num_requests_running", "Requests worked on.", self._running() - waiting),
            _gauge("num_requests_waiting", "Requests that wait for the gateway.", waiting),
            _gauge("peers", "Listeners that are known.", len(peers)),
            _gauge("sessions", "Sessions with listeners that are open.", self._router.sessions),
        ]
        seen += _of_peers(peers)
        seen += _of_members(self._served())
        build = {"version": __version__, "python": platform.python_version()}
        seen.append(InfoMetricFamily("punch_build", "What is running.", build))
        self._seen = seen

    def describe(self) -> Iterator[Metric]:
        """Describe nothing, so that registering does not read the router."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics that `look` made last."""
        return iter(self._seen)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"punch_{name}", about, max(0.0, value))


def _of_peers(peers: Sequence[PeerRecord]) -> list[Metric]:
    """A sample for each of the first 200 peers, and one for all others together."""
    breakers = GaugeMetricFamily(
        "punch_peer_breaker_state",
        "0 closed, 1 half-open, 2 open: the worst of the peer's models.",
        labels=("peer",),
    )
    running = GaugeMetricFamily(
        "punch_peer_requests_running", "Slots that are taken, as the peer says.", labels=("peer",)
    )
    waiting = GaugeMetricFamily(
        "punch_peer_requests_waiting", "Requests in its queue, as the peer says.", labels=("peer",)
    )
    named = GaugeMetricFamily(
        "punch_peer_info",
        "1, for what the peer says that its machine is called.",
        labels=("peer", "name"),
    )
    shown, others = peers[:MAX_PEERS], peers[MAX_PEERS:]
    for peer in shown:
        # As it says it: the identity beside it tells apart those that say the same.
        if peer.capability.machine_name is not None:
            named.add_metric((peer.peer_id, peer.capability.machine_name), 1)
    for name, group in (*((peer.peer_id, (peer,)) for peer in shown), (OTHER, others)):
        if not group:
            continue
        loads = [lane.load for peer in group for lane in peer.capability.lanes]
        breakers.add_metric((name,), max(map(_breaker_state, group)))
        running.add_metric((name,), sum(load.busy for load in loads))
        waiting.add_metric((name,), sum(load.queued for load in loads))
    return [breakers, running, waiting, named]


def _of_members(rows: Sequence[MemberUsage]) -> list[Metric]:
    """What each member has asked of the listener of this process."""
    if not rows:
        return []
    counted = {
        "requests": "Requests of a member's machine that are over.",
        "refused": "Those of them that were refused.",
        "prompt_tokens": "Tokens of their prompts.",
        "tokens": "Tokens of their answers.",
    }
    found: list[Metric] = []
    for field, about in counted.items():
        counter = CounterMetricFamily(f"punch_served_{field}", about, labels=("machine",))
        for row in rows:
            counter.add_metric((row.machine or OTHER,), getattr(row, field))
        found.append(counter)
    named = GaugeMetricFamily(
        "punch_served_machine_info",
        "1, for what people here call a member's machine.",
        labels=("machine", "name"),
    )
    for row in rows:
        if row.machine is not None and row.name:
            named.add_metric((row.machine, row.name), 1)
    return [*found, named]


def _breaker_state(peer: PeerRecord) -> int:
    return max((_BREAKER_STATES[b.state] for b in peer.breakers.values()), default=0)


@asynccontextmanager
async def open_metrics(
    router: Watched,
    *,
    events: Bus,
    waiting: Callable[[], int] = lambda: 0,
    served: Served = tuple,
) -> AsyncIterator[Metrics]:
    """Metrics of what is published on *events*, for as long as the context lasts.

    Args:
      router: Whose peers are shown.
      events: Where the gateway publishes.
      waiting: Says how many requests wait for the gateway, see `Quotas.statistics`.
      served: Says what members have asked of the listener of this process, if there is one.

    """
    metrics = Metrics(router, waiting=waiting, served=served)
    async with open_subscriber(
        events, *metrics.KINDS, handle=metrics.hear, lost=metrics.lose
    ) as subscriber:
        metrics._catch_up = subscriber.catch_up
        yield metrics


def metrics_route(metrics: Metrics, path: str = "/metrics") -> Route:
    """The route that Prometheus scrapes."""

    async def scrape(request: Request) -> Response:
        body, media_type = await metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media_type, "cache-control": "no-store"})

    return Route(path, scrape, methods=["GET"], name="metrics")
