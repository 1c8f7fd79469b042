"""Hypothesis strategies for the pure core: every value that travels, and tables to route over."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from punch.capability import Capability, Gpu, Lane, Load, ModelOffer, PeerId
from punch.peers import Breaker, PeerRecord, Rates
from punch.routing import RouteRequest
from punch.wire import (
    Advert,
    Cancel,
    ChatMessage,
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    ContentPart,
    Credit,
    Fault,
    Goodbye,
    Hello,
    Join,
    LoadReport,
    Ping,
    Pong,
    Progress,
    Provenance,
    Reach,
    Reasoning,
    Registration,
    Request,
    Response,
    Roster,
    Sampling,
    Standing,
    Started,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)

# No deadline: a test that runs beside others on a busy machine is not wrong. 50 examples keep
# the whole core under half a minute.
settings.register_profile("punch", deadline=None, max_examples=50)
settings.load_profile("punch")


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value, or nothing."""
    return st.none() | strategy


def tuples_of(strategy: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[Any]:
    """A few values."""
    return st.lists(strategy, max_size=most).map(tuple)


# ---- values ----

peer_ids = st.text("abcdefgh", min_size=1, max_size=8).map(PeerId)
request_ids = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20
)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
labels = st.characters(codec="utf-8", exclude_categories=("C", "Z"))  # One line, printable.
names = st.text(labels, min_size=1, max_size=16)
prose = st.text(max_size=40)
counts = st.integers(0, 1 << 53)
shares = st.floats(0.0, 1.0)
seconds = st.floats(0.0, 1e9)
rates = st.floats(1e-6, 1e9)

# ---- what a peer claims ----

gpus = st.builds(
    Gpu,
    name=names,
    total_bytes=counts,
    free_bytes=maybe(counts),
    usage=maybe(shares),
    compute_units=maybe(counts),
)
offers = st.builds(
    ModelOffer,
    name=names,
    digest=maybe(digests),
    context_tokens=maybe(st.integers(1, 1 << 40)),
    features=st.frozensets(
        st.sampled_from(["chat", "complete", "embed", "tools", "json_schema", "logprobs", "other"])
    ),
    parameters=maybe(counts),
    quantization=maybe(st.text(labels, min_size=1, max_size=8)),
    size_bytes=maybe(counts),
    kv_bytes_per_token=maybe(counts),
    chat_template=maybe(digests),
    continues=st.booleans(),
    load_seconds=seconds,
    prefill_rate=maybe(rates),
    decode_rate=maybe(rates),
    usual_tokens=maybe(st.integers(1, 1 << 40)),
    slowdown=maybe(st.floats(0.0, 1e3)),
    architecture=maybe(st.text(labels, min_size=1, max_size=8)),
    embedding_length=maybe(st.integers(1, 1 << 24)),
    split=st.booleans(),
    own_workers=st.booleans(),
    plain_rpc=st.booleans(),
    machines=maybe(st.integers(1, 1 << 16)),
    loaded_bytes=maybe(counts),
    gpu_bytes=maybe(counts),
)
loads = st.builds(
    Load,
    slots=st.integers(1, 1 << 16),
    busy=counts,
    queued=counts,
    queue_limit=counts,
    queued_prompt_tokens=counts,
    output_tokens_left=counts,
    draining=st.booleans(),
)
lanes = st.builds(
    Lane,
    id=names,
    backend=names,
    simulated=st.booleans(),
    load=loads,
    state=st.sampled_from(["ready", "starting", "resting", "failed", "other"]),
    threads=maybe(counts),
)


@st.composite
def _of_its_lanes(draw: st.DrawFn, /, **fields: Any) -> Capability:
    """A claim whose offers are of its own lanes, each with an id of its own."""
    backends = draw(st.lists(lanes, max_size=3, unique_by=lambda lane: lane.id))
    models = draw(st.lists(offers, max_size=2 if backends else 0))
    models = [
        attrs.evolve(
            offer,
            id=draw(st.none() | st.just(f"o{number}")),
            lane=draw(st.sampled_from(backends)).id,
        )
        for number, offer in enumerate(models)
    ]
    return draw(
        st.builds(
            Capability, lanes=st.just(tuple(backends)), models=st.just(tuple(models)), **fields
        )
    )


