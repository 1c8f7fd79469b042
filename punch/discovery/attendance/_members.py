"""Members of a closed namespace as meeting points: a few at a time, and others when one is gone.

1. All members try the same few first, by a hash of their keys: so a newcomer that reaches any of
   them hears of everybody, and a thousand members do not make a million streams. Each machine
   comes once before any comes twice: a machine has as many keys as it likes, and finds some that go
   before all others.
2. One that cannot be met is left in peace for a while that grows, and the next one is tried.
3. A source whose place is gone and that finds no other forgets after a while who was there.

Where members were seen is kept by the membership; what is said there is in `_stream`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...access import Membership
from ...capability import PeerId
from ...exceptions import NetworkError, NotPermitted, PeerUnreachable, PunchError
from ...network import Node
from .._meeting import PROTOCOL
from .._quiet import Lasting
from .._source import Announce, Found, Sighting
from ._checks import Checks
from ._rank import rank_of
from ._stream import Attendance, Attended

log = get_logger(__name__)

MAX_MEETINGS = 5
"""Members that we meet at, at a time: three machines that are never off together are enough."""

# Addresses of one member that are tried, and members that are considered: what a membership keeps
# may be more.
MAX_TRIED_ADDRESSES = 8
MAX_PLACES = 256

# How long a member that could not be met is left in peace: at first, and at most.
MIN_REST_SECONDS = 1.0
MAX_REST_SECONDS = 60.0

# How often a source without a place looks for one.
LOOK_SECONDS = 1.0

# How often a source that has a place looks for one that goes before it in rank. One source moves at
# a time, so that the others have what it knew.
MOVE_SECONDS = 5.0

# How long a source that is nowhere goes on listing whom it has seen.
FORGET_SECONDS = 60.0


@attrs.define
class _Rest:
    """How long a member is left in peace."""

    until: float
    seconds: float


class Rota:
    """Decides which member is met at next; shared by the sources. No clock: *now* is in seconds.

    Args:
      membership: Knows where members were seen.
      peer_id: Our own identity, which is no place to go.
      attended: Whom we meet already.

    """

    def __init__(self, membership: Membership, peer_id: PeerId, attended: Attended) -> None:
        self.refusal: PunchError | None = None
        """Why the last one that answered turned us away; `None` once another has let us in."""
        self._membership = membership
        self._peer_id = peer_id
        self._attended = attended
        self._rests: dict[PeerId, _Rest] = {}

    def next(self, now: float) -> tuple[PeerId, tuple[str, ...]] | None:
        """The member to meet at, with its addresses; `None` if there is none now."""
        places = self._places()
        self._rests = {peer: rest for peer, rest in self._rests.items() if peer in places}
        free = [
            peer_id
            for peer_id in places
            if peer_id not in self._attended and not self._rests_at(peer_id, now)
        ]
        if not free:
            return None
        met = {self._machine(peer_id) for peer_id in places if peer_id in self._attended}
        # Those that failed last go last, whatever their hash.
        first = min(
            free,
            key=lambda peer_id: (
                self._machine(peer_id) in met,
                peer_id in self._rests,
                self._rank(peer_id),
            ),
        )
        return first, places[first]

    def has_better(self, peer_id: PeerId, now: float) -> bool:
        """Whether *peer_id*, the last in rank of those that we meet, should be left for another."""
        places = self._places()
        met = [each for each in places if each in self._attended]
        if not met or max(met, key=lambda each: self._order(each, met)) != peer_id:
            return False
        others = [each for each in met if each != peer_id]
        return any(
            each not in self._attended
            and self._order(each, others) < self._order(peer_id, others)
            # One that failed is left alone for some time after its rest: this one works.
            and not self._rests_at(each, now - MAX_REST_SECONDS)
            for each in places
        )

    def _rests_at(self, peer_id: PeerId, now: float) -> bool:
        rest = self._rests.get(peer_id)
        return rest is not None and rest.until > now

    def failed(self, peer_id: PeerId, now: float) -> None:
        """Note that a member could not be met."""
        rest = self._rests.get(peer_id)
        seconds = MIN_REST_SECONDS if rest is None else min(2 * rest.seconds, MAX_REST_SECONDS)
        self._rests[peer_id] = _Rest(until=now + seconds, seconds=seconds)

    def met(self, peer_id: PeerId) -> None:
        """Note that a member has let us in."""
        self.refusal = None
        self._rests.pop(peer_id, None)

    def _places(self) -> Mapping[PeerId, tuple[str, ...]]:
        found: dict[PeerId, list[str]] = defaultdict(list)
        for text in self._membership.places():
            peer_id = PeerId(text.rpartition("/p2p/")[2])
            if peer_id == self._peer_id or (peer_id not in found and len(found) >= MAX_PLACES):
                continue
            if len(found[peer_id]) < MAX_TRIED_ADDRESSES:
                found[peer_id].append(text)
        return {peer_id: tuple(addresses) for peer_id, addresses in found.items()}

    def _order(self, peer_id: PeerId, met: Sequence[PeerId]) -> tuple[bool, bytes]:
        """Where *peer_id* comes beside those that are *met*: see rule 1."""
        rank, machine = self._rank(peer_id), self._machine(peer_id)
        is_second = any(self._machine(each) == machine and self._rank(each) < rank for each in met)
        return is_second, rank

    def _machine(self, peer_id: PeerId) -> PeerId:
        """The machine that *peer_id* is on; itself as long as that is not known."""
        return self._membership.machine_of(peer_id) or peer_id

    def _rank(self, peer_id: PeerId) -> bytes:
        return rank_of(peer_id, self._membership.namespace.key)


class MemberSource:
    """A source that meets at one member after the other.

    Args:
      number: Tells it from the others, from 1 on.
      node: Our own node.
      rota: Says where to go.
      checks: What is asked of each registration.
      attended: Whom we meet already.
      namespace: The name of the namespace.

    """

    def __init__(
        self,
        number: int,
        node: Node,
        *,
        rota: Rota,
        checks: Checks,
        attended: Attended,
        namespace: str,
    ) -> None:
        self.name = f"member {number}"
        """Name of the source, for people."""
        self._node = node
        self._rota = rota
        self._attended = attended
        self._attendance = Attendance(checks, namespace)
        self._away = Lasting()

    async def run(self, announce: Announce, found: Found) -> None:
        """Be registered at some member, for ever."""
        lost_at: float | None = None
        while True:
            place = self._rota.next(trio.current_time())
            if place is None:
                self._say_nowhere(found)
                await trio.sleep(LOOK_SECONDS)
            else:
                lost_at = await self._meet(*place, announce, found, lost_at)
            if lost_at is not None and trio.current_time() >= lost_at + FORGET_SECONDS:
                found(Sighting(is_whole=True))
                self._say_nowhere(found)
                lost_at = None

    def _say_nowhere(self, found: Found) -> None:
        refusal = self._rota.refusal
        trouble = refusal or NetworkError("no other member can be met at now")
        found(Sighting(trouble=trouble, is_final=refusal is not None))

    async def _meet(
        self,
        peer_id: PeerId,
        addresses: tuple[str, ...],
        announce: Announce,
        found: Found,
        lost_at: float | None,
    ) -> float | None:
        """Meet at one member, until that ends; since when we are nowhere, `None` if never."""
        is_met = False

        def listed() -> None:
            nonlocal is_met
            is_met = True
            self._rota.met(peer_id)
            if self._away.ended(trio.current_time()) is not None:
                log.info("a member is met at again", peer=peer_id)

        with self._attended.claimed(peer_id, yields=True):
            async with open_background() as nursery:
                nursery.start_soon(self._leave_for_better, peer_id, nursery.cancel_scope)
                # Caught within the nursery: beside a cancel it would leave it as a group.
                try:
                    stream = await self._node.open_stream(peer_id, addresses, PROTOCOL)
                    await self._attendance.hold(stream, announce, found, listed=listed)
                except NotPermitted as error:
                    self._rota.refusal = error
                    self._fail(peer_id, error, found)
                except PunchError as error:
                    trouble = error
                    if isinstance(error, PeerUnreachable):
                        trouble = NetworkError(f"a member cannot be met at: {error}")
                    self._fail(peer_id, trouble, found)
        now = trio.current_time()
        return now if is_met or lost_at is None else lost_at

    async def _leave_for_better(self, peer_id: PeerId, scope: trio.CancelScope) -> None:
        """Cancel *scope* once there is a place before this one in rank; see rule 1."""
        while True:
            await trio.sleep(MOVE_SECONDS)
            if self._rota.has_better(peer_id, trio.current_time()):
                scope.cancel()

    def _fail(self, peer_id: PeerId, error: PunchError, found: Found) -> None:
        now = trio.current_time()
        self._rota.failed(peer_id, now)
        found(Sighting(trouble=error, is_final=isinstance(error, NotPermitted)))
        if self._away.goes_on(now):
            log.info("a member cannot be met at; trying others", peer=peer_id, why=str(error))


def member_sources(
    node: Node, membership: Membership, *, checks: Checks, attended: Attended
) -> tuple[MemberSource, ...]:
    """The sources by which members of a closed namespace come back through one another."""
    rota = Rota(membership, node.peer_id, attended)
    return tuple(
        MemberSource(
            number,
            node,
            rota=rota,
            checks=checks,
            attended=attended,
            namespace=membership.namespace.name,
        )
        for number in range(1, MAX_MEETINGS + 1)
    )
