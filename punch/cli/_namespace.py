"""Decides which namespace a program is in, and opens its membership if that one is closed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from .._logs import get_logger
from ..membership import DiskMembership, Home, find_home, open_membership, open_name
from ..settings import NetworkSettings, data_folder
from ._output import plain

log = get_logger("punch.namespace")


@attrs.frozen(kw_only=True)
class Place:
    """The namespace that a program is in."""

    name: str
    """Name of the namespace, as it travels."""

    home: Home | None
    """The closed namespace; `None` for an open one."""

    def __str__(self) -> str:
        return self.name if self.home is None else str(self.home.namespace)


def namespaces_folder() -> Path:
    """Where the closed namespaces of this machine are kept."""
    return data_folder() / "namespaces"


def place_of(settings: NetworkSettings) -> Place:
    """The namespace that *settings* mean on this machine.

    Raises:
      ConfigurationError: if several could be meant, or one that this machine is no member of.

    """
    is_said = settings.origin("namespace").layer != "default"
    home = find_home(settings.namespace if is_said else None, namespaces_folder())
    name = open_name(settings.namespace) if home is None else home.namespace.name
    return Place(name=name, home=home)


@asynccontextmanager
async def open_membership_of(
    place: Place, identity: Path, *, says: bool = False
) -> AsyncIterator[DiskMembership | None]:
    """The membership of the process whose key is in *identity*; `None` in an open namespace.

    Args:
      place: The namespace.
      identity: File with the key of this process.
      says: Print which closed namespace it is, for a program whose log nobody sees.

    """
    if place.home is None:
        log.info(
            "in an open namespace: whoever reaches its bootstrap is in it", namespace=str(place)
        )
        yield None
        return
    if says:
        print(f"punch: in the closed namespace {plain(str(place))}", file=sys.stderr, flush=True)
    log.info("in a closed namespace", namespace=str(place))
    async with open_membership(place.home, identity=identity) as membership:
        yield membership
