"""Machines that nobody runs until a request is worth their start: splits that could be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from ..capability import PeerId
from ..routing import StartableOffer
from ._machine import World, offer_of
from ._pool import Pool, PoolPeer


class ColdMachines:
    """Those of a pool that have to be started, for all its routers.

    Args:
      pool: The pool.
      world: Where it is known which of them are up.
      listen: Makes a machine a peer; the number says how often it was before.

    """

    def __init__(
        self, pool: Pool, world: World, listen: Callable[[PoolPeer, int], Awaitable[None]]
    ) -> None:
        self._peers = {peer.name: peer for peer in pool.peers if peer.start_seconds}
        self._world = world
        self._listen = listen
        self._up: dict[str, trio.Event] = {}
        world.cold = {PeerId(peer.name): (peer, None) for peer in self._peers.values()}

    @property
    def offers(self) -> Sequence[StartableOffer]:
        """What a router is told of them."""
        return [
            StartableOffer(
                id=f"start {peer.name}",
                peer_id=PeerId(peer.name),
                offer=offer_of(peer),
                seconds=peer.start_seconds,
                backend="simulated",
                simulated=True,
                slots=peer.slots,
                queue_limit=1 << 16,
                workers=peer.workers,
                plan=f"{peer.workers} workers",
            )
            for peer in self._peers.values()
        ]

    async def start(self, offer: StartableOffer) -> None:
        """Start a machine; routers that do not know of each other start it once all the same."""
        peer = self._peers[offer.peer_id]
        up = self._up.get(peer.name)
        if up is not None:
            await up.wait()
            return
        up = self._up[peer.name] = trio.Event()
        self._world.cold[PeerId(peer.name)] = (peer, trio.current_time() + peer.start_seconds)
        await trio.sleep(peer.start_seconds)
        await self._listen(peer, 0)
        del self._world.cold[PeerId(peer.name)]
        up.set()
