"""The router that a program's options describe."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from ..decision_log import DecisionLog
from ..dialer import Hedge, Router, open_router
from ..discovery import KnownPeers
from ._identity import data_folder
from ._options import Settings
from ._shared import is_strict


def open_router_of(
    settings: Settings, *, identity: Path, decision_log: DecisionLog | None
) -> AbstractAsyncContextManager[Router]:
    """The router that *settings* describe, with the key in the file *identity*."""
    return open_router(
        bootstrap=settings.bootstrap,
        namespace=settings.namespace,
        policy=settings.policy,
        strict=is_strict(settings),
        transport=settings.transport,
        identity=identity,
        known=KnownPeers(Path(settings.known_peers or data_folder() / "known_peers")),
        hedge=Hedge() if settings.hedge else None,
        decision_log=decision_log,
    )
