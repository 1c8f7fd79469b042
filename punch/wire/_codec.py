"""Turns messages into frames and bodies back into messages: the only module that knows msgpack.

A frame is a length (unsigned, 32 bits, big-endian) and one msgpack map with string keys;
its ``type`` names the message. What each message is made of stands in `_schema`; whether it may
be said now is decided by `_session`. Four rules:

1. Bytes from outside may raise `RemoteProtocolError` and nothing else. Every type, range
   and length is checked here, so that past this module a message is what it claims to be.
2. Unknown keys are ignored and unknown message types refused: fields are only ever added.
3. A field that has its default value is left out; `None` never travels.
4. A peer is told the fields that its minor version knows, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from operator import attrgetter
from typing import Any

import attrs
import msgpack

from ..capability import Capability, Lane, Load, ModelOffer
from ..exceptions import LocalProtocolError, RemoteProtocolError
from ._decoders import BadValue, Decoder, shown
from ._frame_buffer import HEADER
from ._frames import (
    Advert,
    Cancel,
    Chunk,
    Credit,
    Goodbye,
    Hello,
    LoadReport,
    Message,
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
    MAX_ENTRIES,
    MAX_FRAME_BYTES,
    MAX_LISTENER_REGISTRATION_BYTES,
)
from ._registration import Join, Registration, Roster
from ._request import ChatMessage, CommandRequest
from ._response import CommandResponse, Completion, Fault, TokenLogprob, Usage
from ._schema import MESSAGES, MINOR, registration_of

# A frame with more maps and arrays than this is no message of ours: an empty one is a byte on the
# wire and fifty in memory.
MAX_CONTAINERS = 1 << 14

AnyMessage = Message | Join | Roster

_TYPE_OF: Mapping[type[Any], str] = {
    Hello: "hello",
    Goodbye: "goodbye",
    Advert: "advert",
    LoadReport: "load",
    Request: "request",
    Progress: "progress",
    Started: "started",
    Chunk: "chunk",
    Reasoning: "reasoning",
    Response: "response",
    Cancel: "cancel",
    Credit: "credit",
    Standing: "standing",
    Ping: "ping",
    Pong: "pong",
    Join: "join",
    Roster: "roster",
}

# What the router adds for its own caller, and what that asks of the router alone.
_NEVER_SENT = frozenset({"decision", "attempts", "segments", "hints"})


# The fields that came after minor 0, by the minor that brought them.
SINCE: Mapping[tuple[type[Any], str], int] = {
    (ModelOffer, "id"): 1,
    (ModelOffer, "lane"): 1,
    (ModelOffer, "max_output"): 1,
    (ModelOffer, "architecture"): 1,
    (ModelOffer, "embedding_length"): 1,
    (ModelOffer, "split"): 1,
    (ModelOffer, "own_workers"): 2,
    (ModelOffer, "plain_rpc"): 2,
    (ModelOffer, "machines"): 2,
    (ModelOffer, "loaded_bytes"): 2,
    (ModelOffer, "gpu_bytes"): 2,
    (Lane, "max_seconds"): 1,
    (Lane, "max_priority"): 1,
    (Lane, "closed_for"): 2,
    (Capability, "lanes"): 1,
    (Capability, "machine_name"): 1,
    (ChatMessage, "parts"): 1,
    (ChatMessage, "reasoning"): 1,
    (CommandRequest, "offer"): 1,
    (CommandRequest, "parallel_tool_calls"): 1,
    (CommandRequest, "reasoning_budget"): 1,
    (CommandRequest, "reasoning_effort"): 1,
    (CommandResponse, "lane"): 1,
    (Completion, "reasoning"): 1,
    (Completion, "stopped_by"): 1,
    (Fault, "engine_died"): 1,
    (Fault, "engine_restarts"): 2,
    (Fault, "prompt_tokens"): 1,
    (Fault, "context_tokens"): 1,
    (Hello, "grant"): 1,
    (Join, "grant"): 1,
    (Join, "root"): 1,
    (Join, "minor"): 1,
    (Join, "reach"): 1,
    (Join, "relayed"): 2,
    (Join, "near"): 2,
    (Progress, "prompt_tokens"): 2,
    (Progress, "cached_tokens"): 2,
    (Standing, "grant"): 2,
    (Standing, "revocations"): 2,
    (Roster, "minor"): 1,
    (Roster, "notices"): 1,
    (Roster, "reach"): 1,
    (Usage, "reasoning_tokens"): 1,
}

# What minor 0 is told of the peer instead of its lanes: first, in this order.
_PEER_WIDE: tuple[tuple[str, Any], ...] = (
    ("backend", attrs.NOTHING),
    ("simulated", attrs.NOTHING),
    ("models", ()),
    ("load", Load()),
    ("threads", None),
)

# What minor 0 is told of the roles of a registration: one of the two that it knows. A registration
# is signed, so everybody gets the same bytes.
_ROLE: tuple[tuple[str, Any], ...] = (("role", attrs.NOTHING),)

_Plan = tuple[Callable[[Any], tuple[Any, ...]], tuple[tuple[str, Any], ...]]


def _plan(cls: type[Any], minor: int) -> _Plan:
    """The fields of *cls* that a peer of *minor* is told: what reads them, and their defaults."""
    plan: list[tuple[str, Any]] = []
    if cls is Capability and minor < SINCE[Capability, "lanes"]:
        plan += _PEER_WIDE
    for field in attrs.fields(cls):
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, typed as a function
            default = default.factory()
        if cls is Registration and field.name == "roles":
            plan += _ROLE
        known = SINCE.get((cls, field.name), 0) <= minor
        if known and field.name not in _NEVER_SENT and (field.name, default) not in plan:
            plan.append((field.name, default))
    names = [name for name, _ in plan]
    if len(names) > 1:
        # All in one call.
        return attrgetter(*names), tuple(plan)
    return lambda value: tuple([getattr(value, name) for name in names]), tuple(plan)


def _spelling(minor: int) -> Callable[[Any], Any]:
    """What makes a map of a value, for peers of *minor*."""
    plans: dict[type[Any], _Plan] = {}

    def as_map(value: Any) -> Any:
        cls = type(value)
        if cls is frozenset:
            return sorted(value)
        if cls is TokenLogprob:
            return [value.token, value.logprob, *chain.from_iterable(value.top)]
        plan = plans.get(cls)
        if plan is None:
            if cls is int:
                raise LocalProtocolError(f"{value} does not fit 64 bits")
            if not attrs.has(cls):
                raise LocalProtocolError(f"{cls.__name__} cannot travel")
            plan = plans[cls] = _plan(cls, minor)
        found = {}
        read, told = plan
        for (name, default), item in zip(told, read(value), strict=True):
            if item is not None and item is not default and item != default:
                found[name] = item
        if cls is Registration and value.roles == {value.role}:
            del found["roles"]
        elif cls is Capability:
            if minor >= SINCE[Capability, "lanes"]:
                # Said even if there are none: this is what tells the two forms apart.
                found["lanes"] = value.lanes
            elif not value.lanes:
                found["backend"] = "none"
        return found

    return as_map


# What most messages fit into. It grows; a packer's usual buffer costs more than to pack one does.
_USUAL_BYTES = 4096


class _Speech:
    """How values are spelled for the peers of one minor version."""

    def __init__(self, minor: int) -> None:
        self.as_map = _spelling(minor)

    def pack(self, value: Any) -> bytes:
        """The msgpack of *value*.

        By a packer of its own: one has a single buffer, and calls us in the middle of a message,
        where Python may turn to another thread, which would write into that message.
        """
        packer = msgpack.Packer(default=self.as_map, use_bin_type=True, buf_size=_USUAL_BYTES)
        packed: bytes = packer.pack(value)
        return packed


_SPEECHES = tuple(_Speech(minor) for minor in range(MINOR + 1))


def encode(message: AnyMessage, *, max_frame: int = MAX_FRAME_BYTES, minor: int = MINOR) -> bytes:
    """The frame that carries *message* to a peer of *minor*.

    Raises:
      LocalProtocolError: if it is longer than *max_frame* bytes or holds text that is not
        Unicode.

    """
    speech = _SPEECHES[min(minor, MINOR)]
    body = speech.as_map(message)
    body["type"] = _TYPE_OF[type(message)]
    return _frame(body, speech, max_frame)


def _frame(body: dict[str, Any], speech: _Speech, max_frame: int) -> bytes:
    """The frame of the message whose map is *body*; raises as `encode`."""
    try:
        packed = speech.pack(body)
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text that is not Unicode: {error.reason}") from None
    if len(packed) > max_frame:
        raise LocalProtocolError(
            f"a {body['type']} of {len(packed)} bytes; the peer takes at most {max_frame}"
        )
    return len(packed).to_bytes(HEADER, "big") + packed


class Encoded:
    """A message for many peers: encoded once for each minor version that they speak."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._frames: dict[int, bytes] = {}

    def frame(self, *, max_frame: int = MAX_FRAME_BYTES, minor: int = MINOR) -> bytes:
        """The frame of the message for a peer of *minor* that takes *max_frame* bytes.

        Raises:
          LocalProtocolError: as `encode`.

        """
        frame = self._frames.get(minor)
        if frame is None:
            frame = self._frames[minor] = encode(
                self.message, max_frame=MAX_FRAME_BYTES, minor=minor
            )
        if len(frame) - HEADER > max_frame:
            # With the very words of a message that is encoded for one peer.
            encode(self.message, max_frame=max_frame, minor=minor)
        return frame


