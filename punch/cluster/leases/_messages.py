"""What a borrower and a worker say on ``/punch/lend/1``: the messages and their bytes.

A frame is a length and a map of msgpack, as in a session; the map's ``type`` names the message.
When a message may come is decided by `_order`, and who may borrow by `punch.access`. Four rules:

1. Bytes from outside raise `RemoteProtocolError` and nothing else.
2. Unknown keys are ignored and unknown types refused: fields are only ever added.
3. A field that has its default value is left out.
4. Every number, text and list has a bound: what a worker says of itself fills no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ...exceptions import LocalProtocolError
from ...wire import (
    MAX_GRANT_BYTES,
    MAX_REASON_CHARACTERS,
    BadValue,
    Decoder,
    binary,
    decode_map,
    encode_map,
    flag,
    integer,
    label,
    many,
    number,
    record,
    set_of,
)

PROTOCOL = "/punch/lend/1"

LEASE_MINOR = 1
"""Minor version of this protocol; the other side's is in its first message."""

HEADER_BYTES = 4

MAX_OPENING_BYTES = 4096
"""Of the first frame of a stranger: a chain of grants, a name and a key have less."""

MAX_MESSAGE_BYTES = 32 << 10
"""Of a frame of a peer that was let in: `MAX_DEVICES` with long names have half of it."""

MAX_DEVICES = 32
"""Of one machine: no machine that was heard of has more accelerators than 16."""

MAX_DEVICE_CHARACTERS = 128

MAX_TUNNEL_ADDRESSES = 16
MAX_ADDRESS_CHARACTERS = 128

MAX_CERTIFICATE_BYTES = 4096
"""A self-signed certificate of P-256 has some 600 bytes as PEM."""

MAX_MEMORY_BYTES = 1 << 50
MAX_RATE = 1e18

MIN_LEASE_SECONDS = 5.0
"""A lease that ends sooner would have to be renewed more often than a busy machine can."""
MAX_LEASE_SECONDS = 3600.0

BOUNDS = ("limit", "cgroup", "promise")
"""What keeps a server within the memory that is lent: a limit of its process, a control group of
the kernel, or nothing but the word of the worker."""

CARRIERS = ("direct", "stream")
"""How the bytes of a lease travel: TLS over TCP, or a stream of the node."""

MAX_RULE_CHARACTERS = 32


@attrs.frozen(kw_only=True)
class LeaseMessage:
    """What one side says at a time."""


# ---- of the borrower ----


@attrs.frozen(kw_only=True)
class LeaseOpening(LeaseMessage):
    """The borrower's first words: who it is."""

    namespace: str
    """The namespace of both."""

    minor: int = 0
    """Minor version of this protocol that the borrower speaks."""

    chain: bytes = b""
    """Its chain of grants, in a closed namespace."""

    root: bytes = b""
    """The root's public key, in a closed namespace."""


@attrs.frozen(kw_only=True)
class Survey(LeaseMessage):
    """Asks what there is to lend now."""


@attrs.frozen(kw_only=True)
class Take(LeaseMessage):
    """Asks for a lease."""

    seconds: float
    """How long it is to last unless it is renewed."""

    memory: int = 0
    """Bytes to lend; 0 for all that may be lent."""

    devices: tuple[str, ...] = ()
    """Names of devices, in the order in which the server is to list them; empty for all."""

    certificate: bytes = b""
    """The borrower's certificate for this lease alone, as PEM."""


@attrs.frozen(kw_only=True)
class Renew(LeaseMessage):
    """Asks that the lease last *seconds* from now."""

    seconds: float

    chain: bytes = b""
    """The borrower's newest chain, if it is another than before: a process has a new one daily."""


@attrs.frozen(kw_only=True)
class Look(LeaseMessage):
    """Asks how the server of the lease is, of the worker that runs it."""


@attrs.frozen(kw_only=True)
class End(LeaseMessage):
    """Ends the lease."""


# ---- of the worker ----


@attrs.frozen(kw_only=True)
class Admitted(LeaseMessage):
    """The borrower may ask. Who the worker is, in its turn."""

    minor: int = 0
    """Minor version of this protocol that the worker speaks."""

    chain: bytes = b""
    """The worker's chain of grants, in a closed namespace."""


