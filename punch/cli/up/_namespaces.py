"""Makes the namespace of a `punch up` that has none, and drops those that it no longer needs."""

from __future__ import annotations

from pathlib import Path

import trio

from ..._logs import get_logger
from ...exceptions import ConfigurationError, PunchError
from ...membership import (
    Home,
    MemberStatus,
    create_namespace,
    homes,
    leave_namespace,
    list_members,
)
from ...settings import NetworkSettings
from .._namespace import Place, place_of
from ._namespace_choice import LAST, MADE, Enter, Make, choose_namespace, may_drop

log = get_logger("punch.up")

# Where a namespace keeps its members, who is out, and what this machine may do.
MEMBER_FILES = ("members.json", "revocations", "chain")


def find_place(network: NetworkSettings, *, folder: Path) -> tuple[Place, bool]:
    """The namespace to be in, which is made if there is none, and whether it was.

    Args:
      network: What the settings say.
      folder: Where the namespaces of this machine are kept.

    Raises:
      ConfigurationError: if several could be meant, or none can be made.

    """
    joined = homes(folder)
    unused = [home for home in joined if may_drop(home, list_members(home))]
    choice = choose_namespace(network, joined, unused=unused)
    if isinstance(choice, Make):
        home = create_namespace(choice.name, folder=folder)
        home.folder.write(MADE, b"")
        return _place(home), True
    if isinstance(choice, Enter):
        return _place(choice.home), False
    return place_of(network), False


def _place(home: Home) -> Place:
    return Place(name=home.namespace.name, home=home)


def mark_last(home: Home, *, folder: Path) -> None:
    """Remember that `up` was moved into *home*: it is there again when it starts anew."""
    for other in homes(folder):
        other.folder.remove(LAST)
    try:
        home.folder.write(LAST, b"")
    except ConfigurationError as error:
        log.warning("it is not remembered which namespace this was", why=error.message)


async def drop_unused(*, folder: Path, but: Home) -> tuple[str, ...]:
    """Leave the namespaces that `up` has made and nobody else has joined; their names.

    Args:
      folder: Where the namespaces of this machine are kept.
      but: The one that `up` is in.

    """
    dropped = []
    for home in await trio.to_thread.run_sync(homes, folder):
        if home.namespace == but.namespace:
            continue
        members = await trio.to_thread.run_sync(list_members, home)
        if not may_drop(home, members):
            continue
        try:
            await leave_namespace(home)
        except PunchError as error:
            log.warning("a namespace stays", namespace=str(home.namespace), why=error.message)
        else:
            dropped.append(str(home.namespace))
    return tuple(dropped)


class KnownMembers:
    """The members of a namespace that this machine knows of, read again when they have changed."""

    def __init__(self) -> None:
        self.members: tuple[MemberStatus, ...] = ()
        """What was read last; none of an open namespace."""
        self._home: Home | None = None
        self._stamp: object = None

    def follow(self, home: Home | None) -> None:
        """Know those of *home* from now on; of no namespace for `None`."""
        self._home, self._stamp, self.members = home, None, ()

    async def look(self) -> None:
        """Read them, if a file of them was written since: each grant takes a while to verify."""
        home = self._home
        if home is None:
            return
        stamp = home.folder.stamp(*MEMBER_FILES)
        if stamp == self._stamp:
            return
        try:
            self.members = await trio.to_thread.run_sync(list_members, home)
        except ConfigurationError as error:
            # Taken off this machine just now, which ends the program, or damaged.
            log.debug("the members cannot be read", why=error.message)
        else:
            self._stamp = stamp
