"""The reader that a peer of minor 0 has: what it takes, what it ignores, what it refuses.

Frozen, and apart from `punch.wire` on purpose: what today's peers send to an old one must get
through this, whatever becomes of the reader of today. It was written down from commit c554520
(`punch/wire/_schema.py` and `_codec.py` there) and changes never.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

MAX_FRAME = 8 << 20
MAX_ENTRIES = 1 << 16
MAX_CONTAINERS = 1 << 14

Check = Callable[[Any], Any]


class Refused(Exception):
    """A peer of minor 0 ends the session over this frame."""


def _need(is_right: bool, value: object, what: str) -> None:
    if not is_right:
        raise Refused(f"{what}, got {type(value).__name__} {str(value)[:60]!r}")


def _text(most: int, least: int = 0) -> Check:
    def check(value: Any) -> Any:
        _need(type(value) is str and least <= len(value) <= most, value, f"text up to {most}")
        return value

    return check


def _label(most: int) -> Check:
    def check(value: Any) -> Any:
        is_right = type(value) is str and 1 <= len(value) <= most and value.isprintable()
        _need(is_right, value, f"printable text up to {most}")
        return value

    return check


def _pattern(pattern: str) -> Check:
    def check(value: Any) -> Any:
        _need(type(value) is str and bool(re.fullmatch(pattern, value)), value, pattern)
        return value

    return check


def _integer(least: int, most: int) -> Check:
    def check(value: Any) -> Any:
        _need(type(value) is int and least <= value <= most, value, f"{least} to {most}")
        return value

    return check


def _number(least: float, most: float) -> Check:
    def check(value: Any) -> Any:
        is_number = type(value) in (int, float) and math.isfinite(value)
        _need(is_number and least <= value <= most, value, f"{least} to {most}")
        return float(value)

    return check


def _flag(value: Any) -> Any:
    _need(type(value) is bool, value, "true or false")
    return value


def _binary(most: int) -> Check:
    def check(value: Any) -> Any:
        _need(type(value) is bytes and len(value) <= most, value, f"bytes up to {most}")
        return value

    return check


def _one_of(*choices: str) -> Check:
    def check(value: Any) -> Any:
        _need(value in choices, value, f"one of {choices}")
        return value

    return check


def _many(item: Check, most: int) -> Check:
    def check(value: Any) -> Any:
        _need(type(value) is list and len(value) <= most, value, f"a list up to {most}")
        return [item(one) for one in value]

    return check


def _record(**fields: Check) -> Check:
    """A map; a field whose name ends in an underscore must be there. Others are dropped."""
    plan = [(name.rstrip("_"), name.endswith("_"), check) for name, check in fields.items()]

    def check(value: Any) -> Any:
        _need(type(value) is dict, value, "a map")
        found = {}
        for name, must, its in plan:
            if name in value:
                try:
                    found[name] = its(value[name])
                except Refused as error:
                    raise Refused(f"{name}: {error}") from None
            elif must:
                raise Refused(f"{name} is missing")
        return found

    return check


def _token(value: Any) -> Any:
    is_right = type(value) is list and len(value) % 2 == 0 and 2 <= len(value) <= 42
    _need(is_right, value, "pairs of a token and a number")
    for token, logprob in zip(value[::2], value[1::2], strict=True):
        _text(1024)(token)
        _number(-1e4, 0.0)(logprob)
    return value


_name = _label(256)
_id = _pattern(r"[!-~]{1,128}")
_digest = _pattern(r"[0-9a-f]{64}")
_peer = _label(128)
_count = _integer(0, 1 << 53)
_tokens = _integer(1, 1 << 40)
_seconds = _number(0.0, 1e9)
_rate = _number(1e-6, 1e9)
_share = _number(0.0, 1.0)
_prose = _text(MAX_FRAME)
_sentence = _text(4096)
_schema = _text(256 << 10, 1)

_call = _record(id_=_name, name_=_name, arguments_=_text(512 << 10))
_load = _record(
    slots=_integer(1, 1 << 16),
    busy=_count,
    queued=_count,
    queue_limit=_count,
    queued_prompt_tokens=_count,
    output_tokens_left=_count,
    draining=_flag,
)
_offer = _record(
    name_=_name,
    digest=_digest,
    context_tokens=_tokens,
    features=_many(_label(32), 32),
    parameters=_count,
    quantization=_label(64),
    size_bytes=_count,
    kv_bytes_per_token=_count,
    chat_template=_digest,
    continues=_flag,
    load_seconds=_seconds,
    prefill_rate=_rate,
    decode_rate=_rate,
    usual_tokens=_tokens,
    slowdown=_number(0.0, 1e3),
)
_gpu = _record(
    name_=_name, total_bytes_=_count, free_bytes=_count, usage=_share, compute_units=_count
)
_capability = _record(
    backend_=_label(64),
    simulated_=_flag,
    models=_many(_offer, 1024),
    load=_load,
    threads=_count,
    cpu_count=_count,
    cpu_usage=_share,
    memory_total_bytes=_count,
    memory_available_bytes=_count,
    disk_total_bytes=_count,
    disk_available_bytes=_count,
    gpus=_many(_gpu, 64),
)
_sampling = _record(
    max_tokens=_tokens,
    temperature=_number(0.0, 100.0),
    top_p=_share,
    top_k=_integer(0, 1 << 31),
    min_p=_share,
    repeat_penalty=_number(0.0, 100.0),
    presence_penalty=_number(-2.0, 2.0),
    frequency_penalty=_number(-2.0, 2.0),
    stop=_many(_text(1024, 1), 16),
    seed=_integer(0, (1 << 64) - 1),
)
_message = _record(
    role_=_text(32, 1),
    content_=_prose,
    name=_name,
    tool_calls=_many(_call, 128),
    tool_call_id=_name,
)
_request = _record(
    request_id_=_id,
    command=_one_of("chat", "complete", "embed", "capabilities", "ping"),
    model=_name,
    model_digest=_digest,
    messages=_many(_message, 4096),
    prompt=_prose,
    inputs=_many(_prose, 2048),
    sampling=_sampling,
    tools=_many(_record(name_=_label(64), description=_prose, parameters=_schema), 128),
    tool_choice=_label(128),
    response_schema=_schema,
    logprobs=_integer(0, 20),
    stream=_flag,
    stream_interval=_share,
    strict=_flag,
    timeout=_seconds,
    priority=_integer(-100, 100),
    continuable=_flag,
    continuation=_prose,
)
_provenance = _record(
    kind_=_one_of("real", "simulated"), backend_=_label(64), model=_name, model_digest=_digest
)
_response = _record(
    request_id_=_id,
    status_=_one_of("success", "error", "refused", "timeout", "cancelled"),
    result=_record(
        text=_prose,
        finish_reason=_label(32),
        tool_calls=_many(_call, 128),
        logprobs=_many(_token, 8192),
        embeddings=_many(_many(_number(-1e30, 1e30), MAX_ENTRIES), 2048),
    ),
    error=_record(code_=_label(64), message_=_sentence, retryable=_flag, retry_after=_seconds),
    executor=_peer,
    provenance=_provenance,
    usage=_record(prompt_tokens=_count, completion_tokens=_count, cached_tokens=_count),
    timings=_record(
        queue=_seconds,
        first_token=_seconds,
        total=_seconds,
        prefill=_seconds,
        decode=_seconds,
        batch=_number(0.0, 1e6),
    ),
    capability=_capability,
    load=_load,
)
_join = _record(registration_=_binary(2048), signature_=_binary(128))

MESSAGES: Mapping[str, Check] = {
    "hello": _record(
        minor_=_count,
        version_=_label(64),
        incarnation_=_count,
        namespace_=_name,
        max_frame_=_integer(1 << 20, 1 << 31),
        max_requests_=_integer(1, 1 << 20),
    ),
    "goodbye": _record(code_=_label(64), message_=_sentence),
    "advert": _record(
        incarnation_=_count, sequence_=_count, age_=_seconds, capability_=_capability
    ),
    "request": _record(request_=_request),
    "progress": _record(
        request_id_=_id,
        state_=_one_of("queued", "loading", "working"),
        ahead=_count,
        seconds=_seconds,
    ),
    "started": _record(request_id_=_id, provenance_=_provenance),
    "chunk": _record(request_id_=_id, text_=_text(1 << 16, 1), tokens=_integer(0, 1 << 20)),
    "response": _record(response_=_response),
    "cancel": _record(request_id_=_id),
    "credit": _record(request_id_=_id, amount_=_integer(1, 1 << 31)),
    "ping": _record(nonce_=_count),
    "pong": _record(nonce_=_count),
    "join": _join,
    "roster": _record(
        namespace_=_name, whole=_flag, present=_many(_join, 4096), gone=_many(_peer, 4096)
    ),
}
REGISTRATION = _record(
    peer_id_=_peer,
    namespace_=_name,
    role_=_one_of("listener", "dialer"),
    addresses=_many(_label(400), 8),
    incarnation_=_count,
    sequence_=_count,
    lifetime_=_number(1.0, 86400.0),
)


def unpack(body: bytes) -> Any:
    """What msgpack finds in *body*."""
    count = 0

    def hook(container: Any) -> Any:
        nonlocal count
        count += 1
        _need(count <= MAX_CONTAINERS, container, f"at most {MAX_CONTAINERS} containers")
        return container

    return msgpack.unpackb(
        body,
        object_hook=hook,
        list_hook=hook,
        strict_map_key=True,
        max_array_len=MAX_ENTRIES,
        max_map_len=MAX_ENTRIES,
        max_ext_len=0,
    )


def read(body: bytes, *, most: int = MAX_FRAME) -> dict[str, Any]:
    """The message in *body*, a frame without its length: its type and the fields known then.

    Raises:
      Refused: if a peer of minor 0 would.

    """
    _need(len(body) <= most, len(body), f"a frame of at most {most} bytes")
    fields = unpack(body)
    kind = fields.get("type") if type(fields) is dict else None
    if type(kind) is not str or kind not in MESSAGES:
        raise Refused(f"a type of message that minor 0 does not know: {kind!r}")
    try:
        return {"type": kind, **MESSAGES[kind](fields)}
    except Refused as error:
        raise Refused(f"{kind}: {error}") from None


def read_registration(data: bytes) -> dict[str, Any]:
    """The registration in *data*; see `read`."""
    found: dict[str, Any] = REGISTRATION(unpack(data))
    return found


class FrameReader:
    """Bytes of a stream, fed as they come, to messages."""

    def __init__(self, *, most: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._most = most

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that *data* completes."""
        self._buffer += data
        found = []
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            _need(size <= self._most, size, f"a frame of at most {self._most} bytes")
            if len(self._buffer) < 4 + size:
                break
            found.append(read(bytes(self._buffer[4 : 4 + size])))
            del self._buffer[: 4 + size]
        return found


def write(message: Mapping[str, Any]) -> bytes:
    """The frame of a message that a peer of minor 0 makes by itself, such as a pong."""
    packed: bytes = msgpack.packb(message)
    return len(packed).to_bytes(4, "big") + packed