@attrs.frozen(kw_only=True)
class Refused(LeaseMessage):
    """What was asked is not done. Where the borrower is not let in, the stream ends after it."""

    rule: str
    """Which rule forbids it, in one word: one of `punch.access.RULES`, or of `REFUSALS`."""

    reason: str = ""
    """The rule in a sentence for people, and which side must act."""


REFUSALS = frozenset(
    {
        "not_lent",  # an open namespace, and the worker was not told to lend to this peer
        "leased",  # another borrower has the lease
        "busy",  # the server of the last lease is still being ended
        "memory",  # more than is lent, or than is free
        "device",  # no such device is lent
        "certificate",  # none, or one that another lease had
        "seconds",  # a lease of that length is not given
        "server",  # the server could not be started
        "tunnel",  # the tunnel's far end could not be opened
        "closing",  # the worker ends
        "too_many",  # conversations of one host, or of all; or messages of one
        "protocol",  # the message may not come now, or is none
        "too_late",  # the lease has ended
    }
)
"""The words of a worker that refuses, beside those of a lock; words may be added."""


@attrs.frozen(kw_only=True)
class LentDevice:
    """A device that a worker lends, by its own word."""

    name: str
    """Its name in llama.cpp, such as ``CPU`` or ``CUDA0``."""

    description: str = ""
    """What it is, for people."""

    total: int = 0
    """Bytes of memory that it has."""

    free: int = 0
    """Bytes that may be borrowed of it now: what is really free, within what is lent."""

    bandwidth: float = 0.0
    """Bytes of weights that it reads in a second, as measured; 0 if nobody has measured."""

    compute: float = 0.0
    """Multiply-adds in a second, as measured; 0 if nobody has measured."""


@attrs.frozen(kw_only=True)
class Surveyed(LeaseMessage):
    """What there is to lend, by the worker's word."""

    devices: tuple[LentDevice, ...]
    """What is lent; at least one."""

    memory: int = 0
    """Bytes that may be borrowed in all, now."""

    bound: str = "promise"
    """What keeps the server within that: one of `BOUNDS`; words may be added."""

    rpc: tuple[int, ...] = ()
    """Version of the RPC protocol that the server speaks: major, minor, patch."""

    build: str = ""
    """What the server's program says of its build; empty if it says nothing."""

    threads: int = 0
    """Threads that the server computes with; 0 if it decides by itself."""

    carriers: frozenset[str] = frozenset()
    """How the bytes of a lease may travel: of `CARRIERS`; words may be added."""

    is_leased: bool = False
    """True if a borrower has the lease now."""


@attrs.frozen(kw_only=True)
class Leased(LeaseMessage):
    """The lease is the borrower's, and a server that nobody else has used runs for it."""

    lease: str
    """Names the lease, in both logs."""

    seconds: float
    """How long it lasts unless it is renewed; less than was asked for, where that was too long."""

    memory: int = 0
    """Bytes that are lent."""

    devices: tuple[str, ...] = ()
    """Devices that the server lists, in order."""

    certificate: bytes = b""
    """The worker's certificate for this lease alone, as PEM."""

    addresses: tuple[str, ...] = ()
    """Where the tunnel's far end listens; none if the bytes travel over a stream of the node."""

    carriers: frozenset[str] = frozenset()
    """How the bytes may travel."""


@attrs.frozen(kw_only=True)
class Renewed(LeaseMessage):
    """The lease lasts *seconds* from now."""

    seconds: float


@attrs.frozen(kw_only=True)
class Looked(LeaseMessage):
    """How the server of the lease is, by the word of the worker that runs it."""

    cpu_seconds: float = 0.0
    """Time that the server has computed since its start, or has waited for a processor to do it, in
    seconds of one core."""

    is_alive: bool = False
    """True if its process runs; a process that was stopped does not."""


@attrs.frozen(kw_only=True)
class LeaseEnded(LeaseMessage):
    """The lease has ended. It may come at any time, also in place of an answer."""

    why: str = "end"
    """One of `ENDINGS`; words may be added."""

    reason: str = ""
    """The same in a sentence for people."""


ENDINGS = frozenset(
    {
        "end",  # the borrower has ended it
        "time",  # it was not renewed
        "lost",  # the borrower's stream has ended
        "removed",  # the borrower is a member no longer, or may borrow no longer
        "server",  # the server has ended
        "tunnel",  # the tunnel's far end has ended
        "closing",  # the worker ends
        "protocol",  # the borrower has said what it may not
    }
)


