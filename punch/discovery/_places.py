"""Decides which listeners have a place in a pool, where there are more than it has sessions for.

A listener that was met keeps its place while it is listed. One that was not gives it to the next
after a try, and no source has more places for such listeners than its share.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import attrs
import trio

from ..capability import PeerId
from ..network import dialled_together
from ..peers import PeerTable
from ..session import PeerSession
from ..wire import MAX_REACH, Reach
from ._known_member import KnownMember
from ._reach import explain

_NEVER = (0, -math.inf)


@attrs.define(eq=False)
class ListenerState:
    """A listener of the directory, with our session to it."""

    listener: KnownMember
    age: int
    """Grows with each listener that is found."""
    session: PeerSession | None = None
    trouble: str | None = None
    """Why there is no session, once that is known."""
    why: str | None = None
    """The same in a word, if it could not be dialled; see `PeerUnreachable.why`."""
    path: str | None = None
    """How the session reaches it; see `PeerRecord.path`."""
    has_met: bool = False
    """True once there was a session."""
    tries: int = 0
    """Dials in vain since the last session, or in all."""
    reasons: list[str] = attrs.field(factory=list)
    """What came of each address of a listener that was not met yet."""
    moved: trio.Event = attrs.field(factory=trio.Event)
    """Set when the listener started anew or moved: the next try is made at once."""

    @property
    def _tries(self) -> tuple[tuple[str, ...], ...]:
        return dialled_together(self.listener.addresses)

    @property
    def has_more_addresses(self) -> bool:
        """True if some of its addresses were not tried yet in this round."""
        return not self.has_met and 0 < len(self.reasons) < len(self._tries)

    def next_addresses(self) -> tuple[str, ...]:
        """The addresses to try: few at a time before it was met, or another's turn would wait."""
        addresses = self.listener.addresses
        if self.has_met or not addresses:
            return addresses
        return self._tries[self.tries % len(self._tries)]

    def failed(self, reason: str, why: str | None = None) -> None:
        """Note a dial in vain; the trouble is told once every address was tried."""
        self.tries += 1
        if not self.reasons:
            self.why = why  # Of the first address, which is the one that it thinks best of.
        self.reasons.append(reason)
        if not self.has_more_addresses:
            self.trouble, self.reasons = "; ".join(dict.fromkeys(self.reasons)), []

    def tell(self, table: PeerTable) -> None:
        """Put what a bootstrap has found, and the path that we have, into *table*."""
        reach = self.listener.reach
        why = "" if reach is None or reach.ok else explain(reach)
        is_reached = None if reach is None else reach.ok
        table.reached(self.listener.peer_id, is_reached, why, path=self.path)

    def trouble_told(self) -> str:
        """Why there is no session, and what a bootstrap has found."""
        reach, trouble = self.listener.reach, self.trouble or ""
        if self.why is None or reach is None:
            return trouble
        if reach.ok:
            return f"{trouble}; the bootstrap reaches it: something is between it and this machine"
        return f"{trouble}; {explain(reach)}"


def troubles_of(states: Iterable[ListenerState]) -> tuple[Reach, ...]:
    """The listeners that could not be dialled, for who can tell them; a few."""
    found = (
        Reach(
            peer_id=state.listener.peer_id,
            ok=False,
            address=state.listener.addresses[0].partition("/p2p/")[0],
            why=state.why,
        )
        for state in states
        if state.trouble is not None and state.why is not None and state.listener.addresses
    )
    return tuple(itertools.islice(found, MAX_REACH))


class Places:
    """The places of one pool. No clock: *now* is in seconds.

    Args:
      limit: How many there are.

    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._ages = itertools.count()
        # How often a listener that gave its place up was tried, and when last.
        self._tried: dict[PeerId, tuple[int, float]] = {}
        self._given = 0
        # Listeners with a place that were not met yet, by the names of their sources.
        self._unmet: Counter[str] = Counter()
        self._share = float(limit)

    def look(self, states: Iterable[ListenerState], *, sources: int) -> None:
        """Count the places that are given, before others are.

        Args:
          states: The listeners that have one.
          sources: How many sources there are.

        """
        self._given = 0
        self._unmet.clear()
        for state in states:
            self._given += 1
            if not state.has_met:
                self._unmet.update(state.listener.sources)
        self._share = self.limit / max(1, sources)

    def in_turn(self, listeners: Sequence[KnownMember]) -> Sequence[KnownMember]:
        """The same; if not all have a place, those first that were tried least and longest ago."""
        if len(listeners) <= self.limit:
            return listeners
        listed = {listener.peer_id for listener in listeners}
        self._tried = {peer: tried for peer, tried in self._tried.items() if peer in listed}
        return sorted(listeners, key=lambda each: self._tried.get(each.peer_id, _NEVER))

    def is_free_for(self, listener: KnownMember) -> bool:
        """Whether *listener* may have a place."""
        if self._given >= self.limit:
            return False
        sources = listener.sources
        return not sources or any(self._unmet[name] < self._share for name in sources)

    def give(self, listener: KnownMember) -> ListenerState:
        """Give *listener* a place."""
        self._given += 1
        self._unmet.update(listener.sources)
        tries, _ = self._tried.get(listener.peer_id, _NEVER)
        return ListenerState(listener, age=next(self._ages), tries=tries)

    def leave(self, state: ListenerState, *, now: float) -> None:
        """Note that a listener which was tried in vain gives its place up."""
        self._tried[state.listener.peer_id] = state.tries, now
