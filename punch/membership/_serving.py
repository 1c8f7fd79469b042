"""Serves newcomers and renewals while a program runs, and lets the commands know where.

A program that serves leaves a file with its addresses in the folder of its namespace, under a lock
that the system releases when the program ends, however it ends.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from .._background import open_background
from .._locks import try_lock
from .._logs import get_logger
from ..exceptions import ConfigurationError
from ..network import Address, Node, parse_address
from ._door import Door
from ._folder import Folder
from ._home import Home
from ._membership import DiskMembership
from ._messages import PROTOCOL
from ._renewing import keep_renewed

log = get_logger(__name__)

FOLDER = "serving"

# Programs of one machine in one namespace whose files are looked at.
MAX_SERVING = 64

# How often the addresses of a program are looked at, in seconds.
LOOK_SECONDS = 2.0


@asynccontextmanager
async def open_door(membership: DiskMembership, node: Node) -> AsyncIterator[Door]:
    """Let newcomers in at *node*, and have this machine's grant renewed, while the context lasts.

    Only a machine that is an admin lets anybody in.
    """
    door = Door(membership, node)
    node.handle(PROTOCOL, door.serve)
    async with open_background() as nursery:
        nursery.start_soon(keep_renewed, membership, node)
        nursery.start_soon(_say_where, membership.home, node)
        yield door


async def _say_where(home: Home, node: Node) -> None:
    """Keep the addresses of *node* in a file, for as long as the task lives."""
    folder = Folder(home.folder / FOLDER)
    name = f"{node.peer_id}.json"
    told: tuple[str, ...] | None = None
    try:
        folder.write(name, b"[]")
        file = (folder / f"{node.peer_id}.lock").open("ab")
    except (ConfigurationError, OSError) as error:
        log.warning("`punch invite` will not know where this program is", why=str(error))
        return
    with file:
        try_lock(file)
        try:
            while True:
                if node.addresses != told:
                    told = node.addresses
                    with suppress(ConfigurationError):
                        folder.write(name, json.dumps(told).encode())
                await trio.sleep(LOOK_SECONDS)
        finally:
            folder.remove(name)
            folder.remove(f"{node.peer_id}.lock")


def serving(home: Home) -> tuple[Address, ...]:
    """Where programs of this machine serve the namespace now; none if none runs."""
    folder = Folder(home.folder / FOLDER)
    found: dict[Address, None] = {}
    try:
        locks = sorted(folder.path.glob("*.lock"))[:MAX_SERVING]
    except OSError:
        return ()
    for lock in locks:
        if _is_free(lock):
            continue
        try:
            addresses = json.loads(folder.read(f"{lock.stem}.json") or b"[]")
            found |= {parse_address(text): None for text in addresses}
        except (ValueError, TypeError, ConfigurationError):
            continue
    # Others reach any address of this machine sooner than its loopback.
    return tuple(sorted(found, key=Address.is_loopback))


def _is_free(path: Path) -> bool:
    """True if the program that had the lock has ended."""
    try:
        with path.open("ab") as file:
            return try_lock(file)
    except OSError:
        return True
