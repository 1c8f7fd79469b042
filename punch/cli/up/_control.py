"""What commands may ask of a running `punch up`: its status, its log, a move, its settings anew."""

from __future__ import annotations

import os
from typing import Any

from ...admin import Call, Handler
from ...exceptions import ConfigurationError, NetworkError
from ...membership import find_namespace
from ...settings import ALIAS, LOG_LEVEL, BackendSettings, settings_of
from .._aliases import aliases_of
from .._limits import caps_of_members, caps_of_strangers, warn_of_names
from .._namespace import namespaces_folder
from ..running._log_handler import logs_of
from ..running._log_kept import KeptLog
from ..running._reloading import Live, Reloading
from ._opened import Opened
from ._running import RunningUp
from ._up_settings import UpSettings

# What a listener takes while it runs.
LIMITS = frozenset(
    f"listener.{name}"
    for name in ("limit", "stranger_tokens", "stranger_seconds", "stranger_priority")
)

# The engine of this machine's own is closed, and another one is opened.
ENGINE = frozenset(each.name for each in settings_of(BackendSettings) if each.section)


def handlers_of(running: RunningUp, log: KeptLog) -> dict[str, Handler]:
    """What commands may ask of *running*, whose log is kept in *log*."""

    async def status(asked: Call) -> Any:
        return running.status().as_data()

    async def join(asked: Call) -> Any:
        which = asked.arguments.get("namespace")
        if not isinstance(which, str):
            raise ConfigurationError("say which namespace: a text `namespace`")
        home = find_namespace(which, folder=namespaces_folder())
        dropped = await running.join(home)
        return {"namespace": str(home.namespace), "dropped": list(dropped)}

    return {
        "status": status,
        "join": join,
        "logs": logs_of(log.ring),
        "reload": reloading_of(running, log).handler(),
    }


def reloading_of(running: RunningUp, log: KeptLog) -> Reloading:
    """What takes a changed settings file while *running* serves."""

    async def take_level(settings: UpSettings) -> None:
        log.set_level(settings.log_level)

    async def take_aliases(settings: UpSettings) -> None:
        _opened(running).serving.router.aliases = aliases_of(settings)

    async def take_limits(settings: UpSettings) -> None:
        opened = _opened(running)
        limits = caps_of_members(settings.listener, opened.target.place)
        opened.listener.limit(strangers=caps_of_strangers(settings.listener), limits=limits)
        if opened.membership is not None:
            warn_of_names(limits, opened.membership)

    return Reloading(
        lambda: running.settings,
        running.keep,
        (
            Live(names=frozenset({LOG_LEVEL.name}), take=take_level),
            Live(names=frozenset({ALIAS.name}), take=take_aliases),
            Live(names=LIMITS, take=take_limits),
            # Engines and adopted servers change alone.
            Live(names=ENGINE | {"adopt."}, take=running.reload),
        ),
        os.environ,
    )


def _opened(running: RunningUp) -> Opened:
    if running.opened is None:
        raise NetworkError(
            f"`punch up` is {running.status().state}: say it again once `punch status` shows its "
            "addresses"
        )
    return running.opened
