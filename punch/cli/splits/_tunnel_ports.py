"""Makes of the settings the ports of this machine that peers may reach by a tunnel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...capability import PeerId
from ...discovery import LocalListener
from ...exceptions import ConfigurationError
from ...settings import ListenerSettings
from ...tunnels import NamedPort, open_named_ports
from .._namespace import Place

MAX_NAMED_PORTS = 64


def named_ports(settings: ListenerSettings, place: Place) -> tuple[NamedPort, ...]:
    """The ports that *settings* let peers reach, each name once.

    Raises:
      ConfigurationError: if a name stands for two ports, there are too many, or the namespace is
        open and a port has nobody who may reach it.

    """
    said = settings.said("tunnel_ports")
    found: dict[str, NamedPort] = {}
    for each in settings.tunnel_ports:
        peers = frozenset({PeerId(each.peer)} if each.peer else ())
        if place.home is None and not peers:
            raise ConfigurationError(
                f"{said} opens {each}, and the namespace {place} is open: there anybody may be a "
                f"member. Say for whom: {each}@PEER_ID; or make a closed namespace (`punch "
                "namespace create`), whose members reach it"
            )
        known = found.get(each.name)
        if known is not None and (known.port != each.port or not peers or not known.peers):
            raise ConfigurationError(
                f"{said} has the name {each.name!r} twice: give each port a name of its own, or "
                f"say for each peer {each.name}={known.port}@PEER_ID"
            )
        peers |= frozenset() if known is None else known.peers
        found[each.name] = NamedPort(name=each.name, port=each.port, peers=peers)
    if len(found) > MAX_NAMED_PORTS:
        raise ConfigurationError(f"{said} names {len(found)} ports; {MAX_NAMED_PORTS} are the most")
    return tuple(found.values())


@asynccontextmanager
async def open_tunnel_ports(
    settings: ListenerSettings, place: Place, listener: LocalListener
) -> AsyncIterator[None]:
    """Let peers reach the ports of *settings* through the node of *listener*."""
    async with open_named_ports(
        named_ports(settings, place),
        listener.node,
        namespace=listener.namespace,
        membership=listener.directory.membership,
    ):
        yield
