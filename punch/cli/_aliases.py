"""Makes the aliases of a program's settings, and follows the settings file while it runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .._background import open_background
from .._logs import get_logger
from ..dialer import Router
from ..exceptions import ConfigurationError
from ..routing.names import Aliases
from ..settings import (
    ALIAS,
    SETTINGS,
    DialerSettings,
    GatewaySettings,
    explain,
    open_settings,
    refuse_unknown,
    settings_path,
)

log = get_logger(__name__)

# How often a running gateway looks whether the settings file was changed, in seconds.
CHECK_SECONDS = 1.0

_Stamp = tuple[int, int, int] | None


def aliases_of(settings: DialerSettings | GatewaySettings) -> Aliases:
    """The aliases that *settings* have.

    Raises:
      ConfigurationError: if there are too many.

    """
    try:
        return Aliases(settings.alias)
    except ValueError as error:
        raise ConfigurationError(f"{settings.said('alias')}: {error}") from None


@asynccontextmanager
async def open_alias_following(router: Router, settings: GatewaySettings) -> AsyncIterator[None]:
    """Give *router* the aliases of the settings file whenever that changes.

    Not where a flag or a variable has set them: those count more than the file.
    """
    if settings.origin("alias").layer not in ("file", "default"):
        yield
        return
    async with open_background() as nursery:
        nursery.start_soon(_follow, router, _stamp())
        yield


async def _follow(router: Router, seen: _Stamp) -> None:
    while True:
        await trio.sleep(CHECK_SECONDS)
        now = await trio.to_thread.run_sync(_stamp)
        if now == seen:
            continue
        seen = now
        try:
            aliases = await trio.to_thread.run_sync(_read)
        except ConfigurationError as error:
            # Half an edit, perhaps. Those of a moment ago are still right.
            log.warning("the aliases stay as they were", why=str(error))
            continue
        if aliases.all != router.aliases.all:
            router.aliases = aliases
            log.info("the aliases have changed", aliases=len(aliases))


def _stamp() -> _Stamp:
    """What changes with the settings file; `None` if there is none."""
    path = settings_path(os.environ)
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read() -> Aliases:
    path = settings_path(os.environ)
    # A file that is gone has none; that one which was named is not there is no error any more.
    file = open_settings(os.environ) if path is not None and path.exists() else None
    if file is not None:
        # A fault anywhere in it: no program would start with it, and none takes a part of it.
        refuse_unknown(file)
        for each in SETTINGS:
            explain(each, {}, {}, file)
    found = explain(ALIAS, {}, {}, file).value
    try:
        return Aliases(found)  # type: ignore[arg-type]  # a setting's value has the type of its rule
    except ValueError as error:
        raise ConfigurationError(f"{ALIAS.name}: {error}") from None
