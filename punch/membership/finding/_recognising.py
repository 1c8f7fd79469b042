"""Tells a program of a member from whoever else is at an address, before a grant is shown there.

A stream of `PROTOCOL`: the asker sends a salt and a tag, made with the root's public key for both
identities. If the tag fits, the other side shows its grants; if not, it ends the stream without a
word. An asker shows nothing of itself but that it knows the root's key.
"""

from __future__ import annotations

import hmac
import secrets
from contextlib import suppress
from hashlib import sha256

import trio

from ...access import Member, Namespace
from ...capability import PeerId
from ...exceptions import PeerError, RemoteProtocolError
from ...network import Node, Stream
from .._membership import DiskMembership
from .._messages import Opening, Outcome, Talk
from .._tries import Tries, host_of
from ..codes import is_same

PROTOCOL = "/punch/member/1"

SALT_BYTES = 16
PROOF_BYTES = SALT_BYTES + 32

PATIENCE_SECONDS = 5.0

# Askers that are served in a minute and at a time, of one host and in all: members look for each
# other a few times a minute, and a stranger gets no further than its first words.
MAX_ASKED_OF_HOST = 240
MAX_ASKED = 1200
MAX_AT_ONCE = 64
MAX_AT_ONCE_OF_HOST = 8


def proof_of(namespace: Namespace, salt: bytes, *, asker: PeerId, asked: PeerId) -> bytes:
    """What an asker sends: it serves nobody else, and nowhere else."""
    key = sha256(b"punch member 1\n" + namespace.key).digest()
    return salt + hmac.digest(key, b"\0".join((salt, asker.encode(), asked.encode())), sha256)


class Recognised:
    """Our side of such streams.

    Args:
      membership: Our membership.

    """

    def __init__(self, membership: DiskMembership) -> None:
        self._membership = membership
        self._tries = Tries(
            of_host=MAX_ASKED_OF_HOST,
            in_all=MAX_ASKED,
            at_once=MAX_AT_ONCE,
            of_host_at_once=MAX_AT_ONCE_OF_HOST,
        )

    async def serve(self, stream: Stream) -> None:
        """Serve one stream: a `Handler`."""
        host = host_of(stream)
        if not self._tries.begin(host, now=trio.current_time()):
            return
        try:
            with suppress(PeerError, RemoteProtocolError):
                await self._serve(Talk(stream), stream.peer_id)
        finally:
            self._tries.end(host)

    async def _serve(self, talk: Talk, asker: PeerId) -> None:
        membership = self._membership
        opening = await talk.receive(Opening, seconds=PATIENCE_SECONDS)
        salt = opening.proof[:SALT_BYTES]
        proof = proof_of(membership.namespace, salt, asker=asker, asked=membership.process)
        if len(opening.proof) == PROOF_BYTES and is_same(opening.proof, proof):
            with trio.move_on_after(PATIENCE_SECONDS):
                await talk.send(Outcome(member_chain=membership.chain()))


async def is_member(membership: DiskMembership, node: Node, peer_id: PeerId, address: str) -> bool:
    """Whether *peer_id*, at *address*, shows that it is a member of our namespace.

    Raises:
      PeerUnreachable: if it is not there, or speaks no such protocol.

    """
    stream = await node.open_stream(peer_id, (address,), PROTOCOL)
    try:
        talk = Talk(stream)
        salt = secrets.token_bytes(SALT_BYTES)
        proof = proof_of(membership.namespace, salt, asker=node.peer_id, asked=peer_id)
        await talk.send(Opening(do="meet", proof=proof))
        outcome = await talk.receive(Outcome, seconds=PATIENCE_SECONDS)
    except (PeerError, RemoteProtocolError):
        return False
    finally:
        await stream.aclose()
    found = membership.lock.judge(peer_id, outcome.member_chain or None, membership.now())
    return isinstance(found, Member)
