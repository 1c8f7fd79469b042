"""How two members tell each other whom they know: ``/punch/tell/1``, three short messages.

1. Each shows its chain before it is told anything, and tells nothing before it has judged the
   other's. A program goes to none but those whose own chain it has judged already.
2. Each tells what the other has not; what is the same on both sides costs eight bytes a machine.
3. A name that is missing is asked for soon, of the machine itself first; everything else now and
   then, of any member.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from random import Random

import trio

from ..._logs import get_logger
from ...access import Member, Refusal
from ...capability import PeerId
from ...exceptions import ConfigurationError, PeerError, PeerUnreachable, RemoteProtocolError
from ...network import Node, Stream
from .._membership import DiskMembership
from .._messages import Opening, Outcome, Talk, Told
from .._tries import Tries, host_of
from ._cards import MAX_CARDS, Card, Cards

log = get_logger(__name__)

PROTOCOL = "/punch/tell/1"

PATIENCE_SECONDS = 10.0

# How often it is looked whether somebody is known only by key; how often a member is told what is
# new, at least; how long a machine that could not say its name is left in peace.
LOOK_SECONDS = 1.0
ROUND_SECONDS = 60.0
REST_SECONDS = 60.0

# Rounds that follow at once: at the start, and where something was news. So what a newcomer is
# called is everywhere in seconds, though no member goes to all.
FIRST_ROUNDS = 5
NEWS_ROUNDS = 2

# Rounds in a row with one member that has much to tell.
MAX_PAGES = 32

MAX_RESTING = 4096

# Of one host in a minute, of all, and at a time: a thousand members that come once a minute, and a
# household that starts together, stay below it. A stranger gets no further than its first words.
MAX_OF_HOST = 240
MAX_IN_ALL = 3000
MAX_AT_ONCE = 64
MAX_AT_ONCE_OF_HOST = 8


class Teller:
    """Tells members whom this machine knows, and is told.

    Args:
      membership: Whose chain is shown, and whose lock judges.
      rng: Chooses whom to go to.

    """

    def __init__(self, membership: DiskMembership, *, rng: Random | None = None) -> None:
        self.membership = membership
        self.cards = Cards(membership)
        self._rng = rng or Random()
        self._tries = Tries(
            of_host=MAX_OF_HOST,
            in_all=MAX_IN_ALL,
            at_once=MAX_AT_ONCE,
            of_host_at_once=MAX_AT_ONCE_OF_HOST,
        )
        # Rounds that follow at once.
        self._hurry = FIRST_ROUNDS
        # Machines that did not say their names, and until when they are left in peace.
        self._rests: OrderedDict[PeerId, float] = OrderedDict()

    # ---- the one that is asked ----

    async def serve(self, stream: Stream) -> None:
        """Serve one stream: a `Handler`."""
        host = host_of(stream)
        if not self._tries.begin(host, now=trio.current_time()):
            return
        try:
            with suppress(PeerError, RemoteProtocolError, ConfigurationError):
                await self._answer(Talk(stream), stream.peer_id)
        finally:
            self._tries.end(host)

    async def _answer(self, talk: Talk, peer_id: PeerId) -> None:
        opening = await talk.receive(Opening, seconds=PATIENCE_SECONDS)
        member = self._judged(peer_id, opening.chain)
        if isinstance(member, Refusal):
            await talk.send(Outcome(refused=member.rule, reason=member.reason))
            return
        talk.trust()
        await trio.to_thread.run_sync(self.cards.refresh)
        await talk.send(Told(chain=self.membership.chain(), stamps=self.cards.stamps))
        theirs = await talk.receive(Told, seconds=PATIENCE_SECONDS)
        cards, has_more = self.cards.lacking(theirs.stamps)
        await self._keep(theirs, member)
        await talk.send(_told(cards, has_more=has_more))

    # ---- the one that asks ----

    async def ask(self, node: Node, peer_id: PeerId, addresses: tuple[str, ...]) -> bool:
        """Tell a member what is known here, and be told; whether there is more.

        Raises:
          PeerError: if it cannot be reached, or does not answer.
          RemoteProtocolError: if it says what it should not.
          ConfigurationError: if nothing can be read or written.

        """
        await trio.to_thread.run_sync(self.cards.refresh)
        stream = await node.open_stream(peer_id, addresses, PROTOCOL)
        try:
            talk = Talk(stream)
            talk.trust()
            await talk.send(Opening(do="members", chain=self.membership.chain()))
            first = await talk.receive(Told, seconds=PATIENCE_SECONDS)
            member = self._judged(peer_id, first.chain)
            if isinstance(member, Refusal):
                return False
            cards, has_more = self.cards.lacking(first.stamps)
            await talk.send(_told(cards, stamps=self.cards.stamps))
            told = await talk.receive(Told, seconds=PATIENCE_SECONDS)
            await self._keep(told, member)
            return has_more or bool(told.more)
        finally:
            with trio.move_on_after(1.0, shield=True):
                await stream.aclose()

    def _judged(self, peer_id: PeerId, chain: bytes) -> Member | Refusal:
        return self.membership.lock.judge(peer_id, chain or None, self.membership.now())

    async def _keep(self, told: Told, by: Member) -> None:
        cards = [
            Card(chain=chain, name=name)
            for chain, name in zip(told.chains, told.names, strict=False)
        ]
        found = self.cards.believed(cards[:MAX_CARDS], by)
        if found:
            if not all(map(self.cards.has, found)):
                self._hurry = max(self._hurry, NEWS_ROUNDS)
            await trio.to_thread.run_sync(self.cards.keep, found)

    # ---- now and then ----

    async def run(self, node: Node) -> None:
        """Tell members, and be told, for ever."""
        due = trio.current_time()
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = trio.current_time()
            places = self._places()
            wanted = self._wanted(places, now)
            if not places or (now < due and not wanted and not self._hurry):
                continue
            machine = wanted or self._rng.choice(sorted(places))
            if wanted:
                self._rest(machine, now)
            else:
                self._hurry = max(0, self._hurry - 1)
            if await self._tell(node, *places[machine]):
                # Not all in the same second, though all have started in the same.
                due = now + ROUND_SECONDS * self._rng.uniform(0.5, 1.5)

    async def _tell(self, node: Node, peer_id: PeerId, addresses: tuple[str, ...]) -> bool:
        try:
            for _ in range(MAX_PAGES):
                if not await self.ask(node, peer_id, addresses):
                    break
        except PeerUnreachable as error:
            log.debug("a member was not told who is here", peer=peer_id, why=str(error))
            return False
        except (PeerError, RemoteProtocolError, ConfigurationError) as error:
            # An older version, which speaks no such protocol, is asked as seldom as any.
            log.debug("a member does not say who is here", peer=peer_id, why=str(error))
        return True

    def _places(self) -> dict[PeerId, tuple[PeerId, tuple[str, ...]]]:
        """Of each machine but this one that may be gone to a process, and where that is."""
        membership = self.membership
        addresses: dict[PeerId, list[str]] = {}
        for text in membership.places():
            addresses.setdefault(PeerId(text.rpartition("/p2p/")[2]), []).append(text)
        return {
            member.machine: (member.peer_id, tuple(addresses[member.peer_id]))
            for member in membership.lock.remembered
            if member.peer_id in addresses
            and member.machine != membership.home.machine
            and not membership.lock.is_removed(member)
        }

    def _wanted(
        self, places: dict[PeerId, tuple[PeerId, tuple[str, ...]]], now: float
    ) -> PeerId | None:
        """A machine that is known by key alone, and may be asked now."""
        known = self.cards.named
        for machine in places:
            if machine not in known and self._rests.get(machine, now) <= now:
                return machine
        return None

    def _rest(self, machine: PeerId, now: float) -> None:
        self._rests[machine] = now + REST_SECONDS
        self._rests.move_to_end(machine)
        if len(self._rests) > MAX_RESTING:
            self._rests.popitem(last=False)


def _told(cards: tuple[Card, ...], *, stamps: bytes = b"", has_more: bool = False) -> Told:
    return Told(
        stamps=stamps,
        chains=tuple(each.chain for each in cards),
        names=tuple(each.name for each in cards),
        more=int(has_more),
    )


async def keep_telling(
    membership: DiskMembership, node: Node, teller: Teller | None = None
) -> None:
    """Tell members who is here, and be told, for ever."""
    await (teller or Teller(membership)).run(node)
