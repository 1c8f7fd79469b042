"""Policies that everybody has, to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs

from ..peers import PeerRecord
from ._request import RouteRequest


@attrs.frozen
class LeastRequests:
    """The fewest requests per slot, queued ones and our own unreported ones included."""

    term_names: tuple[str, ...] = ("requests",)
    unit: str = "requests per slot"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """``PeerRecord.present / slots``."""
        return [(peer.present / peer.capability.load.slots,) for peer in peers]


@attrs.frozen
class RoundRobin:
    """Each peer in turn, by peer id."""

    term_names: tuple[str, ...] = ("turns",)
    unit: str = "turns to wait"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """How many turns the peer's own turn is away from that of this request."""
        if not peers:
            return []
        turn = {peer_id: i for i, peer_id in enumerate(sorted(p.peer_id for p in peers))}
        count = len(peers)
        return [(float((turn[peer.peer_id] - request.serial) % count),) for peer in peers]


@attrs.frozen
class Chance:
    """Anybody."""

    term_names: tuple[str, ...] = ("lot",)
    unit: str = "lot"
    lowest_is_best: bool = True

    def terms(
        self, request: RouteRequest, peers: Sequence[PeerRecord], rng: Random
    ) -> Sequence[tuple[float, ...]]:
        """A number drawn for each peer."""
        return [(rng.random(),) for _ in peers]