capabilities = _of_its_lanes(
    cpu_count=maybe(counts),
    cpu_usage=maybe(shares),
    memory_total_bytes=maybe(counts),
    memory_available_bytes=maybe(counts),
    disk_total_bytes=maybe(counts),
    disk_available_bytes=maybe(counts),
    gpus=tuples_of(gpus, 2),
)

# ---- what is asked and answered ----

samplings = st.builds(
    Sampling,
    max_tokens=maybe(st.integers(1, 1 << 40)),
    temperature=maybe(st.floats(0.0, 100.0)),
    top_p=maybe(shares),
    top_k=maybe(st.integers(0, 1 << 31)),
    min_p=maybe(shares),
    repeat_penalty=maybe(st.floats(0.0, 100.0)),
    presence_penalty=maybe(st.floats(-2.0, 2.0)),
    frequency_penalty=maybe(st.floats(-2.0, 2.0)),
    stop=tuples_of(st.text(min_size=1, max_size=8)),
    seed=maybe(st.integers(0, (1 << 64) - 1)),
)
tool_calls = st.builds(ToolCall, id=names, name=names, arguments=prose | st.just("{}"))
tools = st.builds(
    Tool,
    name=names,
    description=maybe(prose),
    parameters=st.sampled_from(["{}", '{"type": "object"}', "no JSON"]),
)
content_parts = st.builds(
    ContentPart,
    type=st.sampled_from(["text", "image", "audio", "smell"]),
    text=maybe(prose),
    media_type=maybe(names),
    data=maybe(st.binary(max_size=20)),
    url=maybe(names),
)
chat_messages = st.builds(
    ChatMessage,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=prose,
    name=maybe(names),
    tool_calls=tuples_of(tool_calls, 2),
    tool_call_id=maybe(names),
    parts=tuples_of(content_parts, 2),
    reasoning=maybe(prose),
)
command_requests = st.builds(
    CommandRequest,
    request_id=request_ids,
    command=st.sampled_from(["chat", "complete", "embed", "count", "capabilities", "ping"]),
    model=maybe(names),
    model_digest=maybe(digests),
    offer=maybe(names),
    messages=tuples_of(chat_messages),
    prompt=maybe(prose),
    inputs=tuples_of(prose),
    sampling=samplings,
    tools=tuples_of(tools, 2),
    tool_choice=maybe(st.sampled_from(["auto", "none", "required", "function:f"])),
    parallel_tool_calls=maybe(st.booleans()),
    reasoning_effort=maybe(names),
    reasoning_budget=maybe(st.integers(0, 1 << 40)),
    response_schema=maybe(st.sampled_from(["{}", '{"type": "object"}'])),
    logprobs=maybe(st.integers(0, 20)),
    stream=st.booleans(),
    stream_interval=st.floats(0, 1),
    strict=st.booleans(),
    timeout=maybe(seconds),
    priority=st.integers(-100, 100),
    continuable=st.booleans(),
    continuation=maybe(prose),
)
provenances = st.builds(
    Provenance,
    kind=st.sampled_from(["real", "simulated"]),
    backend=names,
    model=maybe(names),
    model_digest=maybe(digests),
)
log_probabilities = st.floats(-1e4, 0.0)
token_logprobs = st.builds(
    TokenLogprob,
    token=prose,
    logprob=log_probabilities,
    top=tuples_of(st.tuples(prose, log_probabilities)),
)
completions = st.builds(
    Completion,
    text=prose,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", "boredom"]),
    stopped_by=maybe(st.text(min_size=1, max_size=8)),
    reasoning=prose,
    tool_calls=tuples_of(tool_calls, 2),
    logprobs=tuples_of(token_logprobs),
    embeddings=tuples_of(tuples_of(st.floats(-1e30, 1e30))),
)
faults = st.builds(
    Fault,
    code=names,
    message=prose,
    retryable=st.booleans(),
    retry_after=maybe(seconds),
    param=maybe(names),
    engine_died=st.booleans(),
    engine_restarts=st.booleans(),
    prompt_tokens=maybe(counts),
    context_tokens=maybe(counts),
)
command_responses = st.builds(
    CommandResponse,
    request_id=request_ids,
    status=st.sampled_from(["success", "error", "refused", "timeout", "cancelled"]),
    result=maybe(completions),
    error=maybe(faults),
    executor=maybe(peer_ids),
    provenance=maybe(provenances),
    usage=st.builds(
        Usage,
        prompt_tokens=maybe(counts),
        completion_tokens=maybe(counts),
        cached_tokens=maybe(counts),
        reasoning_tokens=maybe(counts),
    ),
    timings=st.builds(
        Timings,
        queue=maybe(seconds),
        first_token=maybe(seconds),
        total=maybe(seconds),
        prefill=maybe(seconds),
        decode=maybe(seconds),
        batch=maybe(st.floats(0.0, 1e6)),
    ),
    capability=maybe(capabilities),
    load=maybe(loads),
    lane=maybe(names | st.just("")),
)

