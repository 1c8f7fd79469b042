"""The table of messages: which fields each has, with types, ranges and lengths.

The numbers themselves stand in `_limits`, and the bytes are read by `_codec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..capability import MAX_MACHINE_NAME_CHARACTERS, Capability, Gpu, Lane, Load, ModelOffer
from ._decoders import (
    BadValue,
    Decoder,
    binary,
    flag,
    integer,
    label,
    many,
    matching,
    number,
    one_of,
    record,
    set_of,
    shown,
    text,
)
from ._frames import (
    Advert,
    Cancel,
    Chunk,
    Credit,
    Goodbye,
    Hello,
    LoadReport,
    Ping,
    Pong,
    Progress,
    Reasoning,
    Request,
    Response,
    Standing,
    Started,
)
from ._limits import (
    LIMITS,
    MAX_ADDRESSES,
    MAX_ALTERNATIVES,
    MAX_ENTRIES,
    MAX_FRAME_BYTES,
    MAX_GRANT_BYTES,
    MAX_INPUTS,
    MAX_KEY_BYTES,
    MAX_LANES,
    MAX_LOGPROBS,
    MAX_NAME_CHARACTERS,
    MAX_OFFERS,
    MAX_REACH,
    MAX_REASON_CHARACTERS,
    MAX_REGISTRATION_BYTES,
    MAX_REVOCATION_BYTES,
    MAX_REVOCATIONS,
    MAX_ROLES,
    MAX_TOKEN_CHARACTERS,
    MAX_TOOL_CALLS,
    MIN_LOGPROB,
    SAMPLING_NUMBERS,
)
from ._registration import Join, Reach, Registration, Roster
from ._request import ChatMessage, CommandRequest, ContentPart, Sampling, Tool, ToolCall
from ._response import CommandResponse, Completion, Fault, Provenance, Timings, TokenLogprob, Usage

# The minor version of the protocol grows with each added field or message.
MINOR = 2


def _of(name: str) -> Decoder:
    """The decoder of a field of a request, from the table of limits."""
    limit = LIMITS[name]
    if limit.pattern is not None:
        return matching(limit.pattern, f"{limit.span} {limit.unit}")
    if limit.printable:
        return label(int(limit.most))
    if limit.type is str:
        return text(int(limit.most), least=int(limit.least))
    if limit.type is bytes:
        return binary(int(limit.most))
    if limit.type is int:
        return integer(int(limit.least), int(limit.most))
    return number(limit.least, limit.most)


def _list_of(decoder: Decoder, name: str) -> Decoder:
    """The decoder of a list in a request, from the table of limits."""
    return many(decoder, int(LIMITS[name].most))


_name = label(MAX_NAME_CHARACTERS)
_peer_id = label(128)
_request_id = _of("request_id")
_digest = _of("model_digest")
_count = integer(0, 1 << 53)
_seconds = number(0.0, 1e9)
_rate = number(1e-6, 1e9)
_share = number(0.0, 1.0)
_prose = text(MAX_FRAME_BYTES)
_sentence = text(4096)
_command = one_of("chat", "complete", "embed", "count", "capabilities", "ping")

_gpu = record(
    Gpu,
    name=_name,
    total_bytes=_count,
    free_bytes=_count,
    usage=_share,
    compute_units=_count,
)
_tool_call = record(
    ToolCall, id=_name, name=_name, arguments=_of("messages[].tool_calls[].arguments")
)
_tool = record(
    Tool,
    # Which characters a name may have is the caller's to mend: `check_request` says so, where
    # a frame that cannot be read would end the session.
    name=label(int(LIMITS["tools[].name"].most)),
    description=_prose,
    parameters=_of("tools[].parameters"),
)
_token = text(MAX_TOKEN_CHARACTERS)
_logprob = number(MIN_LOGPROB, 0.0)


def _token_logprob(value: Any) -> TokenLogprob:
    """A token of an answer: itself and its alternatives, each followed by its log-probability.

    One array a token: as maps, an answer would have more containers than a frame may.
    """
    if type(value) is not list or len(value) % 2 or not 2 <= len(value) <= 2 + 2 * MAX_ALTERNATIVES:
        raise BadValue(
            f"a token, a number, and at most {MAX_ALTERNATIVES} such pairs more, got {shown(value)}"
        )
    found, probability, *rest = value
    return TokenLogprob(
        token=_token(found),
        logprob=_logprob(probability),
        top=tuple(
            (_token(one), _logprob(its)) for one, its in zip(rest[::2], rest[1::2], strict=True)
        ),
    )


_offer = record(
    ModelOffer,
    name=_name,
    digest=_digest,
    context_tokens=integer(1, 1 << 40),
    features=set_of(label(32), 32),
    parameters=_count,
    quantization=label(64),
    size_bytes=_count,
    kv_bytes_per_token=_count,
    chat_template=_digest,
    continues=flag,
    load_seconds=_seconds,
    prefill_rate=_rate,
    decode_rate=_rate,
    usual_tokens=integer(1, 1 << 40),
    slowdown=number(0.0, 1e3),
    id=label(64),
    lane=label(64),
    max_output=_of("max_tokens"),
    architecture=label(64),
    embedding_length=integer(1, 1 << 24),
    split=flag,
    own_workers=flag,
    plain_rpc=flag,
    machines=integer(1, 1 << 16),
    loaded_bytes=_count,
    gpu_bytes=_count,
)


def fault_of_offer(offer: ModelOffer) -> str | None:
    """The rule that *offer* breaks, for a person; `None` if peers can read it."""
    fields = attrs.asdict(offer, recurse=False) | {"features": list(offer.features)}
    # What is not known is not sent.
    told = {name: value for name, value in fields.items() if value not in (None, "")}
    try:
        _offer({"name": offer.name} | told)
    except BadValue as bad:
        return f"{'.'.join(bad.place)} must be {bad.expected}"
    return None


_load = record(
    Load,
    slots=integer(1, 1 << 16),
    busy=_count,
    queued=_count,
    queue_limit=_count,
    queued_prompt_tokens=_count,
    output_tokens_left=_count,
    draining=flag,
)
_lane = record(
    Lane,
    id=label(64),
    backend=label(64),
    simulated=flag,
    load=_load,
    state=label(32),
    threads=_count,
    max_seconds=_seconds,
    max_priority=_of("priority"),
    closed_for=_seconds,
    reason=label(MAX_REASON_CHARACTERS),
)


_lane_id = text(64)


def _loads(value: Any) -> Mapping[str, Load]:
    """The loads of a peer's lanes, by their ids; the one lane of a small peer may have none."""
    if type(value) is not dict or len(value) > MAX_LANES:
        raise BadValue(f"a map of at most {MAX_LANES}, got {shown(value)}")
    return {_lane_id(name): _load(load) for name, load in value.items()}


