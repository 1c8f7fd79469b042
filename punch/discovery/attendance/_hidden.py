"""Decides when our own node is to be reached through relays, and has it be.

1. It is as long as somebody says that it could not dial us: where a relay is not needed, none has
   to carry anything.
2. The relays are the meeting points that we are at: dialers meet there too, and are connected.
3. A relay that refuses is asked again after a while that grows.
"""

from __future__ import annotations

import trio

from ..._logs import get_logger
from ...capability import PeerId
from ...exceptions import PeerUnreachable
from ...network import Node, Relayable
from ...wire import Reach

log = get_logger(__name__)

MIN_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0


class Hidden:
    """Whether our node is hidden from others.

    Args:
      node: Our own node.

    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._is_hidden = False
        self._changed = trio.Event()

    def hear(self, reach: Reach | None) -> None:
        """Take what is known of how our node could be dialled."""
        is_hidden = reach is not None and not reach.ok
        if is_hidden != self._is_hidden:
            self._is_hidden = is_hidden
            changed, self._changed = self._changed, trio.Event()
            changed.set()

    async def be_relayed(self, relay: PeerId) -> None:
        """Have *relay* lead others to our node whenever it is hidden, for ever."""
        if relay == self._node.peer_id or not isinstance(self._node, Relayable):
            return
        while True:
            await self._until(True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hold, self._node, relay)
                await self._until(False)
                nursery.cancel_scope.cancel()

    async def _until(self, is_hidden: bool) -> None:
        while self._is_hidden != is_hidden:
            await self._changed.wait()

    async def _hold(self, node: Relayable, relay: PeerId) -> None:
        delay = MIN_RETRY_SECONDS
        while True:
            began = trio.current_time()
            try:
                await node.be_relayed(relay)
            except PeerUnreachable as error:
                log.info("no relay there", relay=relay, why=error.message)
            if trio.current_time() - began > MAX_RETRY_SECONDS:
                delay = MIN_RETRY_SECONDS
            await trio.sleep(delay)
            delay = min(2 * delay, MAX_RETRY_SECONDS)
