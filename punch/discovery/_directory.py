"""The directory: merges what all sources say of the members of a namespace.

1. A member is there for as long as one source says so.
2. Of what several sources say about one member the newest word counts, by incarnation first and
   sequence second. Which source said it, and when it arrived, means nothing: no clocks of two
   machines are compared. Where a source tells things in their order, its last word counts.
3. A source that fails takes nothing away: what it said last stays until it says otherwise.

How members are found is left to the sources; sessions with them are kept by `_session_pool`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import MappingProxyType

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..access import Membership
from ..capability import PeerId
from ..exceptions import ConfigurationError, PunchError
from ..network import Address, Node
from ..peers import Twins
from ..wire import (
    SHARED_IDENTITY,
    Join,
    Reach,
)
from ._announcement import Announcement
from ._bootstraps import bootstrap_sources
from ._known_member import KnownMember, with_role
from ._known_peers import KnownPeers
from ._listed import (
    SHARED_BY_OTHERS,
    SHARED_IDENTITY_TEXT,
    Listed,
    first_hand,
    listed_besides,
    merged,
    seen_by,
)
from ._reach import OwnReach
from ._source import Sighting, Source
from .attendance import Attended, Checks, member_sources, ranked
from .lan import Lan, LanSource

log = get_logger(__name__)


def new_incarnation() -> int:
    """A number that is another each time a peer starts: milliseconds of this machine's clock.

    Only two incarnations of one peer are ever compared. It is larger each time, unless the clock
    was set back; then the new stream or session, on which the peer proves who it is, counts more.
    """
    return time.time_ns() // 1_000_000


def check_namespace(namespace: str) -> None:
    """Check that a name of a namespace can travel and be shown.

    Raises:
      ConfigurationError: if it cannot; the text has the value and the rule.

    """
    if not 1 <= len(namespace) <= 256 or not namespace.isprintable():
        raise ConfigurationError(
            f"the namespace is {namespace[:300]!r}: it must be 1 to 256 printable characters"
        )


@attrs.frozen(kw_only=True)
class SourceState:
    """State of a source at one instant."""

    name: str
    """Name of the source, such as ``bootstrap ADDRESS``."""

    listeners: int
    """Number of listeners that the source lists."""

    is_working: bool
    """True once the source has listed its members, and again after each trouble."""

    trouble: PunchError | None
    """Why the source does not work; `None` while it does, or before it has tried."""


class Directory:
    """The members of a namespace, and our own membership. Made by `join_namespace`.

    Args:
      node: Our own node.
      sources: The sources, at least one.
      namespace: The namespace.
      roles: Roles that we are announced with, see `Registration.roles`.
      incarnation: Grows each time we start.
      changed: Called after every change of `listeners`, and of `trouble`.
      checks: What the sources ask of registrations; in a closed namespace it knows the membership.

    """

    def __init__(
        self,
        node: Node,
        sources: Sequence[Source],
        *,
        namespace: str,
        roles: Collection[str],
        incarnation: int,
        changed: Callable[[], None],
        checks: Checks | None = None,
    ) -> None:
        self.joined = trio.Event()
        """Set once any source has listed its members."""
        self.refused = trio.Event()
        """Set when waiting will not help: every source has a trouble that a person must end."""
        self.informed = trio.Event()
        """Set once every other source has listed its members or has a trouble: what can be learnt
        of removals at the start was learnt."""
        self._node = node
        self._checks = checks or Checks(node, namespace)
        self._membership = self._checks.membership
        self._announce = Announcement(
            node,
            namespace=namespace,
            roles=roles,
            incarnation=incarnation,
            membership=self._membership,
        )
        self._listed = [Listed(source) for source in sources]
        self._announce.known = lambda: {
            peer_id: member.addresses for peer_id, member in self._members.items()
        }
        self._announce.besides = partial(listed_besides, self._listed)
        self._own_reach = OwnReach()
        self._watchers = [changed]
        self._incarnations = Twins()
        # Members that two processes claim to be, as far as they are listed.
        self._twins: set[PeerId] = set()
        self._members: dict[PeerId, KnownMember] = {}
        self._listeners: dict[PeerId, KnownMember] = {}

    @property
    def members(self) -> Mapping[PeerId, KnownMember]:
        """The peers of the namespace that do more than dial, ourselves left out."""
        return MappingProxyType(self._members)

    @property
    def listeners(self) -> Mapping[PeerId, KnownMember]:
        """The listeners of the namespace, ourselves left out."""
        return MappingProxyType(self._listeners)

    @property
    def workers(self) -> Mapping[PeerId, KnownMember]:
        """The workers of the namespace, which may be listeners too, ourselves left out."""
        return MappingProxyType(with_role(self._members, "worker"))

    @property
    def membership(self) -> Membership | None:
        """Our membership of the namespace; `None` if it is open."""
        return self._membership

    @property
    def own_reach(self) -> Reach | None:
        """How our own listener could be dialled; `None` if nobody has said."""
        return self._own_reach.verdict

    @property
    def source_count(self) -> int:
        """How many sources there are."""
        return len(self._listed)

    @property
    def sources(self) -> tuple[SourceState, ...]:
        """State of each source, in the order in which they were given."""
        return tuple(
            SourceState(
                name=listed.source.name,
                listeners=sum(one.is_listener for one in listed.members.values()),
                is_working=listed.is_working,
                trouble=listed.trouble,
            )
            for listed in self._listed
        )

    @property
    def trouble(self) -> PunchError | None:
        """Why we are not in the namespace; `None` while any source works."""
        if any(listed.is_working and not listed.is_ours for listed in self._listed):
            return None
        # A trouble that a person must end says more than that a bootstrap is out of reach.
        troubled = [
            listed
            for listed in self._listed
            if listed.trouble is not None and not listed.is_besides
        ]
        troubled.sort(key=lambda listed: not listed.is_final)
        if not troubled or (not troubled[0].is_final and self.joined.is_set()):
            # The first machine of a closed namespace is all there is of it.
            troubled = [] if any(listed.is_working for listed in self._listed) else troubled
        return troubled[0].trouble if troubled else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of us, though everything works."""
        own = any(SHARED_IDENTITY in listed.notices for listed in self._listed)
        return (
            *((SHARED_IDENTITY_TEXT,) if own else ()),
            *(
                f"{listed.source.name}: {listed.trouble.message}"
                for listed in self._listed
                if listed.trouble is not None and listed.is_besides
            ),
            *(f"{peer_id}: {SHARED_BY_OTHERS}" for peer_id in sorted(self._twins)),
        )

    async def run(self) -> None:
        """Keep every source running, for ever."""
        async with AsyncExitStack() as stack:
            if (member := self._membership) is not None:
                stack.enter_context(member.watch(self._reconsider))
                stack.enter_context(member.seeing(partial(seen_by, self._listed)))
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(self._follow)
            for listed in self._listed:
                nursery.start_soon(listed.source.run, self._announce, partial(self._found, listed))

    async def _follow(self) -> None:
        """Announce our addresses anew when they change, for ever."""
        while True:
            await self._node.moved.wait()
            self._announce.anew()

    def _reconsider(self) -> None:
        """Forget those who are members no longer, and announce what we have learnt."""
        for listed in self._listed:
            listed.keep(self._checks.is_member)
        self._merge(self._members)
        self._announce.anew()
        self._tell()

    @contextmanager
    def joined_as(self, roles: Collection[str], changed: Callable[[], None]) -> Iterator[None]:
        """Be announced with *roles* too, for as long as the context lasts.

        Args:
          roles: Further roles, such as ``{"dialer"}``.
          changed: Called after every change of `listeners`.

        """
        with self.watched(changed):
            self._announce.add(roles)
            try:
                yield
            finally:
                self._announce.remove(roles)

    @contextmanager
    def watched(self, changed: Callable[[], None]) -> Iterator[None]:
        """Call *changed* after every change, for as long as the context lasts."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    def _found(self, listed: Listed, sighting: Sighting) -> None:
        """Merge what a source says, and tell the watchers."""
        listed.is_besides = sighting.needs_members
        if sighting.trouble is not None:
            listed.is_working = False
            listed.trouble, listed.is_final = sighting.trouble, sighting.is_final
            if all(each.is_final or each.is_idle for each in self._listed if not each.is_ours):
                self.refused.set()
            self._note_informed()
            self._tell()
            return
        listed.trouble, listed.is_final = None, False
        own = self._node.peer_id
        if sighting.notices is not None:
            listed.note(sighting.notices, own)
        # Members meet at several places, and one of them may say what another said before.
        incarnations = self._incarnations if self._membership is None else None
        before = listed.members.keys()
        news = listed.take(sighting, own, self._twins, incarnations)
        listed.is_working = bool(listed.members) or not sighting.needs_members
        listed.hear_reach(sighting.reach, own)
        for reach in sighting.reach:
            if reach.peer_id == own:
                self._own_reach.hear(listed.source.name, reach)
                self._announce.hidden.hear(self._own_reach.verdict)
        # In their order: of many that come at once the pool asks the first and the last in turn.
        told = [each.peer_id for each in sighting.present]
        of_reach = [each.peer_id for each in sighting.reach]
        self._merge(dict.fromkeys((*told, *of_reach, *(before ^ listed.members.keys()))))
        if self._membership is not None and news:
            # A place is dialled whoever named it: only what may be dialled is kept.
            self._membership.remember(
                attrs.evolve(each, addresses=self._members[each.peer_id].addresses) for each in news
            )
        if listed.is_working:
            self.joined.set()
        self._note_informed()
        self._tell()

    def _note_informed(self) -> None:
        others = (each for each in self._listed if not each.is_ours)
        if all(each.is_working or each.is_besides or each.trouble is not None for each in others):
            self.informed.set()

    def first_hand(self) -> dict[PeerId, Join]:
        """The latest joins of members that another meeting point has from themselves."""
        return first_hand(self._listed, self._checks.join_of)

    def _tell(self) -> None:
        for changed in tuple(self._watchers):
            changed()

    def report(self, troubles: Callable[[], tuple[Reach, ...]]) -> None:
        """Have the listeners told which of them we could not dial, as *troubles* says each time."""
        self._announce.troubles = troubles

    def _merge(self, peers: Collection[PeerId]) -> None:
        """Have all say anew what they know of *peers*, of whom one has said something else."""
        # Others than before, and not changed: whoever goes through them may wait meanwhile.
        members = dict(self._members)
        for peer_id in peers:
            member = merged(self._listed, peer_id)
            if member is None:
                members.pop(peer_id, None)
            else:
                members[peer_id] = member
        self._members = members
        self._twins &= members.keys()
        self._listeners = with_role(members, "listener")


def lan_source(node: Node, lan: Lan, checks: Checks, *, namespace: str) -> LanSource:
    """The source that finds members on our LANs, and asks of each what all sources ask."""
    source = partial(
        LanSource, node, lan, namespace=namespace, judge=checks.shown, is_barred=checks.is_barred
    )
    member = checks.membership
    if member is None:
        return source()
    root = member.namespace.key
    # Those that all meet at: whoever hears them hears of everybody.
    order = partial(ranked, key=root, machine_of=member.machine_of)
    return source(root=root, joins=member.takes_newcomers, order=order)


@asynccontextmanager
async def join_namespace(
    node: Node,
    bootstrap: Address | Sequence[Address] = (),
    *,
    sources: Sequence[Source] = (),
    lan: Lan | None = None,
    known: KnownPeers | None = None,
    namespace: str,
    roles: Collection[str],
    incarnation: int,
    changed: Callable[[], None] = lambda: None,
    membership: Membership | None = None,
    checks: Checks | None = None,
) -> AsyncIterator[Directory]:
    """Be a member of *namespace* for as long as the context lasts.

    Args:
      node: Our own node.
      bootstrap: Where the namespace meets: one address, or several that stand in for each other.
      sources: Further sources of its members.
      lan: Find members on the LANs of this machine too, and be found there; by default not.
      known: The identities that the bootstraps had before; by default none, kept in memory only.
      namespace: The namespace.
      roles: Our roles, such as ``{"listener"}``; see `Registration.roles`.
      incarnation: Grows each time we start.
      changed: Called after every change of `Directory.listeners`.
      membership: Our membership, if the namespace is closed: then its members are met at too.
      checks: What the *sources* ask of registrations, where they do; it knows the membership then.

    Raises:
      ConfigurationError: if the namespace has no name that can travel, there are too many
        bootstraps, or there is neither a bootstrap nor another source.

    """
    check_namespace(namespace)
    places = (bootstrap,) if isinstance(bootstrap, Address) else tuple(bootstrap)
    checks = checks or Checks(node, namespace, membership)
    membership = checks.membership
    if membership is not None and namespace != membership.namespace.name:
        raise ConfigurationError(
            f"namespace is {namespace!r}, and the membership is of {membership.namespace}"
        )
    attended = None if membership is None else Attended()
    meeting = bootstrap_sources(
        node,
        places,
        known=known or KnownPeers(None),
        namespace=namespace,
        checks=checks,
        attended=attended,
    )
    everything: tuple[Source, ...] = (*meeting, *sources)
    if lan is not None:
        everything = (*everything, lan_source(node, lan, checks, namespace=namespace))
    if membership is not None and attended is not None:
        members = member_sources(node, membership, checks=checks, attended=attended)
        everything = (*everything, *members)
    if not everything:
        raise ConfigurationError(
            "no bootstrap was given and no other source: nobody could ever be found; "
            "give --bootstrap, or leave it out for the usual one"
        )
    directory = Directory(
        node,
        everything,
        namespace=namespace,
        roles=roles,
        incarnation=incarnation,
        changed=changed,
        checks=checks,
    )
    async with open_background() as nursery:
        nursery.start_soon(directory.run)
        yield directory
