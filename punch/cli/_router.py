"""Opens the router that a program's settings describe."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from ..dialer import Hedge, Router, open_router
from ..discovery import LocalListener
from ..events import Bus
from ..settings import DialerSettings, GatewaySettings
from ._aliases import aliases_of
from ._shared import bootstraps, known_peers, lan_of


def open_router_of(
    settings: DialerSettings | GatewaySettings,
    *,
    identity: Path,
    events: Bus,
    listener: LocalListener | None = None,
) -> AbstractAsyncContextManager[Router]:
    """Open the router that *settings* describe.

    Args:
      settings: Where the router meets its listeners, and how it chooses.
      identity: File with the key of this process.
      events: Where it publishes what it decides and does.
      listener: A listener of this process, whose node and namespace the router shares.

    """
    return open_router(
        bootstrap=bootstraps(settings.network),
        namespace=settings.network.namespace,
        policy=settings.policy,
        strict=settings.strict.is_on,
        transport=settings.network.transport,
        identity=identity,
        listener=listener,
        known=known_peers(settings.network),
        lan=lan_of(settings.network),
        hedge=Hedge() if settings.hedge else None,
        events=events,
        aliases=aliases_of(settings),
    )
