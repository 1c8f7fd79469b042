"""Makes the namespace of a `punch up` that has none, and drops those that it no longer needs."""

from __future__ import annotations

from pathlib import Path

import trio

from ..._logs import get_logger
from ...exceptions import ConfigurationError, PunchError
from ...membership import (
    Home,
    create_namespace,
    homes,
    leave_namespace,
    list_members,
)
from ...settings import NetworkSettings
from .._namespace import Place, place_of
from ._namespace_choice import LAST, MADE, Enter, Make, choose_namespace, may_drop

log = get_logger("punch.up")


def find_place(network: NetworkSettings, *, folder: Path) -> tuple[Place, bool]:
    """The namespace to be in, which is made if there is none, and whether it was.

    Args:
      network: What the settings say.
      folder: Where the namespaces of this machine are kept.

    Raises:
      ConfigurationError: if several could be meant, or none can be made.

    """
    choice = choose_namespace(network, homes(folder))
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
