"""Members of our own closed namespace that are registered at other meeting points, as we tell them.

Who they are is known to the directory of the same process; whom to tell is decided in `_server`.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..capability import PeerId
from ..wire import Join


class Relayed:
    """Their joins, as they came and as they are told."""

    def __init__(self) -> None:
        self._heard: Mapping[PeerId, Join] = {}
        self._told: dict[PeerId, Join] = {}

    def take(self, joins: Mapping[PeerId, Join]) -> list[PeerId]:
        """Know *joins* and no others from now on; the peers of which that is news."""
        before, self._heard = self._heard, joins
        news = [peer for peer in before.keys() | joins if before.get(peer) != joins.get(peer)]
        for peer_id in news:
            join = joins.get(peer_id)
            if join is None:
                del self._told[peer_id]
            else:
                self._told[peer_id] = attrs.evolve(join, relayed=True)
        return news

    def get(self, peer_id: PeerId) -> Join | None:
        """What is told of a peer; `None` if it is registered nowhere else."""
        return self._told.get(peer_id)

    def beside(self, told: set[PeerId]) -> tuple[Join, ...]:
        """All but those that are *told* of already."""
        return tuple(join for peer_id, join in self._told.items() if peer_id not in told)
