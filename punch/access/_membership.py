"""What a program knows of its own membership of a closed namespace, and what it learns for it.

A door needs the lock, a greeting needs the chain, a join needs addresses where members were seen.
Who keeps them on disk and renews them is the business of `punch.membership`; rooms that need one
are given this, or `None` in an open namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from ..capability import PeerId
from ..wire import Registration
from ._lock import Lock
from ._namespace import Namespace


class Membership(Protocol):
    """One program's membership of one closed namespace."""

    @property
    def namespace(self) -> Namespace:
        """The namespace."""
        ...

    @property
    def lock(self) -> Lock:
        """Judges all others, and knows every removal that this machine has heard of."""
        ...

    @property
    def takes_newcomers(self) -> bool:
        """Whether a machine that is no member may ask this one to be let in."""
        ...

    def called(self, machine: PeerId) -> str:
        """What people call a machine on this one; empty if that is not known here."""
        ...

    @property
    def identity(self) -> str | None:
        """Name of the file with the key that the chain is for; `None` if there is no file."""
        ...

    def kept_up(self, node: Any, *, serves: bool) -> AbstractAsyncContextManager[None]:
        """Keep the membership up by means of a node of this process, while the context lasts.

        The grant is renewed, and members are looked for where nobody is heard of.

        Args:
          node: The `punch.network.Node`, whose key is that of the chain.
          serves: Whether others dial the node: newcomers with an invite are let in there, if this
            machine may let anybody in.

        """
        ...

    def chain(self) -> bytes:
        """The chain of this process's key, encoded; it is another one each day."""
        ...

    def add_revocations(self, revocations: Iterable[bytes]) -> None:
        """Learn of removals: what is news goes into the lock, to disk, and to all watchers."""
        ...

    def watch(self, changed: Callable[[], None]) -> AbstractContextManager[None]:
        """Call *changed* whenever removals or the own chain have changed, until left.

        It is called in the trio thread, must return at once and must not raise.
        """
        ...

    def seeing(self, who: Callable[[], Iterable[PeerId]]) -> AbstractContextManager[None]:
        """Know from *who* which members are there now, until left; it is called now and then.

        Each that it names was judged by the lock before.
        """
        ...

    def remember(self, registrations: Iterable[Registration]) -> None:
        """Keep where members are, for the next start; the lock has admitted each of them."""
        ...

    def places(self) -> tuple[str, ...]:
        """Where members were seen, a bounded number, those that were seen last first.

        Multiaddresses that end in ``/p2p/PEER_ID``.
        """
        ...

    def machine_of(self, peer_id: PeerId) -> PeerId | None:
        """The machine of a peer whose place is kept; `None` if it has not shown a grant here."""
        ...