_rule = label(MAX_RULE_CHARACTERS)
_seconds = number(0, MAX_RATE)
_memory = integer(0, MAX_MEMORY_BYTES)
_device = label(MAX_DEVICE_CHARACTERS)
_certificate = binary(MAX_CERTIFICATE_BYTES)
_minor = integer(0, 1 << 16)
_carriers = set_of(_rule, 8)
_chain = binary(MAX_GRANT_BYTES)

# Of each message: what it is called on the wire, and what its fields may be.
_KINDS: Mapping[str, tuple[type[LeaseMessage], Decoder]] = {
    "opening": (
        LeaseOpening,
        record(LeaseOpening, namespace=label(256), minor=_minor, chain=_chain, root=binary(64)),
    ),
    "survey": (Survey, record(Survey)),
    "take": (
        Take,
        record(
            Take,
            seconds=_seconds,
            memory=_memory,
            devices=many(_device, MAX_DEVICES),
            certificate=_certificate,
        ),
    ),
    "renew": (Renew, record(Renew, seconds=_seconds, chain=_chain)),
    "look": (Look, record(Look)),
    "end": (End, record(End)),
    "admitted": (Admitted, record(Admitted, minor=_minor, chain=_chain)),
    "refused": (
        Refused,
        record(Refused, rule=_rule, reason=label(MAX_REASON_CHARACTERS)),
    ),
    "surveyed": (
        Surveyed,
        record(
            Surveyed,
            devices=many(
                record(
                    LentDevice,
                    name=_device,
                    description=label(MAX_DEVICE_CHARACTERS),
                    total=_memory,
                    free=_memory,
                    bandwidth=_seconds,
                    compute=_seconds,
                ),
                MAX_DEVICES,
            ),
            memory=_memory,
            bound=_rule,
            rpc=many(integer(0, 1 << 31), 3),
            build=label(MAX_DEVICE_CHARACTERS),
            threads=integer(0, 1 << 16),
            carriers=_carriers,
            is_leased=flag,
        ),
    ),
    "leased": (
        Leased,
        record(
            Leased,
            lease=label(64),
            seconds=_seconds,
            memory=_memory,
            devices=many(_device, MAX_DEVICES),
            certificate=_certificate,
            addresses=many(label(MAX_ADDRESS_CHARACTERS), MAX_TUNNEL_ADDRESSES),
            carriers=_carriers,
        ),
    ),
    "renewed": (Renewed, record(Renewed, seconds=_seconds)),
    "looked": (Looked, record(Looked, cpu_seconds=_seconds, is_alive=flag)),
    "ended": (LeaseEnded, record(LeaseEnded, why=_rule, reason=label(MAX_REASON_CHARACTERS))),
}

_TYPE_OF: Mapping[type[LeaseMessage], str] = {kind: name for name, (kind, _) in _KINDS.items()}


def encode_lease(message: LeaseMessage) -> bytes:
    """The frame that carries *message*.

    Raises:
      LocalProtocolError: if it is longer than the other side takes.

    """
    body = encode_map({"type": _TYPE_OF[type(message)], **_fields(message)})
    if len(body) > MAX_MESSAGE_BYTES:
        raise LocalProtocolError(
            f"a message of {len(body)} bytes; at most {MAX_MESSAGE_BYTES} are read"
        )
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def decode_lease(body: bytes) -> LeaseMessage:
    """The message in *body*, the part of a frame after the length.

    Raises:
      RemoteProtocolError: if it is none; the text names the field and the rule.

    """
    found: LeaseMessage = decode_map(body, _read, what="lease")
    return found


def _read(fields: Any) -> LeaseMessage:
    kind = fields.get("type") if type(fields) is dict else None
    known = _KINDS.get(kind) if type(kind) is str else None
    if known is None:
        raise BadValue("a message of a lease")
    message: LeaseMessage = known[1](fields)
    return message


def _fields(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in attrs.fields(type(value)):
        item = getattr(value, field.name)
        if item == field.default:
            continue
        if isinstance(item, frozenset):
            item = sorted(item)
        elif isinstance(item, tuple):
            item = [_fields(each) if attrs.has(type(each)) else each for each in item]
        found[field.name] = item
    return found