class Addressed(Encoded):
    """A request as one peer is asked: what its dialer fills in is spelled, and not copied first.

    Args:
      request: What the caller asked.
      timeout: Seconds left until the caller gives up.
      model: The peer's own name for the model; `None` for that in *request*.
      offer: The id of the offer that was chosen; `None` for that in *request*.

    """

    def __init__(
        self,
        request: CommandRequest,
        *,
        timeout: float,
        model: str | None = None,
        offer: str | None = None,
    ) -> None:
        super().__init__(Request(request=request))
        self._request = request
        self._given = {"timeout": timeout, "model": model, "offer": offer}

    def frame(self, *, max_frame: int = MAX_FRAME_BYTES, minor: int = MINOR) -> bytes:
        """The frame of the request; raises as `encode`."""
        speech = _SPEECHES[min(minor, MINOR)]
        request = speech.as_map(self._request)
        for name, value in self._given.items():
            if value is not None and SINCE.get((CommandRequest, name), 0) <= minor:
                request[name] = value
        return _frame({"request": request, "type": _TYPE_OF[Request]}, speech, max_frame)


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
    # Each takes a byte at least: a short frame needs no count.
    counter = _Counter() if len(body) > MAX_CONTAINERS else None
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
    decoder = MESSAGES.get(kind) if type(kind) is str else None
    if decoder is None:
        raise RemoteProtocolError(f"not a message: type {shown(kind)}")
    try:
        message: AnyMessage = decoder(fields)
    except BadValue as bad:
        place = ".".join([str(kind), *bad.place])
        raise RemoteProtocolError(f"{place}: expected {bad.expected}") from None
    return message


