"""Messages to bytes and back. The only module that knows msgpack.

A frame is a length (unsigned, 32 bits, big-endian) and one msgpack map with string keys;
its ``type`` names the message. Three rules:

1. Bytes from outside may raise `RemoteProtocolError` and nothing else. Every type, range
   and length is checked here, so that past this module a message is what it claims to be.
2. Unknown keys are ignored and unknown message types refused: fields are only ever added.
3. A field that has its default value is left out; `None` never travels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgpack

from ..capability import Capability, Gpu, Load, ModelOffer
from ..exceptions import LocalProtocolError, RemoteProtocolError
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
    Message,
    Ping,
    Pong,
    Progress,
    Provenance,
    Request,
    Response,
    Sampling,
    Started,
    Timings,
    Usage,
)
from ._registration import Join, Registration, Roster

# Room for a long conversation (8 MiB is some two million tokens of English), small enough that
# a thousand hostile peers with one frame each do not fill a machine.
MAX_FRAME = 8 << 20

HEADER = 4

# A map or array with more entries than this is no message of ours, nor is a frame with more
# maps and arrays in it: an empty one is a byte on the wire and fifty in memory.
MAX_ENTRIES = 1 << 16
MAX_CONTAINERS = 1 << 14

# A peer has an address or two by each transport; a bootstrap keeps thousands of registrations.
MAX_ADDRESSES = 8
LONGEST_REGISTRATION = 2048

REQUEST_ID = re.compile(r"[!-~]{1,128}")
DIGEST = re.compile(r"[0-9a-f]{64}")

Reader = Callable[[Any], Any]


class _Bad(Exception):
    """A value is not what it should be. Collects its place on the way out."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected
        self.place: list[str] = []


def _shown(value: object) -> str:
    # Never the text of a container: one that is nested deeply enough cannot be spelled out.
    if isinstance(value, list | dict):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {str(value)[:40]!r}"


def _text(limit: int, *, least: int = 0) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or not least <= len(value) <= limit:
            raise _Bad(f"text of {least} to {limit} characters, got {_shown(value)}")
        return value

    return read


def _matching(pattern: re.Pattern[str], what: str) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or not pattern.fullmatch(value):
            raise _Bad(f"{what}, got {_shown(value)}")
        return value

    return read


def _integer(least: int, most: int) -> Reader:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise _Bad(f"an integer from {least} to {most}, got {_shown(value)}")
        return value

    return read