@attrs.frozen(kw_only=True)
class _PeerWide:
    """What minor 0 says of the whole peer, and later ones of each lane."""

    backend: str
    simulated: bool
    load: Load | None = None
    threads: int | None = None


_peer_wide = record(_PeerWide, backend=label(64), simulated=flag, load=_load, threads=_count)
_claim = record(
    Capability,
    lanes=many(_lane, MAX_LANES),
    models=many(_offer, MAX_OFFERS),
    cpu_count=_count,
    cpu_usage=_share,
    memory_total_bytes=_count,
    memory_available_bytes=_count,
    disk_total_bytes=_count,
    disk_available_bytes=_count,
    gpus=many(_gpu, 64),
    machine_name=label(MAX_MACHINE_NAME_CHARACTERS),
)


_LATER = (
    "id lane max_output architecture embedding_length split own_workers plain_rpc machines "
    "loaded_bytes gpu_bytes"
)
_UNKNOWN_TO_MINOR_0 = {name: getattr(ModelOffer(name=""), name) for name in _LATER.split()}


def _capability(value: Any) -> Capability:
    """A capability: with lanes, or of one lane as minor 0 has it."""
    if type(value) is dict and "lanes" not in value:
        whole: _PeerWide = _peer_wide(value)
        lane = Lane(
            backend=whole.backend,
            simulated=whole.simulated,
            load=whole.load or Load(),
            threads=whole.threads,
        )
        old: Capability = _claim(value)
        # No peer of minor 0 names its offers: to it such a key is one of the unknown ones.
        models = tuple(attrs.evolve(offer, **_UNKNOWN_TO_MINOR_0) for offer in old.models)
        return attrs.evolve(old, lanes=(lane,), models=models, machine_name=None)
    claim: Capability = _claim(value)
    lanes = {lane.id for lane in claim.lanes}
    if len(lanes) < len(claim.lanes):
        raise BadValue("lanes with an id of their own each, got two of the same")
    named = [offer.id for offer in claim.models if offer.id is not None]
    if len(set(named)) < len(named):
        raise BadValue("offers with an id of their own each, got two of the same")
    for offer in claim.models:
        if offer.lane not in lanes:
            raise BadValue(f"offers of its own lanes, got one of {shown(offer.lane)}")
    return claim


