"""Tells members of a removal, all at once at their meeting points, and hears who took it.

A member that was told passes it on by itself: this is for a machine none of whose programs will be
there to do so.

1. Everywhere first: a peer is told nothing before it has shown by its roster that it lets this
   machine in, since afterwards nobody does.
2. Then all of them are told, and a ping goes after it. Whoever takes the removal of the very
   machine that tells it turns that machine away; of another removal the answer to the ping says
   that it was read.
3. Neither takes longer than `MEET_SECONDS` and `TELL_SECONDS`, whoever is silent.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from ..._logs import get_logger
from ...access import Member, Membership, Refusal
from ...capability import PeerId
from ...discovery import new_incarnation
from ...discovery._announcement import Announcement
from ...discovery._meeting import PROTOCOL, FramedStream, pages_of
from ...exceptions import NotPermitted, PeerError, RemoteProtocolError
from ...network import Node, Stream
from ...wire import Goodbye, Join, Ping, Pong, Roster, Standing, decode_registration

log = get_logger(__name__)

MEET_SECONDS = 5.0
TELL_SECONDS = 3.0

MAX_MET = 64
"""Addresses that are tried, all at once."""


@attrs.frozen(kw_only=True)
class Told:
    """Who knows of a removal by now."""

    machines: frozenset[PeerId] = frozenset()
    """Those that have said so."""

    others: frozenset[PeerId] = frozenset()
    """Those that are told by these."""


@attrs.frozen
class _Meeting:
    """A stream to a peer that lets this machine in."""

    frames: FramedStream
    machine: PeerId | None
    """Whose machine it is; `None` of a bootstrap that is no member."""
    present: frozenset[PeerId]
    """Machines that it knows to be there, which it tells."""


class Telling:
    """The meetings with all that can be reached. Made by `open_telling`."""

    def __init__(self, membership: Membership, peer_id: PeerId) -> None:
        self._membership = membership
        self._peer_id = peer_id
        self._meetings: dict[PeerId, _Meeting] = {}
        self._streams: list[Stream] = []
        self._tried: set[PeerId] = set()

    async def tell(self, removals: Sequence[bytes]) -> Told:
        """Tell all that were met, and return who has taken it; see rule 2."""
        ours = self._membership.lock.judge(self._peer_id, self._membership.chain(), time.time())
        is_out = isinstance(ours, Refusal)
        taken: list[_Meeting] = []

        async def one(meeting: _Meeting) -> None:
            with suppress(PeerError, RemoteProtocolError):
                for page in pages_of(removals):
                    await meeting.frames.send(Standing(revocations=page))
                await meeting.frames.send(Ping(nonce=LAST_PING))
                if await _turns_away(meeting.frames) is is_out:
                    taken.append(meeting)

        with trio.move_on_after(TELL_SECONDS):
            async with trio.open_nursery() as nursery:
                for meeting in self._meetings.values():
                    nursery.start_soon(one, meeting)
        machines = frozenset(each.machine for each in taken if each.machine is not None)
        present = frozenset[PeerId]().union(*(each.present for each in taken))
        return Told(machines=machines, others=present - machines)

    async def meet(self, node: Node, address: str, announce: Announcement) -> None:
        """Meet who is at *address*, if that is somebody who lets this machine in."""
        with suppress(PeerError, RemoteProtocolError):
            peer_id = await node.identify(address)
            if peer_id in self._tried:
                return
            self._tried.add(peer_id)
            stream = await node.open_stream(peer_id, (address,), PROTOCOL)
            self._streams.append(stream)
            frames = FramedStream(stream)
            await frames.send(announce())
            rosters = await _first_rosters(frames)
            if rosters:
                self._heard(peer_id, frames, [join for each in rosters for join in each.present])

    async def close(self) -> None:
        """End all meetings."""
        async with trio.open_nursery() as nursery:
            for stream in self._streams:
                nursery.start_soon(stream.aclose)

    def _heard(self, peer_id: PeerId, frames: FramedStream, present: Sequence[Join]) -> None:
        """Note a peer that has let this machine in, and whom it knows."""
        members = {
            member.peer_id: member.machine
            for member in map(self._member, present)
            if member is not None
        }
        self._meetings[peer_id] = _Meeting(
            frames=frames, machine=members.get(peer_id), present=frozenset(members.values())
        )

    def _member(self, join: Join) -> Member | None:
        """The member that is registered, as its chain says: nothing here lets it in anywhere."""
        try:
            peer_id = decode_registration(join.registration).peer_id
        except RemoteProtocolError:
            return None
        found = self._membership.lock.judge(peer_id, join.grant, time.time())
        return found if isinstance(found, Member) else None


@asynccontextmanager
async def open_telling(
    membership: Membership, node: Node, places: Sequence[str]
) -> AsyncIterator[Telling]:
    """Meet all who can be reached at *places*, for as long as the context lasts.

    Args:
      membership: Of this process, whose grant still counts.
      node: Its node.
      places: Where members were, as multiaddresses; whoever is there now is asked who it is.

    """
    member = membership.lock.judge(node.peer_id, membership.chain(), time.time())
    dials = isinstance(member, Member) and "dial" in member.scopes
    announce = Announcement(
        node,
        namespace=membership.namespace.name,
        # A dialer is told of all others, and not shown to them.
        roles={"dialer"} if dials else (),
        incarnation=new_incarnation(),
        membership=membership,
    )
    telling = Telling(membership, node.peer_id)
    bare = dict.fromkeys(place.partition("/p2p/")[0] for place in places)
    try:
        with trio.move_on_after(MEET_SECONDS):
            async with trio.open_nursery() as nursery:
                for address in tuple(bare)[:MAX_MET]:
                    nursery.start_soon(telling.meet, node, address, announce)
        yield telling
    finally:
        with trio.move_on_after(1.0, shield=True):
            await telling.close()


async def _first_rosters(frames: FramedStream) -> list[Roster]:
    """All that a meeting point tells first; nothing if it does not let this machine in."""
    found: list[Roster] = []
    while (message := await frames.receive()) is not None:
        if isinstance(message, Goodbye):
            return []
        if isinstance(message, Roster):
            if not found:
                # A long roster comes in several frames, and what comes next is the answer.
                await frames.send(Ping(nonce=FIRST_PING))
            found.append(message)
        if isinstance(message, Pong) and message.nonce == FIRST_PING:
            return found
    return []


FIRST_PING, LAST_PING = 1, 2
"""Nonces of the pings behind a registration and behind a removal."""


async def _turns_away(frames: FramedStream) -> bool | None:
    """Whether the other side turns us away, or answers the last ping; `None` if neither."""
    while (message := await frames.receive()) is not None:
        if isinstance(message, Pong) and message.nonce == LAST_PING:
            return False
        if isinstance(message, Goodbye):
            return True if message.code == NotPermitted.code else None
    return None
