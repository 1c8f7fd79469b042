"""Hears whether a closed namespace of a name is nearby, for programs that are in the open one.

Nothing is said of us but the question who is there, and nobody is dialled.
"""

from __future__ import annotations

import trio

from ..._logs import get_logger
from ._multicast import Lan
from ._nearby import open_nearby
from ._records import LanRecord

log = get_logger(__name__)

# How often it is looked whether the interfaces of this machine are others, in seconds.
LOOK_SECONDS = 30.0


def warn_of_closed(namespace: str, record: LanRecord) -> None:
    """Say that *record* is of a closed namespace called as the open one that we are in."""
    log.warning(
        "a closed namespace of this name is nearby, and this program is in the open one, where "
        "whoever says the name is believed",
        namespace=namespace,
        interface=record.interface,
        remedy="join it with `punch join`; or give this namespace another name",
    )


async def watch_for_closed(lan: Lan, namespace: str) -> None:
    """Warn once, as soon as a member of a closed namespace called *namespace* is heard.

    Returns after that; until then it listens, whatever interfaces come and go.
    """
    while True:
        interfaces = lan._interfaces()
        if not interfaces:
            await trio.sleep(LOOK_SECONDS)
            continue
        async with open_nearby(lan) as nearby:
            while lan._interfaces() == interfaces:
                found = await nearby.wait_for(lambda r: r.is_named(namespace), LOOK_SECONDS)
                if found:
                    warn_of_closed(namespace, found[0])
                    return