_sampling = record(
    Sampling,
    **{name: _of(name) for name in SAMPLING_NUMBERS},
    stop=_list_of(_of("stop[]"), "stop"),
)
_part = record(
    ContentPart,
    type=_of("messages[].parts[].type"),
    text=_prose,
    media_type=_of("messages[].parts[].media_type"),
    data=_of("messages[].parts[].data"),
    url=_of("messages[].parts[].url"),
)
_command_request = record(
    CommandRequest,
    "request_id",  # Its default is for programs; on the wire it is given.
    request_id=_request_id,
    command=_command,
    model=_name,
    model_digest=_digest,
    offer=_of("offer"),
    messages=_list_of(
        record(
            ChatMessage,
            role=text(32, least=1),
            content=_prose,
            name=_name,
            tool_calls=_list_of(_tool_call, "messages[].tool_calls"),
            tool_call_id=_name,
            parts=_list_of(_part, "messages[].parts"),
            reasoning=_prose,
        ),
        "messages",
    ),
    prompt=_prose,
    inputs=_list_of(_prose, "inputs"),
    sampling=_sampling,
    tools=_list_of(_tool, "tools"),
    tool_choice=_of("tool_choice"),
    parallel_tool_calls=flag,
    reasoning_effort=_of("reasoning_effort"),
    reasoning_budget=_of("reasoning_budget"),
    response_schema=_of("response_schema"),
    logprobs=_of("logprobs"),
    stream=flag,
    stream_interval=_of("stream_interval"),
    strict=flag,
    timeout=_of("timeout"),
    priority=_of("priority"),
    continuable=flag,
    continuation=_prose,
)
_provenance = record(
    Provenance,
    kind=one_of("real", "simulated"),
    backend=label(64),
    model=_name,
    model_digest=_digest,
)
_command_response = record(
    CommandResponse,
    request_id=_request_id,
    status=one_of("success", "error", "refused", "timeout", "cancelled"),
    result=record(
        Completion,
        text=_prose,
        finish_reason=label(32),
        stopped_by=_of("stop[]"),
        tool_calls=many(_tool_call, MAX_TOOL_CALLS),
        logprobs=many(_token_logprob, MAX_LOGPROBS),
        reasoning=_prose,
        embeddings=many(many(number(-1e30, 1e30), MAX_ENTRIES), MAX_INPUTS),
    ),
    error=record(
        Fault,
        code=label(64),
        message=_sentence,
        retryable=flag,
        retry_after=_seconds,
        param=_name,
        engine_died=flag,
        engine_restarts=flag,
        prompt_tokens=_count,
        context_tokens=_count,
    ),
    executor=_peer_id,
    provenance=_provenance,
    usage=record(
        Usage,
        prompt_tokens=_count,
        completion_tokens=_count,
        cached_tokens=_count,
        reasoning_tokens=_count,
    ),
    timings=record(
        Timings,
        queue=_seconds,
        first_token=_seconds,
        total=_seconds,
        prefill=_seconds,
        decode=_seconds,
        batch=number(0.0, 1e6),
    ),
    capability=_capability,
    load=_load,
    lane=_lane_id,
)