# ---- messages ----

registrations = st.builds(
    Registration,
    peer_id=peer_ids,
    namespace=names,
    roles=st.frozensets(
        st.sampled_from(["listener", "dialer", "worker", "bootstrap", "relay", "other"])
    ),
    addresses=tuples_of(st.text(labels, min_size=1, max_size=20)),
    incarnation=counts,
    sequence=counts,
    lifetime=st.floats(1.0, 86400.0),
)
reaches = st.builds(
    Reach,
    peer_id=peer_ids,
    ok=st.booleans(),
    address=st.text(labels, min_size=1, max_size=40),
    why=st.text(labels, min_size=1, max_size=20),
    by=st.sampled_from(["bootstrap", "member"]),
)

joins = st.builds(
    Join,
    registration=st.binary(max_size=40),
    signature=st.binary(max_size=64),
    minor=counts,
    grant=maybe(st.binary(max_size=40)),
    root=maybe(st.binary(max_size=36)),
    reach=st.lists(reaches, max_size=4).map(tuple),
    relayed=st.booleans(),
    near=st.booleans(),
)

MESSAGES: MappingProxyType[type[Any], st.SearchStrategy[Any]] = MappingProxyType(
    {
        Hello: st.builds(
            Hello,
            minor=counts,
            version=st.text(labels, min_size=1, max_size=10),
            incarnation=counts,
            namespace=names,
            max_frame=st.integers(1 << 20, 1 << 31),
            max_requests=st.integers(1, 1 << 20),
            grant=maybe(st.binary(max_size=40)),
        ),
        Goodbye: st.builds(Goodbye, code=names, message=prose),
        Advert: st.builds(
            Advert, incarnation=counts, sequence=counts, age=seconds, capability=capabilities
        ),
        LoadReport: st.builds(
            LoadReport,
            sequence=counts,
            age=seconds,
            loads=st.dictionaries(names | st.just(""), loads, max_size=3),
        ),
        Request: st.builds(Request, request=command_requests),
        Progress: st.builds(
            Progress,
            request_id=request_ids,
            state=st.sampled_from(["queued", "loading", "working"]),
            ahead=maybe(counts),
            seconds=maybe(seconds),
        ),
        Started: st.builds(Started, request_id=request_ids, provenance=provenances),
        Chunk: st.builds(
            Chunk,
            request_id=request_ids,
            text=st.text(min_size=1, max_size=40),
            tokens=st.integers(0, 1 << 20),
        ),
        Reasoning: st.builds(
            Reasoning,
            request_id=request_ids,
            text=st.text(min_size=1, max_size=40),
            tokens=st.integers(0, 1 << 20),
        ),
        Response: st.builds(Response, response=command_responses),
        Cancel: st.builds(Cancel, request_id=request_ids),
        Credit: st.builds(Credit, request_id=request_ids, amount=st.integers(1, 1 << 31)),
        Standing: st.builds(
            Standing,
            grant=maybe(st.binary(max_size=40)),
            revocations=tuples_of(st.binary(max_size=40)),
        ),
        Ping: st.builds(Ping, nonce=counts),
        Pong: st.builds(Pong, nonce=counts),
        Join: joins,
        Roster: st.builds(
            Roster,
            namespace=names,
            whole=st.booleans(),
            present=tuples_of(joins),
            gone=tuples_of(peer_ids),
            minor=counts,
            reach=tuples_of(reaches),
        ),
    }
)
"""Message type to a strategy that makes every legal value of it."""

