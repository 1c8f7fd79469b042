"""Leaves a namespace for good: signs that this machine is out, tells the others, drops its keys.

The word is written before anybody is told, so that the programs of this machine pass it on to those
that they have sessions with; they end by themselves when they read it. The folder goes last.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import attrs
import trio

from ...access import Namespace, remove
from ...capability import PeerId
from ...exceptions import PunchError
from ...libp2p import open_node
from ...network import Node
from .._home import Home, add_revocations, leave_home
from .._members import read_members
from .._membership import DiskMembership
from .._removing import read_removals
from .._running import programs_running
from ._telling import Told, open_telling

# How long the programs of this machine may take to end: they pass the word on for a second, and
# close their nodes.
STOP_SECONDS = 8.0
LOOK_SECONDS = 0.1


@attrs.frozen(kw_only=True)
class Left:
    """What came of leaving."""

    namespace: Namespace
    """The namespace that was left."""

    name: str
    """What this machine was called in it, or its key."""

    ends: int
    """When its grant would have ended, UTC in seconds since 1970; 0 if that is not known."""

    told: tuple[str, ...] = ()
    """Machines that have taken the word, by their names or keys."""

    others: tuple[str, ...] = ()
    """Machines that are told by these."""

    missed: tuple[str, ...] = ()
    """Members, as far as this machine knew them, that hear of it from nobody yet."""

    why_untold: str = ""
    """Why nobody was to be told, where that is so."""

    still_running: int = 0
    """Programs of this machine that did not end in time."""


async def leave_namespace(home: Home) -> Left:
    """Take this machine out of a namespace, and all of the namespace off this machine.

    The members that can be reached are told, which takes some seconds at most; programs of this
    machine that are in the namespace end with `NotPermitted`. It leaves, whoever was told.

    Args:
      home: The namespace.

    Raises:
      ConfigurationError: if the files cannot be removed.

    """
    try:
        left = await _told(home)
    except PunchError as error:
        # A file that is damaged, a grant that has ended: leaving is what then helps.
        left = Left(
            namespace=home.namespace,
            name=home.name or home.machine,
            ends=0,
            missed=_named(home, _known(home)),
            why_untold=str(error),
        )
    running = await _ended(home)
    await trio.to_thread.run_sync(leave_home, home)
    return attrs.evolve(left, still_running=running)


async def _told(home: Home) -> Left:
    with tempfile.TemporaryDirectory() as folder:
        # A process of its own: those that run go on meanwhile.
        identity = Path(folder) / "leaving.key"
        membership = DiskMembership(home, identity)
        membership.check()
        if not [*membership.bare_places(), *membership.places()]:
            # Nobody was ever met. The word is for the programs that run here.
            await trio.to_thread.run_sync(_signed, membership)
            return _left(membership, _known(home), Told())
        async with open_node(identity=identity) as node:
            return await tell_leaving(membership, node)


async def tell_leaving(membership: DiskMembership, node: Node) -> Left:
    """Sign that this machine leaves, and tell its programs and the members that can be reached.

    Args:
      membership: Of the process that says so.
      node: Its node.

    Raises:
      NotPermitted: if this machine is out already.
      ConfigurationError: if it cannot be written.

    """
    known = _known(membership.home)
    places = [*membership.places(), *membership.bare_places()]
    async with open_telling(membership, node, places) as telling:
        word = await trio.to_thread.run_sync(_signed, membership)
        told = await telling.tell([word])
    return _left(membership, known, told)


def _left(membership: DiskMembership, known: frozenset[PeerId], told: Told) -> Left:
    home = membership.home
    out = {home.machine}
    return Left(
        namespace=home.namespace,
        name=home.name or home.machine,
        ends=membership.grant.ends,
        told=_named(home, told.machines - out),
        others=_named(home, told.others - out),
        missed=_named(home, known - told.machines - told.others),
    )


def _signed(membership: DiskMembership) -> bytes:
    home = membership.home
    word = remove(
        membership.lock,
        home.machine,
        issuer=home.machine,
        sign=membership.key().sign,
        chain=home.chain(),
    )
    add_revocations(home, [word])
    return word


def _known(home: Home) -> frozenset[PeerId]:
    """The machines that are members, as far as this one knows."""
    lock, now = read_removals(home), time.time()
    return frozenset(
        each.machine
        for each in read_members(home.folder).values()
        if each.number > lock.removed_up_to(each.machine)
        and each.ends > now
        and each.machine != home.machine
    )


def _named(home: Home, machines: Iterable[PeerId]) -> tuple[str, ...]:
    members = read_members(home.folder)
    names = {machine: members[machine].name for machine in machines if machine in members}
    return tuple(sorted(names.get(machine) or machine for machine in machines))


async def _ended(home: Home) -> int:
    """Wait for the programs of this machine to end; how many did not."""
    running = 0
    with trio.move_on_after(STOP_SECONDS):
        while running := await trio.to_thread.run_sync(programs_running, home):  # noqa: ASYNC110 - other processes end
            await trio.sleep(LOOK_SECONDS)
    return running
