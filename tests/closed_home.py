"""A closed namespace on a network in memory, with listeners and routers that are its members."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from made_up_members import DAY, FakeMembership, MadeUpMember, MadeUpNamespace

from punch import Router, open_router
from punch.admission import NO_CAPS, Caps
from punch.backends import MockBackend, MockScript
from punch.capability import PeerId
from punch.discovery.lan import Lan
from punch.events import Bus
from punch.listener import Listener, OneOrMore, open_listener
from punch.routing import Policy
from punch.testing import Air, MemoryNetwork


class Home:
    """A closed namespace called ``home``, and what it takes to be in it."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.closed = MadeUpNamespace("home")
        self.desk = self.closed.admin("desk-key")
        self.members: dict[str, MadeUpMember] = {}
        self.memberships: dict[str, FakeMembership] = {}
        self._scopes: dict[str, trio.CancelScope] = {}

    def member(
        self,
        name: str,
        *,
        knows: Sequence[str] = (),
        owner: str | None = None,
        called: str = "",
        on: str | None = None,
    ) -> FakeMembership:
        """The membership of the node of this name, which knows where others are.

        It is a machine, which people call *called*, or a process *on* one.
        """
        if on is None:
            self.members[name] = self.closed.machine(
                name,
                by=self.desk,
                owner=None if owner is None else PeerId(owner),
                called=called,
            )
        else:
            # A process grant lasts a day, by the clock that a door looks at.
            ends = int(time.time()) + DAY // 2
            self.members[name] = self.closed.process(name, on=self.members[on], ends=ends)
        membership = self.memberships[name] = self.members[name].membership()
        nodes = [self.network._nodes[PeerId(each)] for each in knows]
        membership.extra_places = tuple(f"{node.addresses[0]}/p2p/{node.peer_id}" for node in nodes)
        return membership

    def lan(self, name: str, air: Air | None) -> Lan | None:
        """The LAN of the node of this name, if it is on one."""
        host = self.network._nodes[PeerId(name)].addresses[0].split("/")[2]
        return None if air is None else air.lan(f"{host}/8")

    @asynccontextmanager
    async def listener(
        self,
        name: str,
        *,
        knows: Sequence[str] = (),
        bootstrap: str | None = None,
        membership: FakeMembership | None = None,
        backend: OneOrMore | None = None,
        strangers: Caps = NO_CAPS,
        limits: Mapping[str, Caps] | None = None,
        wall: Callable[[], float] = time.time,
        events: Bus | None = None,
        air: Air | None = None,
    ) -> AsyncIterator[Listener]:
        """A listener of the namespace."""
        async with open_listener(
            backend or MockBackend(MockScript()),
            node=self.network.node(name),
            bootstrap=bootstrap,
            namespace="home",
            calibrate=False,
            membership=membership or self.member(name, knows=knows),
            strangers=strangers,
            limits=limits,
            wall=wall,
            events=events,
            lan=self.lan(name, air),
        ) as listener:
            yield listener

    async def start(self, nursery: trio.Nursery, name: str, **how: Any) -> None:
        """Run a listener in *nursery*, until `stop`."""

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope() as scope:
                self._scopes[name] = scope
                async with self.listener(name, **how):
                    task_status.started()
                    await trio.sleep_forever()

        await nursery.start(run)

    def stop(self, name: str) -> None:
        """End a listener for good, without a word."""
        self.network.take_down(PeerId(name))
        self._scopes.pop(name).cancel()

    @asynccontextmanager
    async def router(
        self,
        name: str,
        *,
        knows: Sequence[str] = (),
        bootstrap: str | None = None,
        membership: FakeMembership | None = None,
        policy: Policy | str = "completion-time",
        events: Bus | None = None,
        air: Air | None = None,
    ) -> AsyncIterator[Router]:
        """A router of the namespace."""
        async with open_router(
            node=self.network.node(name),
            bootstrap=bootstrap,
            namespace="home",
            membership=membership or self.member(name, knows=knows),
            policy=policy,
            events=events,
            lan=self.lan(name, air),
        ) as router:
            yield router

    @asynccontextmanager
    async def open_listener(self, name: str, *, bootstrap: str) -> AsyncIterator[Listener]:
        """A listener of the open namespace of the same name."""
        async with open_listener(
            MockBackend(MockScript()),
            node=self.network.node(name),
            bootstrap=bootstrap,
            namespace="home",
            calibrate=False,
        ) as listener:
            yield listener

    @asynccontextmanager
    async def open_router(self, name: str, *, bootstrap: str) -> AsyncIterator[Router]:
        """A router of the open namespace of the same name."""
        async with open_router(
            node=self.network.node(name), bootstrap=bootstrap, namespace="home"
        ) as router:
            yield router
