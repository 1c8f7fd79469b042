"""The first words on ``/punch/tunnel/1``: what a stream is for, and whether it may be.

One opening and one outcome, each JSON in a frame; after that the stream carries frames of a tunnel.
Bytes from outside raise `RemoteProtocolError` and nothing else; unknown keys are ignored, so that
fields can be added.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, TypeVar

import attrs
import trio

from ...exceptions import PeerTimeout, PeerUnreachable, RemoteProtocolError
from ...network import Stream
from ...wire import FrameBuffer

PROTOCOL: Final = "/punch/tunnel/1"

# Two certificates' worth of text and a chain of grants, with room.
MAX_FRAME_BYTES: Final = 16 << 10
MAX_TEXT: Final = 4096
MAX_ADDRESSES: Final = 16

M = TypeVar("M", "TunnelOpening", "TunnelOutcome")


@attrs.frozen(kw_only=True)
class TunnelOpening:
    """What the near end wants: the target of a lease, or a port by its name."""

    wants: str = "stream"
    """``stream``: to carry a connection on this very stream. ``direct``: to be told where a far end
    listens for TLS connections, for as long as this stream is open."""

    lease: str = ""
    """The lease whose target is meant."""

    port: str = ""
    """The name of a port that the other side's settings allow."""

    namespace: str = ""
    """Of ``port``: where both are members."""

    chain: bytes = b""
    """Of ``port`` in a closed namespace: the grants of the process that asks."""

    certificate: str = ""
    """Of ``direct``: the near end's certificate, as PEM."""


@attrs.frozen(kw_only=True)
class TunnelOutcome:
    """What the far end says to it."""

    refused: str = ""
    """The rule that forbids it, in one word; empty if it may be."""

    reason: str = ""
    """The same in a sentence."""

    certificate: str = ""
    """Of ``direct``: the far end's certificate, as PEM."""

    addresses: tuple[str, ...] = ()
    """Of ``direct``: where the far end listens, as ``HOST:PORT``."""


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _read(name: str, kind: str, value: Any) -> Any:
    if kind == "tuple[str, ...]":
        if type(value) is not list or len(value) > MAX_ADDRESSES:
            raise RemoteProtocolError(f"{name}: expected a short list")
        return tuple(_read(name, "str", each) for each in value)
    if type(value) is not str or len(value) > MAX_TEXT:
        raise RemoteProtocolError(f"{name}: expected a text of at most {MAX_TEXT} characters")
    if name != "certificate" and not value.isprintable():
        # It is logged, and shown to people.
        raise RemoteProtocolError(f"{name}: expected a line that can be printed")
    if kind == "bytes":
        try:
            return base64.b64decode(value, validate=True)
        except (ValueError, binascii.Error):
            raise RemoteProtocolError(f"{name}: expected bytes in base64") from None
    return value


def encode(message: TunnelOpening | TunnelOutcome) -> bytes:
    """The frame that carries *message*."""
    fields = attrs.asdict(message)
    body = json.dumps({name: _plain(value) for name, value in fields.items() if value})
    return len(body).to_bytes(4, "big") + body.encode("ascii")


def decode(kind: type[M], body: bytes) -> M:
    """The message of *kind* in *body*.

    Raises:
      RemoteProtocolError: if it is none.

    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("the first words of a tunnel are no JSON") from None
    if type(found) is not dict:
        raise RemoteProtocolError("the first words of a tunnel are no object")
    values = {
        field.name: _read(field.name, str(field.type), found[field.name])
        for field in attrs.fields(kind)
        if field.name in found
    }
    return kind(**values)


async def say(stream: Stream, message: TunnelOpening | TunnelOutcome) -> None:
    """Send *message*; raises `PeerUnreachable`."""
    await stream.send_all(encode(message))


async def hear(stream: Stream, kind: type[M], *, seconds: float) -> M:
    """The first message on *stream*, which must be of *kind*.

    Raises:
      PeerUnreachable: if the stream ended.
      PeerTimeout: if it does not come within *seconds*.
      RemoteProtocolError: if it is another, or none.

    """
    received = FrameBuffer(MAX_FRAME_BYTES)
    with trio.move_on_after(seconds):
        while (body := received.next_body()) is None:
            data = await stream.receive_some()
            if not data:
                raise PeerUnreachable("ended the conversation", peer_id=stream.peer_id)
            received.feed(data)
        return decode(kind, body)
    raise PeerTimeout(f"said nothing for {seconds:.0f} s", peer_id=stream.peer_id)
