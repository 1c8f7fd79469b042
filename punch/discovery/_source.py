"""What a source of the directory is: one way of finding out who is in the namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from ..capability import PeerId
from ..exceptions import PunchError
from ..wire import Join, Registration


@attrs.frozen(kw_only=True)
class Sighting:
    """What a source has found out: news of members, or why there is none."""

    present: tuple[Registration, ...] = ()
    """Members that are there; the source has checked their signatures."""

    gone: tuple[PeerId, ...] = ()
    """Members that this source lists no longer."""

    is_whole: bool = False
    """True if `present` is everybody that this source knows; otherwise it is what changed."""

    trouble: PunchError | None = None
    """Why the source does not work at present; `None` if it does."""

    is_final: bool = False
    """True if waiting will not end the trouble: a person must act."""


class Announce(Protocol):
    """Makes our own signed registration, anew each time it is called."""

    def __call__(self, *, as_dialer: bool = False) -> Join:
        """Our registration as of now; with *as_dialer* one that says only that we dial."""
        ...

    @property
    def altered(self) -> trio.Event:
        """Set once our roles are others than now: a source then announces us anew, at once."""
        ...


Found = Callable[[Sighting], None]
"""Takes what a source has found out. Never waits."""


class Source(Protocol):
    """One way of finding out who is in the namespace, and of telling others that we are."""

    @property
    def name(self) -> str:
        """What people are told that a member was found by, such as ``bootstrap ADDRESS``."""
        ...

    async def run(self, announce: Announce, found: Found) -> None:
        """Tell others of us and report what is found, until cancelled.

        A source that fails says so with a `Sighting` and tries again by itself; one that returns
        has nothing more to say, and what it said last stays.
        """
        ...


class Nowhere:
    """The source of a peer that looks for no other peer, and that no other peer is told of."""

    name = "nowhere"

    async def run(self, announce: Announce, found: Found) -> None:
        """Find that there is nobody."""
        found(Sighting(is_whole=True))
