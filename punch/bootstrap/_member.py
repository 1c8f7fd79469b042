"""A member at a bootstrap: what it is still to be told, and the task that writes it.

What there is to tell, and to whom, is decided in `_server`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import trio

from ..capability import PeerId
from ..discovery._meeting import FramedStream, pages_of
from ..exceptions import PeerUnreachable
from ..wire import (
    MINOR,
    Goodbye,
    Join,
    NamespaceId,
    Pong,
    Reach,
    Roster,
    Standing,
    name_of,
)

# Seconds after which a change is told, together with what else changed by then: peers that start
# at the same time make one roster and not a hundred.
COALESCE_SECONDS = 0.05

# The same after the last roster, in a closed namespace. Its members meet at several members, hear
# of each change at all of them, and move together when another one goes before these: forty would
# read some thousand rosters then, of what they know.
PAUSE_SECONDS = 1.0

# Registrations in one frame of a roster: with `MAX_JOIN_BYTES`, a tenth of the longest frame.
MAX_PAGE_REGISTRATIONS = 100

# The same of removals.
MAX_PAGE_BYTES = 256 << 10

ReachKey = tuple[PeerId, str]
"""A listener, and who dialled it."""


@attrs.frozen(kw_only=True)
class Everything:
    """What a member is told first."""

    present: tuple[Join, ...] = ()
    """Who is there."""

    reach: dict[ReachKey, Reach] = attrs.field(factory=dict)
    """What is known of how they could be dialled."""


@attrs.define(eq=False)
class Member:
    """A peer with a stream to the bootstrap."""

    peer_id: PeerId
    host: str | None = None
    """The machine or household that its stream comes from, if that is known."""
    is_near: bool = False
    """True if its stream comes from this very machine."""
    notices: frozenset[str] = frozenset()
    """What it is told of itself."""
    namespace: NamespaceId | None = None
    is_dialer: bool = False
    """True if the member dials, and so is told which peers there are."""
    minor: int = 0
    """Minor version of the protocol that the member speaks."""
    news: dict[PeerId, Join | None] = attrs.field(factory=dict)
    """Peer to its registration, or `None` if it is gone, still to be told."""
    reach: dict[ReachKey, Reach] = attrs.field(factory=dict)
    """What came of dialling listeners; still to be told."""
    has_roster: bool = False
    """True once the member was sent a whole roster; from then on only what changes."""
    nonce: int | None = None
    """Nonce of a ping that is still to be answered."""
    wake: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is something to tell."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Ends the member's stream when it is cancelled."""
    goodbye: Goodbye | None = None
    """What it is told when that happens."""
    is_standing_due: bool = True
    """True if there may be removals that it was not told of."""
    revocations: set[bytes] = attrs.field(factory=set)
    """Removals that it was told of, or has told us."""

    def turn_away(self, goodbye: Goodbye) -> None:
        """End the member's stream, and tell it why."""
        self.goodbye = goodbye
        self.scope.cancel()

    async def keep_told(
        self,
        frames: FramedStream,
        everything: Callable[[Member], Everything],
        known: Callable[[NamespaceId], Sequence[bytes]],
    ) -> None:
        """Write everything that the member is told: the only writer of its stream.

        Args:
          frames: Its stream.
          everything: What it is told first.
          known: The removals that are known of a namespace, which are told before all else.

        """
        # When there is news: when it is told. And when it may be told again.
        due, free_at = math.inf, -math.inf
        try:
            while True:
                with trio.move_on_at(due):
                    await self.wake.wait()
                self.wake = trio.Event()
                if self.nonce is not None:
                    nonce, self.nonce = self.nonce, None
                    await frames.send(Pong(nonce=nonce))
                if self.namespace is None:
                    continue
                if self.is_standing_due:
                    self.is_standing_due = False
                    all_known = known(self.namespace)
                    learnt = [each for each in all_known if each not in self.revocations]
                    self.revocations.update(learnt)
                    for page in pages_of(learnt, MAX_PAGE_BYTES):
                        await frames.send(Standing(revocations=page))
                if not self.has_roster:
                    self.has_roster, due = True, math.inf
                    self.news.clear()
                    first = everything(self)
                    self.reach |= first.reach
                    await self._tell(frames, present=first.present, whole=True)
                elif self.news or self.reach:
                    now = trio.current_time()
                    due = min(due, max(now + COALESCE_SECONDS, free_at))
                    if now < due:
                        continue
                    due = math.inf
                    if isinstance(self.namespace, tuple):
                        free_at = now + PAUSE_SECONDS
                    news, self.news = self.news, {}
                    await self._tell(
                        frames,
                        present=tuple(join for join in news.values() if join is not None),
                        gone=tuple(peer_id for peer_id, join in news.items() if join is None),
                    )
        except PeerUnreachable:
            self.scope.cancel()

    async def _tell(
        self,
        frames: FramedStream,
        *,
        present: tuple[Join, ...],
        gone: tuple[PeerId, ...] = (),
        whole: bool = False,
    ) -> None:
        """Send a roster, in several frames if it is long; only the first one is *whole*."""
        assert self.namespace is not None
        reach = tuple(self.reach.values())
        self.reach.clear()
        longest = max(len(present), len(gone), len(reach))
        pages = max(1, -(-longest // MAX_PAGE_REGISTRATIONS))
        for page in range(pages):
            part = slice(page * MAX_PAGE_REGISTRATIONS, (page + 1) * MAX_PAGE_REGISTRATIONS)
            await frames.send(
                Roster(
                    namespace=name_of(self.namespace),
                    whole=whole and page == 0,
                    present=present[part],
                    gone=gone[part],
                    minor=MINOR,
                    notices=self.notices if whole else frozenset(),
                    reach=reach[part],
                )
            )
