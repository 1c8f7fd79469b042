"""The doors of sessions: who is let in, and in a closed namespace also who must leave.

1. A peer is judged by its chain of grants when it greets, and again whenever removals, chains or
   the time may have changed the verdict; who is refused then is told why, and its session ends.
2. What a session is told of removals goes to the membership, and from there to all others.
3. Nothing here is done for a request: a session that is open costs nothing.

What a chain allows is decided by `punch.access`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

import attrs
import trio

from .._logs import get_logger
from ..access import Admit, Introduction, Member, Membership, Refusal
from ..capability import PeerId
from ..exceptions import NotPermitted
from ..network import Stream, is_own
from ..wire import MAX_REVOCATIONS, NEWER, Hello, Standing

log = get_logger(__name__)

# The ends of grants are looked at so often, in seconds: the clocks of two machines may differ by
# minutes.
LOOK_SECONDS = 15.0

# Peers whose last chain is remembered: those of the sessions, and those that have been here lately.
MAX_KNOWN = 4096

# What one session may tell of removals and chains: far more than happens, and each may cost a few
# signatures. What is beyond it is not read.
NEWS_BURST, NEWS_RATE = 128.0, 2.0


class OpenDoor:
    """The door of one session in an open namespace.

    Args:
      stream: The stream of the session.
      admit: Decides whether the peer is let in, once it has said hello.

    """

    def __init__(self, stream: Stream, admit: Admit) -> None:
        self._stream = stream
        self._admit = admit

    def let_in(self, peer_id: PeerId, hello: Hello) -> None:
        """Return if a peer is let in; see `Door.let_in`."""
        introduction = Introduction(namespace=hello.namespace, grant=hello.grant)
        # The ends of grants are UTC, so this one rule knows the machine's clock.
        refusal = self._admit(peer_id, introduction, time.time())
        if refusal is not None:
            raise NotPermitted(refusal.reason)

    def is_own(self, peer_id: PeerId) -> bool:
        """Whether the peer is of this machine, and so of the same owner."""
        return is_own(self._stream)

    def opened(self, guest: Guest) -> None:
        """No effect: whoever is in may stay."""

    def left(self, guest: Guest) -> None:
        """No effect: nothing is kept."""

    def heard(self, guest: Guest, standing: Standing) -> None:
        """No effect: nobody is removed."""


class Guest(Protocol):
    """What a door needs of a session."""

    peer_id: PeerId

    def say(self, message: Standing) -> None:
        """Queue a message."""
        ...

    def turn_away(self, reason: str) -> None:
        """End the session and what the peer has asked, and tell it why."""
        ...


@attrs.define(eq=False)
class _Visit:
    """An open session."""

    told: set[bytes] = attrs.field(factory=set)
    """Removals that its peer was told of, or has told us."""
    chain: bytes = b""
    """Our own chain, as its peer has it."""
    allowance: float = NEWS_BURST
    heard_at: float = 0.0

    def may_tell(self, number: int, now: float) -> bool:
        """Whether *number* more pieces of news are read."""
        grown = self.allowance + NEWS_RATE * (now - self.heard_at)
        self.allowance, self.heard_at = min(NEWS_BURST, grown), now
        if number > self.allowance:
            return False
        self.allowance -= number
        return True


class Door:
    """Decides who has a session with us in a closed namespace.

    Args:
      membership: Our own membership.
      peer_id: Our own identity.
      needs: The scopes that the other side must have.
      removed: Called with the peers that are members no longer.

    """

    def __init__(
        self,
        membership: Membership,
        peer_id: PeerId,
        needs: Iterable[str],
        *,
        removed: Callable[[frozenset[PeerId]], None] = lambda peers: None,
    ) -> None:
        self._membership = membership
        self._peer_id = peer_id
        self._needs = frozenset(needs)
        self._removed = removed
        self._visits: dict[Guest, _Visit] = {}
        # What each peer has shown last.
        self._chains: OrderedDict[PeerId, bytes] = OrderedDict()
        # The machine in each of them, for whom it is asked at every request.
        self._machines: dict[PeerId, tuple[bytes, PeerId]] = {}

    def greeting(self, hello: Hello) -> Hello:
        """*hello* with our chain of grants, as it is now."""
        return attrs.evolve(hello, grant=self._membership.chain())

    def let_in(self, peer_id: PeerId, hello: Hello) -> None:
        """Return if a peer is let in by what it says of itself.

        Raises:
          NotPermitted: if it is not; the reason says which rule it breaks.

        """
        now = time.time()
        introduction = Introduction(namespace=hello.namespace, grant=hello.grant)
        refusal = self._membership.lock.admit(peer_id, introduction, now)
        if refusal is None:
            found = self._judge(peer_id, hello.grant, now)
            refusal = found if isinstance(found, Refusal) else None
        if refusal is not None:
            raise NotPermitted(refusal.reason)
        if hello.minor < NEWER[Standing]:
            raise NotPermitted(
                f"the peer speaks minor {hello.minor} of the protocol, and members of a closed "
                f"namespace at least {NEWER[Standing]}: it must upgrade"
            )
        self._remember(peer_id, hello.grant or b"")

    def _judge(self, peer_id: PeerId, chain: bytes | None, now: float) -> Member | Refusal:
        return self._membership.lock.judge(peer_id, chain, now, self._needs)

    def _remember(self, peer_id: PeerId, chain: bytes) -> None:
        self._chains[peer_id] = chain
        self._chains.move_to_end(peer_id)
        if len(self._chains) > MAX_KNOWN:
            # Never of one that is here: it is judged by its chain for as long as it stays, and one
            # machine can greet as any number of processes.
            here = {guest.peer_id for guest in self._visits} | {peer_id}
            oldest = next((each for each in self._chains if each not in here), None)
            if oldest is not None:
                del self._chains[oldest]

    def member(self, peer_id: PeerId) -> Member | None:
        """The member that a peer is, if it was let in."""
        found = self._membership.lock.judge(peer_id, self._chains.get(peer_id), time.time())
        return None if isinstance(found, Refusal) else found

    def machine(self, peer_id: PeerId) -> PeerId | None:
        """The machine of a peer that was let in, or of this process; quick."""
        chain = self._membership.chain() if peer_id == self._peer_id else self._chains.get(peer_id)
        seen = self._machines.get(peer_id)
        if seen is not None and seen[0] is chain:
            return seen[1]
        member = self.own() if peer_id == self._peer_id else self.member(peer_id)
        if member is None or chain is None:
            return None
        if len(self._machines) >= MAX_KNOWN:
            self._machines.clear()
        self._machines[peer_id] = chain, member.machine
        return member.machine

    def own(self) -> Member | None:
        """The member that this process is; `None` if its own grant has ended."""
        membership = self._membership
        found = membership.lock.judge(self._peer_id, membership.chain(), time.time())
        return None if isinstance(found, Refusal) else found

    def is_own(self, peer_id: PeerId) -> bool:
        """Whether a peer that was let in is of the same owner as this one."""
        ours, theirs = self.own(), self.member(peer_id)
        return ours is not None and theirs is not None and ours.owner == theirs.owner

    # ---- sessions ----

    def opened(self, guest: Guest) -> None:
        """Tell a peer that was let in which removals are known here."""
        known = self._membership.lock.revocations
        self._visits[guest] = _Visit(
            chain=self._membership.chain(), heard_at=trio.current_time(), told=set(known)
        )
        # A few: where there are more, the rosters bring the others.
        if known:
            guest.say(Standing(revocations=tuple(known[-MAX_REVOCATIONS:])))

    def left(self, guest: Guest) -> None:
        """Forget a session that has ended."""
        self._visits.pop(guest, None)

    def heard(self, guest: Guest, standing: Standing) -> None:
        """Take what a peer says of its chain and of removals."""
        visit = self._visits.get(guest)
        news = [each for each in standing.revocations if visit is None or each not in visit.told]
        number = len(news) + (standing.grant is not None)
        if visit is None or not visit.may_tell(number, trio.current_time()):
            return
        visit.told.update(news)
        if standing.grant is not None:
            found = self._judge(guest.peer_id, standing.grant, time.time())
            if not isinstance(found, Refusal):
                self._remember(guest.peer_id, standing.grant)
        if news:
            # Ends what must end, this session too, before it returns.
            self._membership.add_revocations(news)

    async def run(self) -> None:
        """See to it that members alone stay, for ever."""
        with self._membership.watch(self.look), self._membership.seeing(self._guests):
            while True:
                await trio.sleep(LOOK_SECONDS)
                self.look()

    def _guests(self) -> frozenset[PeerId]:
        return frozenset(guest.peer_id for guest in self._visits)

    def look(self) -> None:
        """End the sessions of those who are members no longer, and tell the others what is new."""
        now = time.time()
        refused: dict[PeerId, Refusal] = {}
        for peer_id, chain in self._chains.items():
            found = self._judge(peer_id, chain, now)
            if isinstance(found, Refusal):
                refused[peer_id] = found
        for peer_id in refused:
            del self._chains[peer_id]
        if refused:
            log.info("peers are members no longer", peers=sorted(refused))
        chain, known = self._membership.chain(), self._membership.lock.revocations
        for guest, visit in tuple(self._visits.items()):
            if guest.peer_id in refused:
                guest.turn_away(refused[guest.peer_id].reason)
                continue
            news = [each for each in known if each not in visit.told]
            grant = None if chain == visit.chain else chain
            visit.chain = chain
            visit.told.update(news)
            while news or grant is not None:
                page, news = tuple(news[:MAX_REVOCATIONS]), news[MAX_REVOCATIONS:]
                guest.say(Standing(grant=grant, revocations=page))
                grant = None
        if refused:
            # After their sessions, so that what they had asked ends with the reason.
            self._removed(frozenset(refused))


def door_for(
    membership: Membership | None,
    peer_id: PeerId,
    needs: Iterable[str],
    removed: Callable[[frozenset[PeerId]], None] = lambda peers: None,
) -> Door | None:
    """The door of a closed namespace, see `Door`; `None` for an open one."""
    return None if membership is None else Door(membership, peer_id, needs, removed=removed)
