"""`open_swarm()`: a bootstrap, and real listeners and dialers on a `MemoryNetwork`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import trio

from .._background import open_background
from ..admission import NO_CAPS, Caps
from ..bootstrap import open_bootstrap
from ..capability import PeerId
from ..dialer import Hedge, Router, Start, Startables, open_router
from ..events import Bus
from ..listener import Listener, OneOrMore, open_listener
from ..machine import Machine
from ..network import Address, Node, parse_address
from ..routing import Policy
from ._memory import MemoryNetwork
from ._rogue import Rogue

NAMESPACE = "testing"


class Swarm:
    """Real listeners and routers on a network without sockets. Made by `open_swarm`."""

    def __init__(self, nursery: trio.Nursery, network: MemoryNetwork, bootstrap: Address) -> None:
        self.network = network
        self.bootstrap = bootstrap
        self.listeners: dict[str, Listener] = {}
        self._nursery = nursery
        self._scopes: dict[str, trio.CancelScope] = {}
        self._incarnation = 0

    async def listener(
        self,
        name: str,
        backends: OneOrMore = (),
        *,
        queue_limit: int = 16,
        strict: bool = False,
        machine: Machine | None = None,
        report_delay: float = 0.05,
        rogue: Rogue | None = None,
        strangers: Caps = NO_CAPS,
    ) -> Listener:
        """Start a listener with a lane for each of *backends*; it is registered on return.

        A *rogue* decides how it behaves at its sessions.
        """
        self._incarnation += 1
        listener: Listener = await self._nursery.start(
            self._listen,
            name,
            backends,
            queue_limit,
            strict,
            machine,
            report_delay,
            rogue,
            strangers,
            self._incarnation,
        )
        return listener

    async def _listen(
        self,
        name: str,
        backends: OneOrMore,
        queue_limit: int,
        strict: bool,
        machine: Machine | None,
        report_delay: float,
        rogue: Rogue | None,
        strangers: Caps,
        incarnation: int,
        task_status: trio.TaskStatus[Listener],
    ) -> None:
        with trio.CancelScope() as scope:
            self._scopes[name] = scope
            node: Node = self.network.node(name)
            async with open_listener(
                backends,
                node=node if rogue is None else rogue.node(node),
                bootstrap=self.bootstrap,
                namespace=NAMESPACE,
                incarnation=incarnation,
                queue_limit=queue_limit,
                strict=strict,
                # On virtual time, calibration would only measure the script.
                calibrate=False,
                machine=machine,
                report_delay=report_delay,
                strangers=strangers,
            ) as listener:
                await listener.wait_until_joined()
                self.listeners[name] = listener
                task_status.started(listener)
                await trio.sleep_forever()

    def kill(self, name: str) -> None:
        """End a listener from one moment to the next, without a goodbye."""
        self.network.take_down(PeerId(name))
        self._scopes.pop(name).cancel()
        del self.listeners[name]

    @asynccontextmanager
    async def router(
        self,
        name: str = "dialer",
        *,
        peers: int | None = None,
        policy: Policy | str = "completion-time",
        strict: bool = False,
        seed: int = 0,
        hedge: Hedge | None = None,
        events: Bus | None = None,
        bootstrap: Sequence[str | Address] = (),
        startable: Startables = (),
        start: Start | None = None,
    ) -> AsyncIterator[Router]:
        """A router that knows *peers* listeners (by default all there are).

        It meets them at *bootstrap*, by default the swarm's own; *startable* and *start* are those
        of `open_router`.
        """
        enough = len(self.listeners) if peers is None else peers
        self._incarnation += 1
        async with open_router(
            node=self.network.node(name),
            bootstrap=bootstrap or self.bootstrap,
            namespace=NAMESPACE,
            incarnation=self._incarnation,
            policy=policy,
            strict=strict,
            rng=Random(seed),
            hedge=hedge,
            events=events,
            startable=startable,
            start=start,
        ) as router:
            await router.wait_for_peers(lambda found: len(found) >= enough)
            yield router


@asynccontextmanager
async def open_swarm(*, delay: float = 0.0) -> AsyncIterator[Swarm]:
    """A network with a bootstrap and no other peer on it.

    Args:
      delay: Seconds that bytes take from one peer to another.

    """
    async with open_background() as nursery:
        network = MemoryNetwork(nursery, delay=delay)
        node = network.node("bootstrap")
        async with open_bootstrap(node):
            yield Swarm(nursery, network, parse_address(node.addresses[0]))
            nursery.cancel_scope.cancel()
