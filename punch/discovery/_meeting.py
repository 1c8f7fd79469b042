"""The stream between a bootstrap and its members, which both sides use.

A peer keeps one stream to the bootstrap (`/punch/meet/1`). It sends its signed registration
at once and renews it before it expires; the bootstrap sends back who else is there, and every
change. When the bootstrap is lost, sessions are not: peers that know each other continue, and
register again when it is back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from ..access import Membership
from ..exceptions import PeerUnreachable, RemoteProtocolError
from ..network import Node, Stream
from ..wire import (
    MAX_FRAME_BYTES,
    MAX_REVOCATION_BYTES,
    MAX_REVOCATIONS,
    MINOR,
    FrameBuffer,
    Goodbye,
    Join,
    Ping,
    Pong,
    Registration,
    Roster,
    Standing,
    decode,
    decode_registration,
    encode,
)

PROTOCOL = "/punch/meet/1"

BOOTSTRAP_PORT = 51820
DEFAULT_BOOTSTRAP = f"/ip4/127.0.0.1/tcp/{BOOTSTRAP_PORT}"
DEFAULT_NAMESPACE = "simple-chat"

# A registration outlives a bootstrap restart or a short loss of the network, and a peer that
# vanished is not offered to newcomers for much longer than it takes to notice it.
LIFETIME_SECONDS = 30.0
RENEWAL_SECONDS = 10.0

# Seconds that each side waits for the other: three renewals.
SILENCE_SECONDS = 30.0


def usual_namespace(membership: Membership | None) -> str:
    """The namespace of a program that names none: that of its membership, if it has one."""
    return DEFAULT_NAMESPACE if membership is None else membership.namespace.name


def own_identity(membership: Membership | None) -> str | None:
    """The file with the key that a membership is for; `None` for a fresh key."""
    return None if membership is None else membership.identity


Meeting = Join | Roster | Standing | Goodbye | Ping | Pong


class FramedStream:
    """A stream of meeting messages.

    Args:
      stream: The stream of bytes below.
      max_frame: The longest frame that the other side may send, in bytes.
      minor: Minor version of the other side; fields that it does not know are left out.

    """

    def __init__(
        self, stream: Stream, *, max_frame: int = MAX_FRAME_BYTES, minor: int = MINOR
    ) -> None:
        self._stream = stream
        self._received = FrameBuffer(max_frame)
        self.minor = minor

    async def send(self, message: Meeting) -> None:
        await self._stream.send_all(encode(message, minor=self.minor))

    def widen(self, max_frame: int) -> None:
        """Take frames as long as *max_frame* from now on."""
        self._received.max_frame = max_frame

    async def receive(self) -> Meeting | None:
        """The next message, or `None` at the end.

        Raises:
          RemoteProtocolError: if the frame is too long, or no message of a meeting.

        """
        while (body := self._received.next_body()) is None:
            data = await self._stream.receive_some()
            if not data:
                return None
            self._received.feed(data)
        message = decode(body)
        if not isinstance(message, Join | Roster | Standing | Goodbye | Ping | Pong):
            raise RemoteProtocolError(f"{type(message).__name__} at a meeting")
        return message


def verified(node: Node, join: Join) -> Registration:
    """The registration in *join*, whose signature is checked.

    Raises:
      RemoteProtocolError: if it is malformed, or not signed by the peer that it names.

    """
    registration = decode_registration(join.registration)
    if not node.verify(registration.peer_id, join.signed, join.signature):
        raise RemoteProtocolError(f"the registration of {registration.peer_id} is not its own")
    return registration


async def send_goodbye(frames: FramedStream, goodbye: Goodbye) -> None:
    with suppress(PeerUnreachable):
        await frames.send(goodbye)


def pages_of(
    revocations: Sequence[bytes], longest: int = MAX_REVOCATION_BYTES
) -> Iterator[tuple[bytes, ...]]:
    """*revocations* in pages, each of which fits one frame of a member."""
    page: list[bytes] = []
    size = 0
    for each in revocations:
        if page and (size + len(each) > longest or len(page) == MAX_REVOCATIONS):
            yield tuple(page)
            page, size = [], 0
        page.append(each)
        size += len(each)
    if page:
        yield tuple(page)
