"""The interface of a source: a way of finding the members of a namespace, for the directory.

Checking signatures is left to the source, and merging what several say to the directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import attrs
import trio

from ..capability import PeerId
from ..exceptions import PunchError
from ..wire import Join, Reach, Registration


@attrs.frozen(kw_only=True)
class Sighting:
    """What a source has found: news of members, or why it has none."""

    present: tuple[Registration, ...] = ()
    """Members that are there; the source has checked their signatures."""

    on_link: Mapping[PeerId, tuple[str, ...]] = attrs.field(factory=dict)
    """Of those in `present`, where the source has found them on a link of ours: link-local
    addresses, which they could not have told."""

    relayed: frozenset[PeerId] = frozenset()
    """Those in `present` that the source has from another one."""

    gone: tuple[PeerId, ...] = ()
    """Members that the source no longer lists."""

    is_whole: bool = False
    """True if `present` is all members that the source knows; otherwise it is what changed."""

    is_ordered: bool = False
    """True if the source tells things in the order in which it learnt them, as on one stream."""

    near: frozenset[PeerId] = frozenset()
    """Those in `present` that are on this very machine: their loopback addresses and names mean
    what they mean here, and are dialled. Nobody is for being listed by a source that is."""

    notices: frozenset[str] | None = None
    """What the source has noticed of us, see `Roster.notices`; `None` if it says nothing of it."""

    reach: tuple[Reach, ...] = ()
    """News of how members, or we, could be dialled; nobody's signed word."""

    trouble: PunchError | None = None
    """Why the source does not work now; `None` if it does."""

    is_final: bool = False
    """True if waiting will not end the trouble, because a person must act."""

    needs_members: bool = False
    """True if the source says that we are in the namespace only while it lists somebody: who hears
    nobody on a LAN may be alone there, or deaf."""


class Announce(Protocol):
    """Makes our own signed registration, a newer one each time it is called."""

    def __call__(self, *, as_dialer: bool = False) -> Join:
        """Our registration as of now; with *as_dialer* one with no role but that of a dialer."""
        ...

    def troubles(self) -> tuple[Reach, ...]:
        """The listeners that we could not dial, for who can tell them; a few."""
        ...

    def known(self) -> Mapping[PeerId, tuple[str, ...]]:
        """The members that all sources have found, with their addresses."""
        ...

    def besides(self, source: str) -> Mapping[PeerId, bool]:
        """The members that other sources than *source* list: whether one has it from the member."""
        ...

    async def be_relayed(self, relay: PeerId) -> None:
        """Have the peer *relay* lead others to us whenever we are hidden from them, for ever."""
        ...

    @property
    def roles(self) -> Collection[str]:
        """Our roles, see `Registration.roles`."""
        ...

    @property
    def altered(self) -> trio.Event:
        """Set when our roles or addresses change: a source then announces us anew, at once."""
        ...


Found = Callable[[Sighting], None]
"""Is called with what a source has found. Never waits and never raises."""


class Source(Protocol):
    """A way of finding the members of a namespace, and of announcing ourselves to them."""

    @property
    def name(self) -> str:
        """Name of the source, for people, such as ``bootstrap ADDRESS``."""
        ...

    async def run(self, announce: Announce, found: Found) -> None:
        """Announce us and report what is found, until cancelled.

        A source that fails says so with a `Sighting` and tries again by itself; one that returns
        has nothing more to say, and what it said last stays.
        """
        ...


class Nowhere:
    """The source of a peer that looks for no other peer, and is announced to none."""

    name = "nowhere"

    async def run(self, announce: Announce, found: Found) -> None:
        """Report once that there are no members."""
        found(Sighting(is_whole=True))
