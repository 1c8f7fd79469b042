"""Opens the API keys of a gateway with their books, and asks for keys once there is one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...dashboard import KeyBook
from ...events import Bus
from ...gateway import Gateway, KeyStore, Quotas, open_keys, open_usage
from ...gateway.keys import DEFAULT_LIMIT, DEFAULT_QUEUE_LIMIT
from ...settings import GatewaySettings
from .._shared import keys_path

log = get_logger("punch.gateway")

# How often a gateway without API keys looks whether one was made, in seconds.
KEY_CHECK_SECONDS = 1.0


@attrs.frozen(kw_only=True)
class Books:
    """Who may ask a gateway, and what each has used."""

    keys: KeyStore | None
    """The API keys; `None` if there was no file of them at the start, or all may ask."""

    quotas: Quotas
    """Decides when a request may begin."""

    book: KeyBook
    """The same, for the dashboard; it has the keys that were made since, too."""


def _usage_of(
    keys: KeyStore, settings: GatewaySettings, events: Bus, *, share: int
) -> AbstractAsyncContextManager[object]:
    """The book of what is used: each front has its own, and the gateway before them none."""
    if settings.processes > 1 and share == 1:
        return nullcontext()
    return open_usage(keys.database, events=events)


@asynccontextmanager
async def open_books(
    settings: GatewaySettings, events: Bus, *, share: int = 1
) -> AsyncIterator[Books]:
    """The API keys with their books, if there is a file of keys.

    Args:
      settings: Of the gateway.
      events: Where it publishes what requests cost.
      share: As one of how many processes this one serves.

    Raises:
      ConfigurationError: if the file cannot be used.

    """
    path = keys_path(settings.keys)
    quotas = Quotas(limit=DEFAULT_LIMIT // share, queue_limit=DEFAULT_QUEUE_LIMIT // share)
    if settings.keys is None and (settings.open_to_all or not path.exists()):
        if path.exists():
            log.warning("there are API keys, and --open-to-all asks nobody for one", keys=str(path))
        yield Books(keys=None, quotas=quotas, book=KeyBook(quotas))
        return
    async with open_keys(path) as keys, _usage_of(keys, settings, events, share=share):
        yield Books(keys=keys, quotas=quotas, book=KeyBook(quotas, keys=keys))


@asynccontextmanager
async def open_lock(
    gateway: Gateway, settings: GatewaySettings, events: Bus, books: Books, *, share: int = 1
) -> AsyncIterator[None]:
    """Ask for API keys as soon as there is one, if the gateway began without any."""
    if books.keys is not None or settings.open_to_all:
        yield
        return
    async with open_background() as nursery:
        nursery.start_soon(_lock_once_keyed, gateway, settings, events, books.book, share)
        yield


async def _lock_once_keyed(
    gateway: Gateway, settings: GatewaySettings, events: Bus, book: KeyBook, share: int
) -> None:
    path = keys_path(settings.keys)
    while not await trio.to_thread.run_sync(path.exists):  # noqa: ASYNC110 - another process makes it
        await trio.sleep(KEY_CHECK_SECONDS)
    async with open_keys(path) as keys, _usage_of(keys, settings, events, share=share):
        gateway.lock(keys)
        book.keys = keys
        log.warning("an API key was made: every request needs one from now on", keys=str(path))
        await trio.sleep_forever()
