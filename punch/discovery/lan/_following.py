"""Follows candidates of a LAN: which of them, each on a stream, and until when.

In an open namespace a dialer follows all, and a listener nobody. In a closed one a few are
followed, the same ones by all members: all meet there, and hear of everybody else. Whom they do
not tell of is followed too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

import trio

from ..._logs import get_logger
from ...access import Refusal
from ...capability import PeerId
from ...exceptions import PeerUnreachable, RemoteProtocolError
from ...network import Node
from ...wire import Join, Registration
from .._source import Announce
from ._asking import ask
from ._candidates import Candidate, Candidates
from ._tags import LanKey

log = get_logger(__name__)

# Peers that are followed at a time, each on a stream: by a dialer all of a large LAN; by a listener
# of a closed namespace a few, whose addresses it remembers to come back through.
MAX_FOLLOWED = 256
MAX_FOLLOWED_BY_LISTENERS = 8

# Those of a closed namespace that are followed though others tell of them: as many as members meet
# at. Forty programs that each follow all others have more to do with that than with requests.
ENOUGH_FOLLOWED = 5

# New peers that are dialled at a time.
MAX_DIALED = 16

# How often it is looked who is to be followed now.
LOOK_SECONDS = 2.0


class Report(Protocol):
    """Tells the directory of those that are followed."""

    def __call__(
        self,
        *,
        present: tuple[Registration, ...] = (),
        gone: tuple[PeerId, ...] = (),
        on_link: Mapping[PeerId, tuple[str, ...]] | None = None,
    ) -> None:
        """Say who is there, who is gone, and where those that are there are on a link of ours."""
        ...


class Following:
    """The candidates of one namespace, and the streams to those that are followed.

    Args:
      node: Our own node.
      name: Name of the source.
      namespace: Name of the namespace.
      key: Its key.
      is_closed: Whether it is closed.
      judge: Says why a registration that somebody has shown does not count, if it does not.
      order: Puts peers of a closed namespace in an order that all its members agree on.

    """

    def __init__(
        self,
        node: Node,
        *,
        name: str,
        namespace: str,
        key: LanKey,
        is_closed: bool,
        judge: Callable[[Join, Registration], Refusal | None],
        order: Callable[[Iterable[PeerId]], Collection[PeerId]],
    ) -> None:
        self.candidates = Candidates()
        """Whom records name."""
        # Those that have shown a registration, on a stream that lasts.
        self._listed: set[PeerId] = set()
        self._node = node
        self._name = name
        self._namespace = namespace
        self._key = key
        self._is_closed = is_closed
        self._judge = judge
        self._order = order
        self._scopes: dict[PeerId, trio.CancelScope] = {}
        self._dialed = trio.CapacityLimiter(MAX_DIALED)
        self._changed = trio.Event()

    @property
    def hears_members(self) -> bool:
        """True if a record is heard of somebody who has shown a registration."""
        return any(each.was_met for each in self.candidates)

    def changed(self) -> None:
        """Note that the candidates are others."""
        self._changed.set()
        self._changed = trio.Event()

    async def run(self, announce: Announce, report: Report) -> None:
        """Follow as many candidates as we have a use for, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                changed, altered = self._changed, announce.altered
                limit = self._limit(announce)
                wanted = self._choose(announce)
                while sum(each.is_followed for each in self.candidates) < limit:
                    chosen = self.candidates.next_due(trio.current_time(), wanted)
                    if not isinstance(chosen, Candidate):
                        break
                    self.candidates.began(chosen)
                    self._scopes[chosen.peer_id] = trio.CancelScope()
                    nursery.start_soon(self._follow, chosen, report)
                due = self.candidates.next_due(trio.current_time(), wanted)
                # Whom others cease to tell of becomes due without a word.
                deadline = trio.current_time() + LOOK_SECONDS
                if isinstance(due, float):
                    deadline = min(due, deadline) if self._is_closed else due
                with trio.move_on_at(deadline):
                    async with trio.open_nursery() as waiting:
                        for event in (changed, altered):
                            waiting.start_soon(_wait, event, waiting.cancel_scope)

    def _limit(self, announce: Announce) -> int:
        """How many peers we have a use for."""
        if "dialer" in announce.roles:
            return MAX_FOLLOWED
        return MAX_FOLLOWED_BY_LISTENERS if self._is_closed else 0

    def _choose(self, announce: Announce) -> set[PeerId] | None:
        """Let go of those that need not be followed; who is to be, `None` for everybody."""
        if not self._is_closed:
            return None
        besides = announce.besides(self._name)
        wanted = self.candidates.wanted(
            ENOUGH_FOLLOWED, order=self._order, besides=besides, now=trio.current_time()
        )
        for candidate in self.candidates.spare(wanted, besides):
            self._scopes[candidate.peer_id].cancel()
        return wanted

    async def _follow(self, candidate: Candidate, report: Report) -> None:
        """Follow one candidate until its stream ends, or it need not be followed."""
        peer_id, scope = candidate.peer_id, self._scopes[candidate.peer_id]
        has_turn = False

        def give_back() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._dialed.release_on_behalf_of(candidate)

        def told(join: Join, registration: Registration) -> None:
            if registration.namespace != self._namespace:
                raise RemoteProtocolError(f"{peer_id} is no member of this namespace")
            refusal = self._judge(join, registration)
            if refusal is not None:
                raise RemoteProtocolError(f"{peer_id} is not let in: {refusal.reason}")
            give_back()
            places = candidate.on_link
            if not candidate.was_met:
                log.info("found on LAN", peer=peer_id, addresses=(*registration.addresses, *places))
            self.candidates.met(candidate)
            self._listed.add(peer_id)
            report(present=(registration,), on_link={peer_id: places})

        why = "others tell of it"
        try:
            with scope:
                await self._dialed.acquire_on_behalf_of(candidate)
                has_turn = True
                addresses = tuple(map(str, candidate.addresses))
                await ask(self._node, self._key, peer_id, addresses, told)
        except (PeerUnreachable, RemoteProtocolError) as error:
            why = error.message
        finally:
            give_back()
            del self._scopes[peer_id]
            if scope.cancelled_caught:
                self.candidates.let_go(candidate)
            else:
                self.candidates.ended(candidate, now=trio.current_time())
            self.changed()
        log.debug("not followed on the LAN any more", peer=peer_id, why=why)
        if peer_id in self._listed:
            self._listed.discard(peer_id)
            report(gone=(peer_id,))


async def _wait(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
