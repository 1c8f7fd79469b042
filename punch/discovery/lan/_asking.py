"""Asks a peer that was found on a LAN for its registration, and tells ours to who may ask.

A stream of `PROTOCOL`: the asker sends a salt and a tag, made with the key of the namespace for
both identities. If the tag fits, the other side sends its signed registration, again whenever that
is another and each `RENEWAL_SECONDS`; if not, it ends the stream without a word. An asker shows
nothing of itself but that it knows the namespace's key: neither its grant nor a name.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable

import trio

from ...capability import PeerId
from ...exceptions import PeerUnreachable, RemoteProtocolError
from ...network import Node, Stream, ip_of, site_of
from ...wire import Join, Registration
from .._meeting import RENEWAL_SECONDS, SILENCE_SECONDS, FramedStream, verified
from .._source import Announce
from ._tags import SALT_BYTES, TAG_BYTES, LanKey

PROTOCOL = "/punch/lan/1"

# Who ask at a time: all peers of a large LAN.
MAX_ASKERS = 1024

# Those among them that have proved nothing yet, of one host and in all: a stranger gets no further
# than the first bytes, and a host that hangs there keeps no other out.
MAX_UNPROVED = 256
MAX_UNPROVED_OF_HOST = 32
PROOF_SECONDS = 5.0

PROOF_BYTES = SALT_BYTES + TAG_BYTES


class Teller:
    """Our side of such streams: tells our registration to who knows the namespace.

    Args:
      node: Our own node.
      key: The key of our namespace.
      announce: Makes our registration.
      is_barred: Says who is told nothing though it knows the key, such as a removed member.
      asked: Called when somebody who knows the key has been told.

    """

    def __init__(
        self,
        node: Node,
        key: LanKey,
        announce: Announce,
        *,
        is_barred: Callable[[PeerId], bool] = lambda peer_id: False,
        asked: Callable[[], None] = lambda: None,
    ) -> None:
        self._node = node
        self._key = key
        self._announce = announce
        self._is_barred = is_barred
        self._asked = asked
        self._askers: set[trio.CancelScope] = set()
        self._unproved: Counter[str] = Counter()
        self._has_ended = False

    def close(self) -> None:
        """End every stream, and those that come later: we are no member any more."""
        self._has_ended = True
        for scope in self._askers:
            scope.cancel()

    async def serve(self, stream: Stream) -> None:
        """Serve one stream."""
        if self._has_ended or len(self._askers) >= MAX_ASKERS:
            return
        with trio.CancelScope() as scope:
            self._askers.add(scope)
            try:
                await self._serve(stream)
            finally:
                self._askers.discard(scope)

    async def _serve(self, stream: Stream) -> None:
        ip = ip_of(stream)
        host = "" if ip is None else site_of(ip)
        if self._unproved[host] >= MAX_UNPROVED_OF_HOST or self._unproved.total() >= MAX_UNPROVED:
            return
        self._unproved[host] += 1
        try:
            with trio.move_on_after(PROOF_SECONDS) as patience:
                is_member = await self._may_hear(stream)
        finally:
            self._unproved[host] -= 1
            if not self._unproved[host]:
                del self._unproved[host]
        if patience.cancelled_caught or not is_member:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_for_end, stream, nursery.cancel_scope)
            await self._tell(stream)
            nursery.cancel_scope.cancel()

    async def _may_hear(self, stream: Stream) -> bool:
        proof = b""
        while len(proof) < PROOF_BYTES:
            data = await stream.receive_some()
            proof += data
            if not data or len(proof) > PROOF_BYTES:
                return False
        salt, tag = proof[:SALT_BYTES], proof[SALT_BYTES:]
        return self._key.fits(
            tag, "ask", salt, stream.peer_id, self._node.peer_id
        ) and not self._is_barred(stream.peer_id)

    async def _tell(self, stream: Stream) -> None:
        frames = FramedStream(stream)
        try:
            while not self._is_barred(stream.peer_id):
                altered = self._announce.altered
                await frames.send(self._announce())
                self._asked()
                with trio.move_on_after(RENEWAL_SECONDS):
                    await altered.wait()
        except PeerUnreachable:
            pass

    async def _wait_for_end(self, stream: Stream, scope: trio.CancelScope) -> None:
        await stream.receive_some()  # An asker has no more to say.
        scope.cancel()


async def ask(
    node: Node,
    key: LanKey,
    peer_id: PeerId,
    addresses: tuple[str, ...],
    told: Callable[[Join, Registration], None],
) -> None:
    """Ask *peer_id* for its registration, and follow it until the stream ends.

    Args:
      node: Our own node.
      key: The key of our namespace.
      peer_id: Who must be there.
      addresses: Where.
      told: Called with each registration, whose signature is checked.

    Raises:
      PeerUnreachable: when the stream ends, or if it cannot be opened.
      RemoteProtocolError: if the peer sends something else.

    """
    stream = await node.open_stream(peer_id, addresses, PROTOCOL)
    try:
        salt = secrets.token_bytes(SALT_BYTES)
        await stream.send_all(salt + key.tag("ask", salt, node.peer_id, peer_id))
        frames = FramedStream(stream)
        while True:
            with trio.move_on_after(SILENCE_SECONDS) as patience:
                message = await frames.receive()
            if patience.cancelled_caught:
                raise PeerUnreachable(f"silent for {SILENCE_SECONDS:.0f} s", peer_id=peer_id)
            if message is None:
                raise PeerUnreachable("ended the stream", peer_id=peer_id)
            if not isinstance(message, Join):
                raise RemoteProtocolError(f"{type(message).__name__} from a peer of the LAN")
            registration = verified(node, message)
            if registration.peer_id != peer_id:
                raise RemoteProtocolError(f"{peer_id} shows what {registration.peer_id} signed")
            told(message, registration)
    finally:
        with trio.CancelScope(shield=True):
            await stream.aclose()
