"""Decides which namespace a program is in, and opens its membership if that one is closed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from .._background import open_background
from .._logs import get_logger
from ..discovery.lan import watch_for_closed
from ..membership import (
    DiskMembership,
    Home,
    find_home,
    find_namespace,
    homes,
    is_open,
    left_in,
    open_membership,
    open_name,
)
from ..settings import NetworkSettings, data_folder
from ._output import plain
from ._shared import bootstraps, lan_to_hear, meets_here

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


def home_of(which: str | None) -> Home:
    """The closed namespace that a command means.

    Raises:
      ConfigurationError: if there is none of that name, or several.

    """
    return find_namespace(which, folder=namespaces_folder())


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
    place: Place, identity: Path, network: NetworkSettings, *, says: bool = False
) -> AsyncIterator[DiskMembership | None]:
    """The membership of the process whose key is in *identity*; `None` in an open namespace.

    In an open one the program warns, while the context lasts, if a closed one of that name is on
    this machine or is heard nearby: nobody gets from a closed one to an open one unawares.

    Args:
      place: The namespace.
      identity: File with the key of this process.
      network: Where the program meets the others.
      says: Print which closed namespace it is, for a program whose log nobody sees.

    """
    if place.home is None:
        log.info(
            "in an open namespace: whoever reaches its bootstrap is in it", namespace=str(place)
        )
        _warn_of_closed_here(place, is_said=is_open(network.namespace))
        _warn_of_no_lan(network)
        lan = lan_to_hear(network)
        if lan is None:
            yield None
            return
        async with open_background() as nursery:
            nursery.start_soon(watch_for_closed, lan, place.name)
            yield None
        return
    if says:
        print(f"punch: in the closed namespace {plain(str(place))}", file=sys.stderr, flush=True)
    log.info("in a closed namespace", namespace=str(place))
    async with open_membership(place.home, identity=identity) as membership:
        yield membership


def _warn_of_closed_here(place: Place, *, is_said: bool) -> None:
    """Say so if this machine is a member of a closed namespace of the name of an open one.

    And if it was one and has left, unless somebody has *said* that the open one is meant.
    """
    found = [home for home in homes(namespaces_folder()) if home.namespace.name == place.name]
    if found:
        log.warning(
            "this machine is a member of a closed namespace of this name, and this program is in "
            "the open one, where whoever reaches its bootstrap is asked and is answered",
            namespace=str(place),
            closed=[str(home.namespace) for home in found],
            remedy=f"leave @open out, or say --namespace {found[0].namespace}",
        )
        return
    left = [each for each in left_in(namespaces_folder()) if each.rpartition("@")[0] == place.name]
    if left and not is_said:
        log.warning(
            "this machine was a member of a closed namespace of this name and has left it: this "
            "program is in the open one, where whoever reaches its bootstrap is asked and is "
            "answered",
            namespace=str(place),
            left=left,
            remedy=f"say --namespace {place.name}@open if that is meant; ask a member for an "
            "invite if it is not",
        )


def _warn_of_no_lan(network: NetworkSettings) -> None:
    """Say so if an open namespace was to be found on a LAN, and is of this machine alone."""
    if network.lan and meets_here(network):
        log.warning(
            "nobody is looked for on the LAN, and nothing is said there: every bootstrap of this "
            "open namespace is on loopback, so that it is of this machine alone",
            setting=network.said("lan"),
            bootstrap=[str(place) for place in bootstraps(network)],
            remedy="give --bootstrap an address that other machines reach, whether or not "
            "somebody is there; or make the namespace a closed one, with `punch namespace create`",
        )
