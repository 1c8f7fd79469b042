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
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache, partial
from types import MappingProxyType

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import ConfigurationError, PunchError
from ..network import Address, Node, parse_address, unfit
from ..peers import Twins
from ..wire import (
    SHARED_IDENTITY,
    Reach,
    Registration,
    short_word,
)
from ._announcement import Announcement
from ._bootstraps import bootstrap_sources
from ._known_peers import KnownPeers
from ._reach import OwnReach, combined
from ._source import Sighting, Source
from .lan import Lan, LanSource

log = get_logger(__name__)

# Members that one source may list: more than any bootstrap keeps for one namespace. What a source
# lists beyond that is ignored, so that a hostile one fills no memory.
MAX_LISTED = 4096


_SHARED_BY_OTHERS = (
    "two processes have this identity: one has a copy of the other's key file, and requests go now "
    "to one and now to the other; start one of them with another --identity"
)

SHARED_IDENTITY_TEXT = (
    "another process has the same identity: one has a copy of the other's key file, and dialers "
    "meet now one and now the other; start one of them with another --identity"
)


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
class KnownMember:
    """A peer of our namespace that does more than dial, by its own signed word."""

    peer_id: PeerId
    """Identity of the member."""

    addresses: tuple[str, ...]
    """Multiaddresses where the member can be dialled."""

    incarnation: int
    """Grows each time the member starts."""

    roles: frozenset[str] = frozenset({"listener"})
    """Roles of the member; some may be unknown here."""

    unfit: tuple[str, ...] = ()
    """Further addresses that it names and that are not dialled, each with the reason."""

    sources: frozenset[str] = attrs.field(default=frozenset(), eq=False)
    """Names of the sources that list the member. Two values that differ in nothing else are equal:
    a listener is not dialled anew because one more source has found it."""

    reach: Reach | None = attrs.field(default=None, eq=False)
    """How bootstraps could dial the member; `None` if none has said."""

    sequence: int = attrs.field(default=0, eq=False)
    """Grows each time the member's registration is told anew: when it moved, or came back."""


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


@attrs.define(eq=False)
class _Listed:
    """A source with the members that it lists."""

    source: Source
    members: dict[PeerId, Registration] = attrs.field(factory=dict)
    is_near: bool = False
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