messages = st.one_of(*MESSAGES.values())

# ---- tables to route over ----

NOW = 1000.0
"""The time of every table below, in seconds."""

MODELS = ("llama", "phi", "qwen")

route_requests = st.builds(
    RouteRequest,
    model=maybe(st.sampled_from(MODELS)),
    command=st.sampled_from(["chat", "complete", "embed"]),
    needs=st.sampled_from([frozenset(), frozenset(), frozenset({"tools"})]),
    prompt_tokens=st.integers(0, 20_000),
    longest_tokens=maybe(st.integers(0, 20_000)),
    output_tokens=st.integers(1, 500),
    strict=st.booleans(),
    continuing=st.sampled_from([False, False, False, True]),
    chat_template=maybe(st.sampled_from(["a" * 64, "b" * 64])),
    tried=st.frozensets(peer_ids, max_size=2),
    serial=st.integers(0, 1000),
)

_routed_offers = st.builds(
    ModelOffer,
    name=st.sampled_from(MODELS),
    context_tokens=maybe(st.integers(512, 32_768)),
    features=st.sampled_from(
        [
            frozenset({"chat", "complete"}),
            frozenset({"chat", "complete", "tools"}),
            frozenset({"embed"}),
        ]
    ),
    load_seconds=st.sampled_from([0.0, 0.0, 4.0]),
    prefill_rate=maybe(st.floats(10.0, 5000.0)),
    decode_rate=maybe(st.floats(1.0, 200.0)),
    slowdown=maybe(shares),
    continues=st.booleans(),
    chat_template=maybe(st.sampled_from(["a" * 64, "b" * 64])),
)
_routed_loads = st.builds(
    Load,
    slots=st.integers(1, 8),
    busy=st.integers(0, 8),
    queued=st.integers(0, 8),
    queue_limit=st.integers(0, 16),
    queued_prompt_tokens=st.integers(0, 20_000),
    output_tokens_left=st.sampled_from([0, 0, 10, 5_000]),
    draining=st.sampled_from([False, False, False, True]),
)


@st.composite
def _measured_rates(draw: st.DrawFn) -> Rates:
    samples = draw(st.integers(0, 5))
    if not samples:
        return Rates()
    return Rates(
        prefill=draw(st.floats(10.0, 5000.0)),
        prefill_samples=samples,
        decode=draw(st.floats(1.0, 200.0)),
        decode_samples=samples,
    )


_routed_peers = st.builds(
    PeerRecord,
    peer_id=peer_ids,
    capability=st.builds(
        Capability.of_one_lane,
        backend=st.sampled_from(["mock", "llama_cpp"]),
        simulated=st.booleans(),
        models=st.lists(_routed_offers, max_size=2).map(tuple),
        load=_routed_loads,
        cpu_count=maybe(st.integers(1, 64)),
        cpu_usage=maybe(shares),
    ),
    incarnation=st.just(1),
    sequence=st.just(1),
    seen_at=st.sampled_from([NOW, NOW - 1.0, NOW - 5.0, NOW - 6.0]),
    rtt=maybe(st.floats(0.0, 2.0)),
    rates=st.dictionaries(st.sampled_from(MODELS), _measured_rates(), max_size=2),
    in_flight=st.integers(0, 4),
    sent_since_report=st.integers(0, 4),
    prompt_tokens_since_report=st.integers(0, 4000),
    output_tokens_since_report=st.integers(0, 1000),
    breakers=st.dictionaries(
        st.sampled_from([None, *MODELS]),
        st.builds(
            Breaker,
            failures=st.integers(1, 3),
            until=st.sampled_from([NOW - 1.0, NOW, NOW + 3.0]),
            probing=st.booleans(),
        ),
        max_size=2,
    ),
    resting_until=st.sampled_from([0.0, 0.0, NOW, NOW + 3.0]),
    path=st.sampled_from([None, "process", "machine", "network"]),
    reputation=shares,
)


def peer_tables(min_size: int = 0, max_size: int = 6) -> st.SearchStrategy[list[PeerRecord]]:
    """Peers of every sort, those that some filter removes among them, at the time `NOW`."""
    return st.lists(
        _routed_peers, min_size=min_size, max_size=max_size, unique_by=lambda peer: peer.peer_id
    )