def _number(least: float, most: float) -> Reader:
    def read(value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise _Bad(f"a finite number, got {_shown(value)}")
        if not least <= value <= most:
            raise _Bad(f"a number from {least} to {most}, got {_shown(value)}")
        return float(value)

    return read


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _Bad(f"true or false, got {_shown(value)}")
    return value


def _binary(limit: int) -> Reader:
    def read(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > limit:
            raise _Bad(f"at most {limit} bytes, got {_shown(value)}")
        return value

    return read


def _one_of(*choices: str) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or value not in choices:
            raise _Bad(f"one of {', '.join(choices)}; got {_shown(value)}")
        return value

    return read


def _many(reader: Reader, limit: int) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > limit:
            raise _Bad(f"a list of at most {limit}, got {_shown(value)}")
        return tuple([reader(item) for item in value])

    return read


def _set_of(reader: Reader, limit: int) -> Reader:
    items = _many(reader, limit)
    return lambda value: frozenset(items(value))


def _record(cls: type[Any], **readers: Reader) -> Reader:
    required = [
        field.name
        for field in attrs.fields(cls)
        if field.default is attrs.NOTHING and field.name in readers
    ]
    plan = tuple(readers.items())

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _Bad(f"a map, got {_shown(value)}")
        found = {}
        for name, reader in plan:
            if name in value:
                try:
                    found[name] = reader(value[name])
                except _Bad as bad:
                    bad.place.insert(0, name)
                    raise
        for name in required:
            if name not in found:
                missing = _Bad("a value, got nothing")
                missing.place.insert(0, name)
                raise missing
        return cls(**found)

    return read


def _label(limit: int) -> Reader:
    """Text that is shown in tables and logs: one line, and nothing a terminal would obey."""

    def read(value: Any) -> str:
        if type(value) is not str or not 1 <= len(value) <= limit or not value.isprintable():
            raise _Bad(f"1 to {limit} printable characters, got {_shown(value)}")
        return value

    return read


_name = _label(256)
_peer_id = _label(128)
_request_id = _matching(REQUEST_ID, "1 to 128 printable ASCII characters")
_digest = _matching(DIGEST, "64 hexadecimal digits")
_count = _integer(0, 1 << 53)
_seconds = _number(0.0, 1e9)
_rate = _number(1e-6, 1e9)
_share = _number(0.0, 1.0)
_prose = _text(MAX_FRAME)
_sentence = _text(4096)
_command = _one_of("chat", "complete", "embed", "capabilities", "ping")

_gpu = _record(
    Gpu,
    name=_name,
    total_bytes=_count,
    free_bytes=_count,
    usage=_share,
    compute_units=_count,
)
_offer = _record(
    ModelOffer,
    name=_name,
    digest=_digest,
    context_tokens=_integer(1, 1 << 40),
    features=_set_of(_label(32), 32),
    parameters=_count,
    quantization=_label(64),
    size_bytes=_count,
    kv_bytes_per_token=_count,
    load_seconds=_seconds,
    prefill_rate=_rate,
    decode_rate=_rate,
)
_load = _record(
    Load,
    slots=_integer(1, 1 << 16),
    busy=_count,
    queued=_count,
    queue_limit=_count,
    queued_prompt_tokens=_count,
    draining=_flag,
)
_capability = _record(
    Capability,
    backend=_label(64),
    simulated=_flag,
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
    Sampling,
    max_tokens=_integer(1, 1 << 40),
    temperature=_number(0.0, 100.0),
    top_p=_share,
    top_k=_integer(0, 1 << 31),
    min_p=_share,
    repeat_penalty=_number(0.0, 100.0),
    stop=_many(_text(1024, least=1), 16),
    seed=_integer(0, (1 << 64) - 1),
)
_command_request = _record(
    CommandRequest,
    request_id=_request_id,
    command=_command,
    model=_name,
    model_digest=_digest,
    messages=_many(_record(ChatMessage, role=_text(32, least=1), content=_prose), 4096),
    prompt=_prose,
    inputs=_many(_prose, 2048),
    sampling=_sampling,
    stream=_flag,
    strict=_flag,
    timeout=_seconds,
    priority=_integer(-100, 100),
    continuation=_prose,
)
_provenance = _record(
    Provenance,
    kind=_one_of("real", "simulated"),
    backend=_label(64),
    model=_name,
    model_digest=_digest,
)
_command_response = _record(
    CommandResponse,
    request_id=_request_id,
    status=_one_of("success", "error", "refused", "timeout", "cancelled"),
    result=_record(
        Completion,
        text=_prose,
        finish_reason=_label(32),
        embeddings=_many(_many(_number(-1e30, 1e30), MAX_ENTRIES), 2048),
    ),
    error=_record(
        Fault,
        code=_label(64),
        message=_sentence,
        retryable=_flag,
        retry_after=_seconds,
    ),
    executor=_peer_id,
    provenance=_provenance,
    usage=_record(Usage, prompt_tokens=_count, completion_tokens=_count, cached_tokens=_count),
    timings=_record(
        Timings,
        queue=_seconds,
        first_token=_seconds,
        total=_seconds,
        prefill=_seconds,
        decode=_seconds,
    ),
    capability=_capability,
    load=_load,
)

_READERS: Mapping[str, Reader] = {
    "hello": _record(
        Hello,
        minor=_count,
        version=_label(64),
        incarnation=_count,
        namespace=_name,
        # At least a megabyte: an advert with a thousand models must fit.
        max_frame=_integer(1 << 20, 1 << 31),
        max_requests=_integer(1, 1 << 20),
    ),
    "goodbye": _record(Goodbye, code=_label(64), message=_sentence),
    "advert": _record(
        Advert, incarnation=_count, sequence=_count, age=_seconds, capability=_capability
    ),
    "request": _record(Request, request=_command_request),
    "progress": _record(Progress, request_id=_request_id, state=_one_of("queued", "loading")),
    "started": _record(Started, request_id=_request_id, provenance=_provenance),
    "chunk": _record(
        Chunk, request_id=_request_id, text=_text(1 << 16, least=1), tokens=_integer(0, 1 << 20)
    ),
    "response": _record(Response, response=_command_response),
    "cancel": _record(Cancel, request_id=_request_id),
    "credit": _record(Credit, request_id=_request_id, amount=_integer(1, 1 << 31)),
    "ping": _record(Ping, nonce=_count),
    "pong": _record(Pong, nonce=_count),
    "join": _record(
        Join,
        registration=_binary(LONGEST_REGISTRATION),
        signature=_binary(128),
    ),
    "roster": _record(
        Roster,
        namespace=_name,
        whole=_flag,
        present=_many(
            _record(Join, registration=_binary(LONGEST_REGISTRATION), signature=_binary(128)),
            4096,
        ),
        gone=_many(_peer_id, 4096),
    ),
}

_registration = _record(
    Registration,
    peer_id=_peer_id,
    namespace=_name,
    role=_one_of("listener", "dialer"),
    addresses=_many(_label(400), MAX_ADDRESSES),
    incarnation=_count,
    sequence=_count,
    lifetime=_number(1.0, 86400.0),
)

AnyMessage = Message | Join | Roster

_TYPE_OF: Mapping[type[Any], str] = {
    Hello: "hello",
    Goodbye: "goodbye",
    Advert: "advert",
    Request: "request",
    Progress: "progress",
    Started: "started",
    Chunk: "chunk",
    Response: "response",
    Cancel: "cancel",
    Credit: "credit",
    Ping: "ping",
    Pong: "pong",
    Join: "join",
    Roster: "roster",
}

# What the router adds for its own caller.
_NEVER_SENT = frozenset({"decision", "attempts"})


def _plan(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    plan = []
    for field in attrs.fields(cls):
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, typed as a function
            default = default.factory()
        if field.name not in _NEVER_SENT:
            plan.append((field.name, default))
    return tuple(plan)


_PLANS: dict[type[Any], tuple[tuple[str, Any], ...]] = {}


def _as_map(value: Any) -> Any:
    cls = type(value)
    if cls is frozenset:
        return sorted(value)
    plan = _PLANS.get(cls)
    if plan is None:
        if cls is int:
            raise LocalProtocolError(f"{value} does not fit 64 bits")
        if not attrs.has(cls):
            raise LocalProtocolError(f"{cls.__name__} cannot travel")
        plan = _PLANS[cls] = _plan(cls)
    found = {}
    for name, default in plan:
        item = getattr(value, name)
        if item is not None and item is not default and item != default:
            found[name] = item
    return found


_pack = msgpack.Packer(default=_as_map, use_bin_type=True, autoreset=True).pack


def encode(message: AnyMessage, *, max_frame: int = MAX_FRAME) -> bytes:
    """The frame that carries *message*.

    Raises:
      LocalProtocolError: if it is longer than *max_frame* bytes or holds text that is not
        Unicode.

    """
    body = _as_map(message)
    body["type"] = _TYPE_OF[type(message)]
    try:
        packed: bytes = _pack(body)
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text that is not Unicode: {error.reason}") from None
    if len(packed) > max_frame:
        raise LocalProtocolError(
            f"a {body['type']} of {len(packed)} bytes; the peer takes at most {max_frame}"
        )
    return len(packed).to_bytes(HEADER, "big") + packed


class _Counter:
    """Counts the maps and arrays of one frame while it is unpacked."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, container: Any) -> Any:
        self.count += 1
        if self.count > MAX_CONTAINERS:
            raise ValueError(f"more than {MAX_CONTAINERS} maps and arrays")
        return container


def _unpack(body: bytes | bytearray | memoryview) -> Any:
    counter = _Counter()
    try:
        return msgpack.unpackb(
            body,
            object_hook=counter,
            list_hook=counter,
            strict_map_key=True,
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
            max_ext_len=0,
        )
    # msgpack reports bad bytes as ValueError and its subclasses (truncation, depth, lengths,
    # UTF-8), keys that cannot be hashed as TypeError, dates out of range as OverflowError.
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"not a msgpack map: {str(error)[:200]}") from None


def decode(body: bytes | bytearray | memoryview) -> AnyMessage:
    """The message in *body*, the part of a frame after the length.

    Raises:
      RemoteProtocolError: if it is not a message; the text names the field and the rule.

    """
    fields = _unpack(body)
    kind = fields.get("type") if type(fields) is dict else None
    reader = _READERS.get(kind) if type(kind) is str else None
    if reader is None:
        raise RemoteProtocolError(f"not a message: type {_shown(kind)}")
    try:
        message: AnyMessage = reader(fields)
    except _Bad as bad:
        place = ".".join([str(kind), *bad.place])
        raise RemoteProtocolError(f"{place}: expected {bad.expected}") from None
    return message


def encode_registration(registration: Registration) -> bytes:
    """The bytes that a peer signs to be listed in a namespace."""
    packed: bytes = _pack(_as_map(registration))
    return packed


def decode_registration(data: bytes) -> Registration:
    """The registration in *data*, whose signature the caller has checked.

    Raises:
      RemoteProtocolError: if it is not one.

    """
    try:
        registration: Registration = _registration(_unpack(data))
    except _Bad as bad:
        place = ".".join(["registration", *bad.place])
        raise RemoteProtocolError(f"{place}: expected {bad.expected}") from None
    return registration
