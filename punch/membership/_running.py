"""Where the programs of this machine are that serve a namespace now.

A program that serves leaves a file with its addresses in the folder of its namespace, under a lock
that the system releases when the program ends, however it ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .._locks import try_lock
from ..capability import PeerId
from ..exceptions import ConfigurationError
from ..network import Address, parse_address
from ._folder import Folder
from ._home import Home

FOLDER = "serving"

# Programs of one machine in one namespace whose files are looked at.
MAX_SERVING = 64


class Running:
    """The file of one program. Made by `running`."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name

    def say(self, addresses: tuple[str, ...]) -> None:
        """Write where the program is."""
        # A folder that is gone, since the machine has left, is not made anew.
        if self._folder.exists(self._name):
            with suppress(ConfigurationError):
                self._folder.write(self._name, json.dumps(addresses).encode())


@contextmanager
def running(home: Home, peer_id: PeerId) -> Iterator[Running]:
    """Keep the file of a program, for as long as the context lasts.

    Raises:
      ConfigurationError: if it cannot be made.

    """
    folder = Folder(home.folder / FOLDER)
    folder.write(f"{peer_id}.json", b"[]")
    try:
        file = (folder / f"{peer_id}.lock").open("ab")
    except OSError as error:
        raise ConfigurationError(f"{folder.path} cannot be written: {error.strerror}") from None
    with file:
        try_lock(file)
        try:
            yield Running(folder, f"{peer_id}.json")
        finally:
            folder.remove(f"{peer_id}.json")
            folder.remove(f"{peer_id}.lock")


def serving(home: Home) -> tuple[Address, ...]:
    """Where programs of this machine serve the namespace now; none if none runs."""
    folder = Folder(home.folder / FOLDER)
    found: dict[Address, None] = {}
    for lock in _held(folder):
        try:
            addresses = json.loads(folder.read(f"{lock.stem}.json") or b"[]")
            found |= {parse_address(text): None for text in addresses}
        except (ValueError, TypeError, ConfigurationError):
            continue
    # Others reach any address of this machine sooner than its loopback.
    return tuple(sorted(found, key=Address.is_loopback))


def programs_running(home: Home) -> int:
    """How many programs of this machine serve the namespace now."""
    return len(_held(Folder(home.folder / FOLDER)))


def _held(folder: Folder) -> list[Path]:
    """The locks of the programs that run."""
    try:
        locks = sorted(folder.path.glob("*.lock"))[:MAX_SERVING]
    except OSError:
        return []
    return [lock for lock in locks if not _is_free(lock)]


def _is_free(path: Path) -> bool:
    """True if the program that had the lock has ended."""
    try:
        with path.open("ab") as file:
            return try_lock(file)
    except OSError:
        return True
