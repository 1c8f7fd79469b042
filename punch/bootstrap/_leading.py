"""Whom a meeting point leads to whom as a relay: those who meet there, within one namespace.

In a closed namespace whose member it is, it relays only if its own grant allows that, which is
judged as any other is. A stranger's bootstrap has no grant, and relays for all who meet there: what
it carries is sealed, and no scope of theirs is needed to carry it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..access import Introduction, Membership
from ..capability import PeerId
from ..network import Node
from ..relay import Relay
from ._member import Member


def relay_at(node: Node, members: Mapping[PeerId, Member], membership: Membership | None) -> Relay:
    """A relay on *node* for *members*, who come and go; see above."""

    def permits(source: PeerId, target: PeerId) -> bool:
        one, other = members.get(source), members.get(target)
        if one is None or other is None or one.namespace is None:
            return False
        if one.namespace != other.namespace:
            return False
        return membership is None or _may_relay(node, membership)

    return Relay(node, permits=permits)


def _may_relay(node: Node, membership: Membership) -> bool:
    introduction = Introduction(
        namespace=membership.namespace.name,
        roles=frozenset({"relay"}),
        grant=membership.chain(),
        root=membership.namespace.key,
    )
    return membership.lock.admit(node.peer_id, introduction, time.time()) is None
