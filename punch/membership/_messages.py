"""What is said on ``/punch/join/1``: JSON in frames, a few in each direction, and their limits.

The stream's peers are authenticated and what they say is encrypted by the node. Bytes from outside
raise `RemoteProtocolError` and nothing else; unknown keys are ignored, so that fields can be added.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import trio

from ..exceptions import PeerTimeout, PeerUnreachable, RemoteProtocolError
from ..network import Stream
from ..wire import FrameBuffer

PROTOCOL = "/punch/join/1"

# Bytes of a frame of a stranger: an exchange, a name and a chain of grants have far less.
MAX_STRANGER_FRAME = 8 << 10

# Bytes of a frame of a member that was proved to be one: the newest revocations, and members.
MAX_FRAME = 256 << 10

MAX_TEXT = 1024
MAX_ITEMS = 512

M = TypeVar("M", bound="Message")


@attrs.frozen(kw_only=True)
class Message:
    """What one side says at a time."""


@attrs.frozen(kw_only=True)
class Opening(Message):
    """The newcomer's or member's first words."""

    do: str
    """``code``, ``nearby``, ``renew`` or ``rotate``."""
    invite: str = ""
    """Of ``code``: which invite; no secret."""
    proof: bytes = b""
    """Of ``code`` the first half of the key exchange; of ``nearby`` the commitment; of ``rotate``
    the old key's signature, see `punch.access.sign_rotation`."""
    name: str = ""
    """Of ``nearby`` and ``rotate``: what the machine is called."""
    chain: bytes = b""
    """Of ``renew``: the grants of the process that asks. Of ``rotate``: those of the old key."""


@attrs.frozen(kw_only=True)
class Reply(Message):
    """The member's answer to an opening."""

    proof: bytes = b""
    """Of ``code`` the second half of the key exchange; of ``nearby`` a random number."""
    confirmation: bytes = b""
    """Of ``code``: proves that the member knows the secret."""
    refused: str = ""
    """The rule that forbids to go on, in one word; see `Outcome`, which may come in its place."""
    reason: str = ""


@attrs.frozen(kw_only=True)
class Proof(Message):
    """The newcomer's second words."""

    confirmation: bytes
    """Of ``code`` proves that the newcomer knows the secret; of ``nearby`` what it committed to."""
    name: str = ""
    """What the newcomer's machine is called, for people."""
    port: int = 0
    """TCP port at which the newcomer listens meanwhile, to be dialled back; 0 for none."""


@attrs.frozen(kw_only=True)
class Outcome(Message):
    """The member's last words: a grant, or which rule forbids it."""

    refused: str = ""
    """The rule, in one word; empty where there is a grant."""
    reason: str = ""
    """The rule, in a sentence."""
    namespace: str = ""
    root: str = ""
    chain: bytes = b""
    """The newcomer's grant, with what leads from the root to it."""
    member_chain: bytes = b""
    """The grants of the process that says so."""
    name: str = ""
    """What the newcomer is called in the namespace."""
    revocations: tuple[bytes, ...] = ()
    """The newest; all are in the first roster."""
    members: tuple[str, ...] = ()
    """Members, as JSON; see `MemberRecord`."""
    places: tuple[str, ...] = ()
    """Where members were, as multiaddresses."""
    reached: str = ""
    """The address at which the newcomer was dialled back; empty if it could not be."""
    trouble: str = ""
    """What came of the dial instead."""


@attrs.frozen(kw_only=True)
class Told(Message):
    """What one member tells another of members, on ``/punch/tell/1``; see `telling`."""

    chain: bytes = b""
    """The grants of the process that says so, in its first words."""
    stamps: bytes = b""
    """What tells which cards it has, eight bytes for each."""
    chains: tuple[bytes, ...] = ()
    """Of machines that the other side does not have: what leads from the root to each."""
    names: tuple[str, ...] = ()
    """What each of these is called."""
    more: int = 0
    """1 if there are more of them."""


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise ValueError("a text")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise ValueError("bytes")
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("bytes") from None


def _port(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 16:
        raise ValueError("a port")
    return value


def _many(each: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def convert(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > MAX_ITEMS:
            raise ValueError("a list")
        return tuple(map(each, value))

    return convert


# The annotations of the messages above, which are all that there are.
_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "bytes": _bytes,
    "int": _port,
    "tuple[str, ...]": _many(_text),
    "tuple[bytes, ...]": _many(_bytes),
}


def encode(message: Message) -> bytes:
    """The frame that carries *message*."""

    def plain(_: Any, __: Any, value: Any) -> Any:
        return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value

    fields = attrs.asdict(message, value_serializer=plain)
    body = json.dumps({name: value for name, value in fields.items() if value}).encode("ascii")
    return len(body).to_bytes(4, "big") + body


def decode(kind: type[M], body: bytes) -> M:
    """The message of *kind* in *body*.

    Raises:
      RemoteProtocolError: if it is none.

    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RemoteProtocolError(f"{kind.__name__.lower()}: no JSON") from None
    if type(found) is not dict:
        raise RemoteProtocolError(f"{kind.__name__.lower()}: no object")
    values: dict[str, Any] = {}
    for field in attrs.fields(kind):
        if field.name in found:
            try:
                values[field.name] = _DECODERS[str(field.type)](found[field.name])
            except ValueError as error:
                raise RemoteProtocolError(
                    f"{kind.__name__.lower()}.{field.name}: expected {error}"
                ) from None
        elif field.default is attrs.NOTHING:
            raise RemoteProtocolError(f"{kind.__name__.lower()}.{field.name} is missing")
    return kind(**values)


class Talk:
    """The messages of one stream.

    Args:
      stream: The stream; whoever opened it closes it.
      max_frame: The longest frame that the other side may send, in bytes; may be changed.

    """

    def __init__(self, stream: Stream, *, max_frame: int = MAX_STRANGER_FRAME) -> None:
        self._stream = stream
        self._received = FrameBuffer(max_frame)

    def trust(self) -> None:
        """Take longer frames: the other side has proved what it is."""
        self._received.max_frame = MAX_FRAME

    async def send(self, message: Message) -> None:
        """Say *message*; raises `PeerUnreachable`."""
        await self._stream.send_all(encode(message))

    async def receive(self, kind: type[M], *, seconds: float) -> M:
        """The next message, which must be of *kind*.

        Raises:
          PeerUnreachable: if the stream ended.
          PeerTimeout: if it does not come within *seconds*.
          RemoteProtocolError: if it is another, or none.

        """
        with trio.move_on_after(seconds):
            while (body := self._received.next_body()) is None:
                data = await self._stream.receive_some()
                if not data:
                    raise PeerUnreachable("ended the conversation", peer_id=self._stream.peer_id)
                self._received.feed(data)
            return decode(kind, body)
        raise PeerTimeout(f"said nothing for {seconds:.0f} s", peer_id=self._stream.peer_id)
