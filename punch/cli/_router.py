"""Opens the router that a program's settings describe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ..dialer import Hedge, Router, Start, Startables, open_router
from ..discovery import LocalListener
from ..events import Bus
from ..membership import DiskMembership
from ..settings import DialerSettings, GatewaySettings
from ._aliases import aliases_of
from ._namespace import Place
from ._shared import bootstraps, known_peers, lan_of


@asynccontextmanager
async def open_router_of(
    settings: DialerSettings | GatewaySettings,
    *,
    identity: Path,
    events: Bus,
    place: Place,
    membership: DiskMembership | None,
    listener: LocalListener | None = None,
    startable: Startables = (),
    start: Start | None = None,
) -> AsyncIterator[Router]:
    """Open the router that *settings* describe.

    Args:
      settings: Where the router meets its listeners, and how it chooses.
      identity: File with the key of this process.
      events: Where it publishes what it decides and does.
      place: The namespace.
      membership: Of this process in a closed namespace.
      listener: A listener of this process, whose node and namespace the router shares.
      startable: What could be started, see `open_router`.
      start: Starts it.

    """
    async with open_router(
        bootstrap=bootstraps(settings.network),
        namespace=place.name,
        policy=settings.policy,
        strict=settings.strict.is_on,
        transport=settings.network.transport,
        identity=identity,
        listener=listener,
        known=known_peers(settings.network),
        lan=lan_of(settings.network, is_closed=membership is not None),
        hedge=Hedge() if settings.hedge else None,
        events=events,
        aliases=aliases_of(settings),
        membership=membership,
        startable=startable,
        start=start,
    ) as router:
        yield router