@attrs.frozen(kw_only=True)
class _OneRole:
    """What minor 0 says of a peer's roles."""

    role: str


_reach = record(Reach, peer_id=_peer_id, ok=flag, address=label(400), why=label(32), by=label(32))

_join = record(
    Join,
    registration=binary(MAX_REGISTRATION_BYTES),
    signature=binary(128),
    minor=_count,
    grant=binary(MAX_GRANT_BYTES),
    root=binary(MAX_KEY_BYTES),
    reach=many(_reach, MAX_REACH),
    relayed=flag,
    near=flag,
)

MESSAGES: Mapping[str, Decoder] = {
    "hello": record(
        Hello,
        minor=_count,
        version=label(64),
        incarnation=_count,
        namespace=_name,
        # At least a megabyte: an advert with a thousand models must fit.
        max_frame=integer(1 << 20, 1 << 31),
        max_requests=integer(1, 1 << 20),
        grant=binary(MAX_GRANT_BYTES),
    ),
    "goodbye": record(Goodbye, code=label(64), message=_sentence),
    "advert": record(
        Advert, incarnation=_count, sequence=_count, age=_seconds, capability=_capability
    ),
    "load": record(LoadReport, sequence=_count, age=_seconds, loads=_loads),
    "request": record(Request, request=_command_request),
    "progress": record(
        Progress,
        request_id=_request_id,
        state=one_of("queued", "loading", "working"),
        ahead=_count,
        seconds=_seconds,
        prompt_tokens=_count,
        cached_tokens=_count,
    ),
    "started": record(Started, request_id=_request_id, provenance=_provenance),
    "chunk": record(
        Chunk, request_id=_request_id, text=text(1 << 16, least=1), tokens=integer(0, 1 << 20)
    ),
    "reasoning": record(
        Reasoning, request_id=_request_id, text=text(1 << 16, least=1), tokens=integer(0, 1 << 20)
    ),
    "response": record(Response, response=_command_response),
    "cancel": record(Cancel, request_id=_request_id),
    "credit": record(Credit, request_id=_request_id, amount=integer(1, 1 << 31)),
    "standing": record(
        Standing,
        grant=binary(MAX_GRANT_BYTES),
        revocations=many(binary(MAX_REVOCATION_BYTES), MAX_REVOCATIONS),
    ),
    "ping": record(Ping, nonce=_count),
    "pong": record(Pong, nonce=_count),
    "join": _join,
    "roster": record(
        Roster,
        namespace=_name,
        whole=flag,
        present=many(_join, 4096),
        gone=many(_peer_id, 4096),
        minor=_count,
        notices=set_of(label(32), 16),
        reach=many(_reach, 4096),
    ),
}

_registration = record(
    Registration,
    peer_id=_peer_id,
    namespace=_name,
    roles=set_of(label(32), MAX_ROLES),
    addresses=many(label(400), MAX_ADDRESSES),
    incarnation=_count,
    sequence=_count,
    lifetime=number(1.0, 86400.0),
)
_role = record(_OneRole, role=label(32))


def registration_of(value: Any) -> Registration:
    """A registration: with a set of roles, or with the one role of minor 0."""
    if type(value) is dict and "roles" not in value:
        one: _OneRole = _role(value)
        value = {**value, "roles": [one.role]}
    found: Registration = _registration(value)
    return found
