"""One source of the directory with the members that it lists.

What several sources say is merged in `_directory`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import PunchError
from ..peers import Twins
from ..wire import SHARED_IDENTITY, Join, Reach, Registration
from ._known_member import MAX_LISTED, KnownMember, known_member
from ._reach import combined
from ._source import Sighting, Source

log = get_logger(__name__)

SHARED_BY_OTHERS = (
    "two processes have this identity: one has a copy of the other's key file, and requests go now "
    "to one and now to the other; start one of them with another --identity"
)

SHARED_IDENTITY_TEXT = (
    "another process has the same identity: one has a copy of the other's key file, and dialers "
    "meet now one and now the other; start one of them with another --identity"
)


@attrs.define(eq=False)
class Listed:
    """A source with the members that it lists."""

    source: Source
    members: dict[PeerId, Registration] = attrs.field(factory=dict)
    relayed: frozenset[PeerId] = frozenset()
    """Those that it has from another source."""
    near: frozenset[PeerId] = frozenset()
    """Those that it says are on this machine."""
    on_link: dict[PeerId, tuple[str, ...]] = attrs.field(factory=dict)
    """Where it has found them on a link of ours."""
    notices: frozenset[str] = frozenset()
    reach: dict[PeerId, Reach] = attrs.field(factory=dict)
    """How its members could be dialled; of none that it does not list."""
    is_working: bool = False
    trouble: PunchError | None = None
    is_final: bool = False
    is_besides: bool = False
    """True if it is no reason to think that we are in the namespace, see `needs_members`."""

    @property
    def is_idle(self) -> bool:
        """True if nobody waits for it."""
        return self.is_besides and not self.is_working

    @property
    def is_ours(self) -> bool:
        """True if the source is this very process, which works whatever the network does."""
        return getattr(self.source, "is_ours", False)

    def note(self, notices: frozenset[str], own: PeerId) -> None:
        """Take what the source has noticed of us, who are *own*."""
        if SHARED_IDENTITY in notices and SHARED_IDENTITY not in self.notices:
            log.warning(SHARED_IDENTITY_TEXT, peer=own, source=self.source.name)
        # Once it was seen it stays: the two take turns, and each is alone for a while.
        self.notices |= notices

    def take(
        self, sighting: Sighting, own: PeerId, twins: set[PeerId], incarnations: Twins | None
    ) -> tuple[Registration, ...]:
        """List what a sighting says; returns what is news of listeners.

        Args:
          sighting: What the source says.
          own: Our own identity, which is not listed.
          twins: Takes the peers that two processes claim to be.
          incarnations: Knows which process of each was there; `None` where sources may be late.

        """
        before = self.members
        after = {} if sighting.is_whole else dict(before)
        for peer_id in sighting.gone:
            after.pop(peer_id, None)
        news: dict[PeerId, Registration] = {}
        for registration in sighting.present:
            peer_id = registration.peer_id
            if not registration.is_shown or peer_id == own:
                continue
            known = before.get(peer_id)
            # Rule 2 within one source: a roster that came late takes nothing back. Where none comes
            # late, a lower incarnation is that of a peer whose clock was set back meanwhile.
            is_other = known is not None and known.incarnation != registration.incarnation
            if (
                known is not None
                and stamp_of(known) > stamp_of(registration)
                and not (is_other and sighting.is_ordered)
            ):
                registration = known
            elif incarnations is not None and incarnations.came(
                peer_id, registration.incarnation, 0.0
            ):
                # However long ago the other was there: nobody starts anew as an earlier process.
                if peer_id not in twins:
                    log.warning("a copied identity", peer=peer_id, why=SHARED_BY_OTHERS)
                twins.add(peer_id)
            if peer_id in after or len(after) < MAX_LISTED:
                after[peer_id] = registration
            else:
                log.warning("a source lists too many members", source=self.source.name)
                break
            if registration.is_listener and registration != known:
                news[peer_id] = registration
        told = {each.peer_id for each in sighting.present}
        self.members = after
        self.relayed = ((self.relayed - told) | sighting.relayed) & after.keys()
        self.near = ((self.near - told) | sighting.near) & after.keys()
        self._find_on_link(told, sighting.on_link)
        return tuple(news.values())

    def keep(self, is_member: Callable[[Registration], bool]) -> None:
        """Forget the members of which *is_member* is not true."""
        kept = {peer: each for peer, each in self.members.items() if is_member(each)}
        self.members = kept
        self.relayed, self.near = self.relayed & kept.keys(), self.near & kept.keys()
        self._find_on_link((), {})

    def _find_on_link(
        self, told: Collection[PeerId], found: Mapping[PeerId, tuple[str, ...]]
    ) -> None:
        before = {peer: places for peer, places in self.on_link.items() if peer not in told}
        self.on_link = {
            peer: places for peer, places in {**before, **found}.items() if peer in self.members
        }

    def hear_reach(self, news: Sequence[Reach], own: PeerId) -> None:
        """Take what the source says of how others than *own* could be dialled."""
        for reach in news:
            if reach.by == "bootstrap" and reach.peer_id != own:
                self.reach[reach.peer_id] = reach
        self.reach = {peer: reach for peer, reach in self.reach.items() if peer in self.members}


def stamp_of(registration: Registration) -> tuple[int, int]:
    """A key that orders the registrations of one peer by age."""
    return registration.incarnation, registration.sequence


def seen_by(sources: Iterable[Listed]) -> frozenset[PeerId]:
    """The members that are listed now by a source that works, and not from memory."""
    return frozenset().union(*(each.members for each in sources if each.is_working))


def merged(sources: Iterable[Listed], peer_id: PeerId) -> KnownMember | None:
    """What all *sources* together say of a peer; `None` if none of them lists it.

    Made anew from all of them each time, so that no order of reports leaves a trace.
    """
    listing = [each for each in sources if peer_id in each.members]
    if not listing:
        return None
    newest = max((each.members[peer_id] for each in listing), key=stamp_of)
    return known_member(
        newest,
        {each.source.name for each in listing},
        is_near=any(
            peer_id in each.near and each.members[peer_id].incarnation == newest.incarnation
            for each in listing
        ),
        on_link=tuple(place for each in listing for place in each.on_link.get(peer_id, ())),
        reach=combined(each.reach.get(peer_id) for each in listing),
    )


def listed_besides(sources: Iterable[Listed], name: str) -> dict[PeerId, bool]:
    """The members that a source that works lists, other than the one that is called *name*.

    True for those that one of them has from the member itself.
    """
    found: dict[PeerId, bool] = {}
    for each in sources:
        if each.is_working and each.source.name != name:
            found |= dict.fromkeys(each.relayed - found.keys(), False)
            found |= dict.fromkeys(each.members.keys() - each.relayed, True)
    return found


def first_hand(
    sources: Iterable[Listed], join_of: Callable[[PeerId], Join | None]
) -> dict[PeerId, Join]:
    """The latest joins of members that one of *sources*, not ourselves, has from themselves."""
    found: set[PeerId] = set()
    near: set[PeerId] = set()
    for listed in sources:
        if listed.is_working and not listed.is_ours:
            found |= listed.members.keys() - listed.relayed
            near |= listed.near
    joins = {peer_id: join_of(peer_id) for peer_id in found}
    # Near to us, and not to the place where we have heard of them.
    return {
        # Most are as they should be, and making one anew takes longer than all else here.
        peer_id: join if join.near == (peer_id in near) else attrs.evolve(join, near=not join.near)
        for peer_id, join in joins.items()
        if join is not None
    }
