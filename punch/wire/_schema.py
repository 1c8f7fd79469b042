"""What each message is made of: fields, types, ranges and lengths, in one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from ..capability import Capability, Gpu, Lane, Load, ModelOffer
from ._messages import (
    Advert,
    Cancel,
    ChatMessage,
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    Credit,
    Fault,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Progress,
    Provenance,
    Request,
    Response,
    Sampling,
    Started,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
)
from ._readers import (
    BadValue,
    Reader,
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
from ._registration import Join, Registration, Roster

# The minor version of the protocol grows with each added field or message.
MINOR = 1

# Room for a long conversation (8 MiB is some two million tokens of English), small enough that
# a thousand hostile peers with one frame each do not fill a machine.
MAX_FRAME = 8 << 20

# A map or array with more entries than this is no message of ours.
MAX_ENTRIES = 1 << 16

# A peer has an address or two by each transport; a bootstrap keeps thousands of registrations.
MAX_ADDRESSES = 8
LONGEST_LISTENER_REGISTRATION = 2048
# Of a peer that is no listener: only members of minor 1 and above hear of it.
LONGEST_REGISTRATION = 4096
# As many roles as a peer may say it has, known or not.
MAX_ROLES = 16

# A machine runs a few engines; more lanes than this are no claim of ours.
MAX_LANES = 64

# A chain of four grants, which must fit the first frame of a session beside the longest namespace;
# and the root's public key, with what libp2p writes around it.
LONGEST_GRANT = 2560
LONGEST_KEY = 64

# OpenAI takes as many tools; with the schemas of more, little of any context is left.
MAX_TOOLS = 128
LONGEST_SCHEMA = 256 << 10

# Calls of one turn. No model that was seen makes more than a dozen.
MAX_TOOL_CALLS = 128
LONGEST_ARGUMENTS = 512 << 10

# Tokens of one answer that come with log-probabilities, each with so many alternatives at most,
# as OpenAI has it. With a tokenizer's usual tokens they take a third of a frame.
MAX_LOGPROBS = 8192
MAX_ALTERNATIVES = 20

# No token of any tokenizer is longer; no probability that a 32-bit float holds is less likely.
LONGEST_TOKEN = 1024
LEAST_LOGPROB = -1e4

REQUEST_ID = re.compile(r"[!-~]{1,128}")
DIGEST = re.compile(r"[0-9a-f]{64}")

_name = label(256)
_peer_id = label(128)
_request_id = matching(REQUEST_ID, "1 to 128 printable ASCII characters")
_digest = matching(DIGEST, "64 hexadecimal digits")
_count = integer(0, 1 << 53)
_seconds = number(0.0, 1e9)
_rate = number(1e-6, 1e9)
_share = number(0.0, 1.0)
_prose = text(MAX_FRAME)
_sentence = text(4096)
_command = one_of("chat", "complete", "embed", "capabilities", "ping")

_gpu = record(
    Gpu,
    name=_name,
    total_bytes=_count,
    free_bytes=_count,
    usage=_share,
    compute_units=_count,
)
_tool_call = record(ToolCall, id=_name, name=_name, arguments=text(LONGEST_ARGUMENTS))
_tool = record(Tool, name=label(64), description=_prose, parameters=text(LONGEST_SCHEMA, least=1))
_token = text(LONGEST_TOKEN)
_logprob = number(LEAST_LOGPROB, 0.0)


def _token_logprob(value: Any) -> TokenLogprob:
    """A token of an answer: itself and its alternatives, each followed by its log-probability.

    One array a token: as maps, an answer would have more containers than a frame may.
    """
    if type(value) is not list or len(value) % 2 or not 2 <= len(value) <= 2 + 2 * MAX_ALTERNATIVES:
        raise BadValue(f"a token, a number, and at most 20 such pairs more, got {shown(value)}")
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
)
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
)


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
    models=many(_offer, 1024),
    cpu_count=_count,
    cpu_usage=_share,
    memory_total_bytes=_count,
    memory_available_bytes=_count,
    disk_total_bytes=_count,
    disk_available_bytes=_count,
    gpus=many(_gpu, 64),
)


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
        models = tuple(
            offer if offer.id is None and not offer.lane else attrs.evolve(offer, id=None, lane="")
            for offer in old.models
        )
        return attrs.evolve(old, lanes=(lane,), models=models)
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
    max_tokens=integer(1, 1 << 40),
    temperature=number(0.0, 100.0),
    top_p=_share,
    top_k=integer(0, 1 << 31),
    min_p=_share,
    repeat_penalty=number(0.0, 100.0),
    presence_penalty=number(-2.0, 2.0),
    frequency_penalty=number(-2.0, 2.0),
    stop=many(text(1024, least=1), 16),
    seed=integer(0, (1 << 64) - 1),
)
_command_request = record(
    CommandRequest,
    request_id=_request_id,
    command=_command,
    model=_name,
    model_digest=_digest,
    messages=many(
        record(
            ChatMessage,
            role=text(32, least=1),
            content=_prose,
            name=_name,
            tool_calls=many(_tool_call, MAX_TOOL_CALLS),
            tool_call_id=_name,
        ),
        4096,
    ),
    prompt=_prose,
    inputs=many(_prose, 2048),
    sampling=_sampling,
    tools=many(_tool, MAX_TOOLS),
    tool_choice=label(128),
    response_schema=text(LONGEST_SCHEMA, least=1),
    logprobs=integer(0, MAX_ALTERNATIVES),
    stream=flag,
    stream_interval=_share,
    strict=flag,
    timeout=_seconds,
    priority=integer(-100, 100),
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
        tool_calls=many(_tool_call, MAX_TOOL_CALLS),
        logprobs=many(_token_logprob, MAX_LOGPROBS),
        embeddings=many(many(number(-1e30, 1e30), MAX_ENTRIES), 2048),
    ),
    error=record(
        Fault,
        code=label(64),
        message=_sentence,
        retryable=flag,
        retry_after=_seconds,
        param=_name,
    ),
    executor=_peer_id,
    provenance=_provenance,
    usage=record(Usage, prompt_tokens=_count, completion_tokens=_count, cached_tokens=_count),
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
)


@attrs.frozen(kw_only=True)
class _OneRole:
    """What minor 0 says of a peer's roles."""

    role: str