class Directory:
    """The members of a namespace, and our own membership. Made by `join_namespace`.

    Args:
      node: Our own node.
      sources: The sources, at least one.
      namespace: The namespace.
      roles: Roles that we are announced with, see `Registration.roles`.
      incarnation: Grows each time we start.
      changed: Called after every change of `listeners`, and of `trouble`.

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
    ) -> None:
        self.joined = trio.Event()
        """Set once any source has listed its members."""
        self.refused = trio.Event()
        """Set when waiting will not help: every source has a trouble that a person must end."""
        self._node = node
        self._announce = Announcement(
            node, namespace=namespace, roles=roles, incarnation=incarnation
        )
        self._announce.known = lambda: {
            peer_id: member.addresses for peer_id, member in self._members.items()
        }
        self._own_reach = OwnReach()
        self._watchers = [changed]
        self._listed = [_Listed(source) for source in sources]
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
    def own_reach(self) -> Reach | None:
        """How our own listener could be dialled; `None` if nobody has said."""
        return self._own_reach.verdict

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
        if any(listed.is_working for listed in self._listed):
            return None
        # A trouble that a person must end says more than that a bootstrap is out of reach.
        troubled = [
            listed
            for listed in self._listed
            if listed.trouble is not None and not listed.is_besides
        ]
        troubled.sort(key=lambda listed: not listed.is_final)
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
            *(f"{peer_id}: {_SHARED_BY_OTHERS}" for peer_id in sorted(self._twins)),
        )

    async def run(self) -> None:
        """Keep every source running, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            for listed in self._listed:
                nursery.start_soon(listed.source.run, self._announce, partial(self._found, listed))

    async def _follow(self) -> None:
        """Announce our addresses anew when they change, for ever."""
        while True:
            await self._node.moved.wait()
            self._announce.anew()

    @contextmanager
    def joined_as(self, roles: Collection[str], changed: Callable[[], None]) -> Iterator[None]:
        """Be announced with *roles* too, for as long as the context lasts.

        Args:
          roles: Further roles, such as ``{"dialer"}``.
          changed: Called after every change of `listeners`.

        """
        self._watchers.append(changed)
        self._announce.add(roles)
        try:
            yield
        finally:
            self._watchers.remove(changed)
            self._announce.remove(roles)

    def _found(self, listed: _Listed, sighting: Sighting) -> None:
        """Merge what a source says, and tell the watchers."""
        if sighting.trouble is not None:
            listed.is_working, listed.is_besides = False, sighting.needs_members
            listed.trouble, listed.is_final = sighting.trouble, sighting.is_final
            if all(each.is_final or each.is_idle for each in self._listed):
                self.refused.set()
            self._tell()
            return
        listed.trouble, listed.is_final = None, False
        listed.is_besides = sighting.needs_members
        if sighting.notices is not None:
            self._note(listed, sighting.notices)
        self._list(listed, sighting)
        listed.is_working = bool(listed.members) or not sighting.needs_members
        self._hear_reach(listed, sighting.reach)
        self._merge()
        if listed.is_working:
            self.joined.set()
        self._tell()

    def _tell(self) -> None:
        for changed in tuple(self._watchers):
            changed()

    def _note(self, listed: _Listed, notices: frozenset[str]) -> None:
        if SHARED_IDENTITY in notices and SHARED_IDENTITY not in listed.notices:
            log.warning(SHARED_IDENTITY_TEXT, peer=self._node.peer_id, source=listed.source.name)
        # Once it was seen it stays: the two take turns, and each is alone for a while.
        listed.notices |= notices

    def _list(self, listed: _Listed, sighting: Sighting) -> None:
        listed.is_near = sighting.is_near
        before = listed.members
        after = {} if sighting.is_whole else dict(before)
        for peer_id in sighting.gone:
            after.pop(peer_id, None)
        for registration in sighting.present:
            peer_id = registration.peer_id
            if not registration.is_shown or peer_id == self._node.peer_id:
                continue
            known = before.get(peer_id)
            # Rule 2 within one source: a roster that came late takes nothing back. Where none comes
            # late, a lower incarnation is that of a peer whose clock was set back meanwhile.
            is_other = known is not None and known.incarnation != registration.incarnation
            if (
                known is not None
                and _stamp(known) > _stamp(registration)
                and not (is_other and sighting.is_ordered)
            ):
                registration = known
            elif self._incarnations.came(peer_id, registration.incarnation, 0.0):
                # However long ago the other was there: nobody starts anew as an earlier process.
                if peer_id not in self._twins:
                    log.warning("a copied identity", peer=peer_id, why=_SHARED_BY_OTHERS)
                self._twins.add(peer_id)
            if peer_id in after or len(after) < MAX_LISTED:
                after[peer_id] = registration
            else:
                log.warning("a source lists too many members", source=listed.source.name)
                break
        listed.members = after

    def _hear_reach(self, listed: _Listed, news: Sequence[Reach]) -> None:
        for reach in news:
            if reach.peer_id == self._node.peer_id:
                self._own_reach.hear(listed.source.name, reach)
            elif reach.by == "bootstrap":
                listed.reach[reach.peer_id] = reach
        listed.reach = {
            peer_id: reach for peer_id, reach in listed.reach.items() if peer_id in listed.members
        }

    def report(self, troubles: Callable[[], tuple[Reach, ...]]) -> None:
        """Have the listeners told which of them we could not dial, as *troubles* says each time."""
        self._announce.troubles = troubles

    def _merge(self) -> None:
        # Made anew from all sources each time, so that no order of reports leaves a trace.
        newest: dict[PeerId, Registration] = {}
        named: dict[PeerId, set[str]] = {}
        near: set[PeerId] = set()
        for listed in self._listed:
            for peer_id, registration in listed.members.items():
                named.setdefault(peer_id, set()).add(listed.source.name)
                if listed.is_near:
                    near.add(peer_id)
                known = newest.get(peer_id)
                if known is None or _stamp(known) < _stamp(registration):
                    newest[peer_id] = registration
        self._members = {
            peer_id: _member(
                registration,
                named[peer_id],
                is_near=peer_id in near,
                reach=combined(listed.reach.get(peer_id) for listed in self._listed),
            )
            for peer_id, registration in newest.items()
        }
        self._twins &= self._members.keys()
        self._listeners = {
            peer_id: member
            for peer_id, member in self._members.items()
            if "listener" in member.roles
        }


def _member(
    registration: Registration, sources: set[str], *, is_near: bool, reach: Reach | None
) -> KnownMember:
    """What the directory says of a member, with those of its addresses that may be dialled."""
    addresses, refused = _sorted_out(registration.addresses, is_near)
    return KnownMember(
        peer_id=registration.peer_id,
        addresses=addresses,
        incarnation=registration.incarnation,
        sequence=registration.sequence,
        reach=reach,
        roles=registration.roles,
        unfit=refused,
        sources=frozenset(sources),
    )


@lru_cache(maxsize=MAX_LISTED)
def _sorted_out(
    addresses: tuple[str, ...], is_near: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The addresses to dial, each once, and the others with their reasons; cached."""
    fit: dict[Address | str, str] = {}
    refused: dict[str, None] = {}
    for text in addresses:
        try:
            address = parse_address(text)
        except ConfigurationError:
            # The node says what it does not understand, and dials nothing.
            fit.setdefault(text, text)
            continue
        why = None if is_near else unfit(address)
        if why is None:
            fit.setdefault(attrs.evolve(address, peer_id=None), text)
        else:
            refused[f"{short_word(text)}: {why}"] = None
    return tuple(fit.values()), tuple(refused)


def _stamp(registration: Registration) -> tuple[int, int]:
    """A key that orders the registrations of one peer by age."""
    return registration.incarnation, registration.sequence


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

    Raises:
      ConfigurationError: if the namespace has no name that can travel, there are too many
        bootstraps, or there is neither a bootstrap nor another source.

    """
    check_namespace(namespace)
    places = (bootstrap,) if isinstance(bootstrap, Address) else tuple(bootstrap)
    meeting = bootstrap_sources(node, places, known=known or KnownPeers(None), namespace=namespace)
    nearby = () if lan is None else (LanSource(node, lan, namespace=namespace),)
    everything: tuple[Source, ...] = (*meeting, *sources, *nearby)
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
    )
    async with open_background() as nursery:
        nursery.start_soon(directory.run)
        yield directory
