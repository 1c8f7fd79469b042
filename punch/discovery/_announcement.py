"""Our own registration as it is now: our roles, which come and go, and our addresses, which change.

Sources send it; see `_source`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

import attrs
import trio

from ..access import Membership
from ..capability import PeerId
from ..network import Node, announced
from ..wire import (
    MAX_ADDRESSES,
    MINOR,
    Join,
    Reach,
    Registration,
    encode_registration,
)
from ._meeting import LIFETIME_SECONDS
from .attendance import Hidden


class Announcement:
    """Our own registration, as it is now: an `Announce`."""

    def __init__(
        self,
        node: Node,
        *,
        namespace: str,
        roles: Collection[str],
        incarnation: int,
        membership: Membership | None = None,
    ) -> None:
        self._node = node
        self._membership = membership
        self._namespace = namespace
        self._incarnation = incarnation
        self._sequence = 0
        # Users of each role in this process: two routers are one dialer, until both have ended.
        self._roles = Counter(roles)
        self.hidden = Hidden(node)
        self.altered = trio.Event()
        self.troubles: Callable[[], tuple[Reach, ...]] = tuple
        self.besides: Callable[[str], Mapping[PeerId, bool]] = lambda source: {}
        self.known: Callable[[], Mapping[PeerId, tuple[str, ...]]] = dict

    def __call__(self, *, as_dialer: bool = False) -> Join:
        roles = frozenset({"dialer"}) if as_dialer else frozenset(self._roles)
        registration = Registration(
            peer_id=self._node.peer_id,
            namespace=self._namespace,
            roles=roles,
            # A dialer is never dialled, so it need not tell where it is.
            addresses=() if roles <= {"dialer"} else announced(self._node.addresses, MAX_ADDRESSES),
            incarnation=self._incarnation,
            sequence=self._sequence,
            lifetime=LIFETIME_SECONDS,
        )
        self._sequence += 1
        member = self._membership
        join = Join(
            registration=encode_registration(registration),
            signature=b"",
            minor=MINOR,
            grant=None if member is None else member.chain(),
            root=None if member is None else member.namespace.key,
        )
        return attrs.evolve(join, signature=self._node.sign(join.signed))

    async def be_relayed(self, relay: PeerId) -> None:
        await self.hidden.be_relayed(relay)

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(self._roles)

    def add(self, roles: Collection[str]) -> None:
        self._change(self._roles + Counter(roles))

    def remove(self, roles: Collection[str]) -> None:
        self._change(self._roles - Counter(roles))

    def _change(self, roles: Counter[str]) -> None:
        before, self._roles = self._roles, roles
        if before.keys() != roles.keys():
            self.anew()

    def anew(self) -> None:
        """Have every source announce us again, at once."""
        altered, self.altered = self.altered, trio.Event()
        altered.set()
