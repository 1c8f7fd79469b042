"""Puts the members of a closed namespace in an order that all of them agree on.

All members meet at the first few, so that a newcomer that reaches any of them hears of everybody,
and a thousand members do not make a million streams. Each machine comes once before any comes
twice: a machine has as many keys as it likes, and finds some that go before all others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache

from ...capability import PeerId

# Peers whose ranks are remembered: they are compared whenever somebody comes or goes.
MAX_RANKED = 1024


@lru_cache(maxsize=MAX_RANKED)
def rank_of(peer_id: PeerId, key: bytes) -> bytes:
    """What *peer_id* is ordered by in the namespace whose root has the public key *key*."""
    return hashlib.sha256(key + peer_id.encode()).digest()


def ranked(
    peers: Iterable[PeerId], *, key: bytes, machine_of: Callable[[PeerId], PeerId | None]
) -> list[PeerId]:
    """Sort *peers*: the first of each machine by rank, then all others by rank.

    Args:
      peers: Programs of members.
      key: The public key of the namespace's root.
      machine_of: Names the machine of a peer; `None` while that is not known.

    """
    by_rank = sorted(peers, key=lambda each: rank_of(each, key))
    firsts: dict[PeerId, PeerId] = {}
    for peer_id in by_rank:
        firsts.setdefault(machine_of(peer_id) or peer_id, peer_id)
    own = set(firsts.values())
    return [*firsts.values(), *(each for each in by_rank if each not in own)]