def encode_map(fields: Mapping[str, Any]) -> bytes:
    """The msgpack of a map of plain values: bytes that another room has signed.

    Raises:
      LocalProtocolError: if a value cannot travel.

    """
    try:
        return _SPEECHES[-1].pack(dict(fields))
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text that is not Unicode: {error.reason}") from None


def decode_map(data: bytes, decoder: Decoder, *, what: str) -> Any:
    """What *decoder* makes of a map that `encode_map` has written, and nothing else has.

    There is one spelling of each map: no number in more bytes than it needs, no key twice. Who
    signs one and who judges it cannot read two things in it.

    Raises:
      RemoteProtocolError: if it is no such map; the text names the field and the rule.

    """
    fields = _unpack(data)
    try:
        found = decoder(fields)
    except BadValue as bad:
        place = ".".join([what, *bad.place])
        raise RemoteProtocolError(f"{place}: expected {bad.expected}") from None
    try:
        spelled: bytes = _SPEECHES[-1].pack(fields)
    # What this library unpacks and does not pack: nested too deeply, or half a character.
    except (ValueError, TypeError, OverflowError, LocalProtocolError) as error:
        raise RemoteProtocolError(f"{what}: {str(error)[:200]}") from None
    if spelled != data:
        raise RemoteProtocolError(f"{what}: expected the shortest spelling, each key once")
    return found


def encode_registration(registration: Registration) -> bytes:
    """The bytes that a peer signs to be listed in a namespace; the same for every minor."""
    speech = _SPEECHES[MINOR]
    return speech.pack(speech.as_map(registration))


def decode_registration(data: bytes) -> Registration:
    """The registration in *data*, whose signature the caller has checked.

    Raises:
      RemoteProtocolError: if it is not one, or longer than its roles allow.

    """
    try:
        registration = registration_of(_unpack(data))
    except BadValue as bad:
        place = ".".join(["registration", *bad.place])
        raise RemoteProtocolError(f"{place}: expected {bad.expected}") from None
    if registration.is_listener and len(data) > MAX_LISTENER_REGISTRATION_BYTES:
        # It goes to members of minor 0 too, and a longer one would end their stream.
        raise RemoteProtocolError(
            f"a listener's registration of {len(data)} bytes; "
            f"at most {MAX_LISTENER_REGISTRATION_BYTES} are allowed"
        )
    return registration
