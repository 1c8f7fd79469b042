"""Machines of one closed namespace, each with its files, on a network in memory.

    house = Household(network, tmp_path)
    attic = house.first("attic")
    laptop = await house.join("laptop", by=attic, mine=True)
    house.pass_days(30)

The clock that ends of grants are judged by is `house.now()`, the same for all.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs

from punch.access import Member, Refusal
from punch.libp2p import load_key
from punch.membership import DiskMembership, Door, Home, create_home, join_with, make_invite
from punch.membership._folder import new_folder
from punch.membership._home import MACHINE_KEY
from punch.membership._joining import keep_joined
from punch.membership._messages import PROTOCOL
from punch.membership._tries import Tries
from punch.network import parse_address
from punch.testing import MemoryNetwork, MemoryNode

DAY = 86_400


@attrs.define(eq=False)
class Machine:
    """A machine with one program that is in the namespace."""

    house: Household
    home: Home
    membership: DiskMembership
    node: MemoryNode

    @property
    def at(self) -> str:
        """Where the program is."""
        return self.node.addresses[0]

    def restart(self) -> None:
        """Open the membership anew, as a program that ends and starts again does."""
        self.membership.flush()
        self.membership = DiskMembership(self.home, self.membership.identity, now=self.house.now)

    def knows(self, *others: Machine) -> None:
        """Remember where others are."""
        for other in others:
            self.membership.found(other.node.peer_id, other.at)

    def judges(self, other: Machine) -> str:
        """The rule that the other's program breaks here; nothing if it is a member."""
        found = self.membership.lock.judge(
            other.membership.process, other.membership.chain(), self.house.now()
        )
        return found.rule if isinstance(found, Refusal) else ""

    @property
    def member(self) -> Member | Refusal:
        """What its own lock makes of its program."""
        return self.membership.lock.judge(
            self.membership.process, self.membership.chain(), self.house.now()
        )


class Household:
    """Machines, and a clock."""

    def __init__(self, network: MemoryNetwork, path: Path) -> None:
        self.network = network
        self.path = path
        self.passed = 0.0
        self.machines: list[Machine] = []

    def now(self) -> float:
        """UTC, in seconds since 1970."""
        return time.time() + self.passed

    def pass_days(self, days: float) -> None:
        """Let time go by; each program looks at its files and at the clock."""
        self.passed += days * DAY
        for machine in self.machines:
            machine.membership.look()

    def first(self, name: str) -> Machine:
        """The machine that makes the namespace."""
        home = create_home("home", called=name, now=self.now(), parent=self.path / name)
        return self._started(home, name)

    async def join(self, name: str, *, by: Machine, **invite: Any) -> Machine:
        """A machine that is let in by an invite of another one."""
        code, _ = make_invite(
            by.home, now=self.now(), addresses=[parse_address(by.at)], name=name, **invite
        )
        with new_folder(self.path / name) as folder:
            node = self.network.node(load_key(folder / MACHINE_KEY).peer_id)
            joined = await join_with(
                node, code, called=name, now=self.now(), at=[parse_address(by.at)]
            )
            home = keep_joined(joined, folder, now=self.now())
        return self._started(home, name)

    def _started(self, home: Home, name: str) -> Machine:
        membership = DiskMembership(home, self.path / f"{name}.key", now=self.now)
        node = self.network.node(membership.process)
        door = Door(membership, node)
        # Months go by here in less than a minute.
        door.tries = Tries(of_host=1000, in_all=1000)
        node.handle(PROTOCOL, door.serve)
        machine = Machine(house=self, home=home, membership=membership, node=node)
        self.machines.append(machine)
        return machine