_join = record(
    Join,
    registration=binary(LONGEST_REGISTRATION),
    signature=binary(128),
    minor=_count,
    grant=binary(LONGEST_GRANT),
    root=binary(LONGEST_KEY),
)

MESSAGES: Mapping[str, Reader] = {
    "hello": record(
        Hello,
        minor=_count,
        version=label(64),
        incarnation=_count,
        namespace=_name,
        # At least a megabyte: an advert with a thousand models must fit.
        max_frame=integer(1 << 20, 1 << 31),
        max_requests=integer(1, 1 << 20),
        grant=binary(LONGEST_GRANT),
    ),
    "goodbye": record(Goodbye, code=label(64), message=_sentence),
    "advert": record(
        Advert, incarnation=_count, sequence=_count, age=_seconds, capability=_capability
    ),
    "request": record(Request, request=_command_request),
    "progress": record(
        Progress,
        request_id=_request_id,
        state=one_of("queued", "loading", "working"),
        ahead=_count,
        seconds=_seconds,
    ),
    "started": record(Started, request_id=_request_id, provenance=_provenance),
    "chunk": record(
        Chunk, request_id=_request_id, text=text(1 << 16, least=1), tokens=integer(0, 1 << 20)
    ),
    "response": record(Response, response=_command_response),
    "cancel": record(Cancel, request_id=_request_id),
    "credit": record(Credit, request_id=_request_id, amount=integer(1, 1 << 31)),
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
