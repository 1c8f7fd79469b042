"""The router that a program's options describe."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from ..dialer import Hedge, Router, open_router
from ..events import Bus
from ..settings import DialerSettings, GatewaySettings
from ._shared import known_peers


def open_router_of(
    settings: DialerSettings | GatewaySettings,
    *,
    identity: Path,
    events: Bus,
) -> AbstractAsyncContextManager[Router]:
    """The router that *settings* describe, with the key in the file *identity*."""
    return open_router(
        bootstrap=settings.network.bootstrap,
        namespace=settings.network.namespace,
        policy=settings.policy,
        strict=settings.strict.is_on,
        transport=settings.network.transport,
        identity=identity,
        known=known_peers(settings.network),
        hedge=Hedge() if settings.hedge else None,
        events=events,
    )
