"""Looks at one place: whether anybody is there, and what answers. Asks by GET, and loads nothing.

What the answers mean is decided by `_verdict`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from ..backends.openai import HttpClient, Server, open_http_client, read_server
from ..exceptions import PunchError
from ._given import Given
from ._verdict import Seen, is_gateway, seen_in

if TYPE_CHECKING:
    from ..backends.openai._client import Transport

# On loopback a connection is accepted or refused at once; a host that is off does neither.
REACH_SECONDS = 2.0

# A server has its list in memory.
ASK_SECONDS = 5.0

Reach = Callable[[str, int], Awaitable[bool]]
"""``await reach(host, port)`` says whether anybody accepts connections there."""


async def accepts(host: str, port: int) -> bool:
    """Whether anybody accepts connections at *port* of *host*."""
    with suppress(OSError), trio.move_on_after(REACH_SECONDS):
        stream = await trio.open_tcp_stream(host, port)
        await trio.aclose_forcefully(stream)
        return True
    return False


async def look(server: Server, *, is_given: bool, transport: Transport | None = None) -> Seen:
    """What answers at *server*: one question, and a second if it lists models.

    Args:
      server: The address, and what it wants to see.
      is_given: Whether a person has said that it is a server of models.
      transport: In place of the network, for tests.

    """
    async with open_http_client(
        url=server.url,
        slots=1,
        authorization=server.authorization,
        secrets=server.secrets,
        transport=transport,
    ) as client:
        return await _asked(client, is_given=is_given)


async def look_once(given: Given) -> Seen:
    """What is at a server that a person names, before it is adopted.

    Raises:
      ConfigurationError: if the address makes no sense.

    """
    server = read_server(given.url, given.key, url_setting="the address", key_setting="the key")
    parts = urlsplit(server.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not await accepts(parts.hostname or "", port):
        return "nothing"
    return await look(server, is_given=True)


async def _asked(client: HttpClient, *, is_given: bool) -> Seen:
    try:
        status, data = await client.fetch("/v1/models", timeout=ASK_SECONDS)
        seen = seen_in(status, data, is_given=is_given)
        # A gateway of punch that wants a key says who it is without one.
        if seen in ("models", "locked"):
            status, data = await client.fetch("/api/version", timeout=ASK_SECONDS)
            return "gateway" if is_gateway(status, data) else seen
    except (trio.TooSlowError, PunchError):
        # Neither is a list without an end, nor a connection that is closed without a word.
        return "silent"
    return seen
