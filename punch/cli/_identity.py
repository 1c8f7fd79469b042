"""Decides which identity a process has: the first of its kind that no other process uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .._locks import try_lock
from ..exceptions import ConfigurationError
from ..settings import data_folder

# Processes of one kind on one machine; each needs an identity of its own.
MAX_IDENTITIES = 256


@contextmanager
def claim_identity(role: str, given: str | None = None) -> Iterator[Path]:
    """A key file that no other process of this machine uses, for as long as the context lasts.

    The first listener has ``listener.key``, a second one beside it ``listener-2.key``, and so on;
    the system releases a lock when its process ends, however it ends.

    Args:
      role: What the process does, such as ``listener``.
      given: The file to use; it is used as it is, without a lock.

    Raises:
      ConfigurationError: if all identities are in use, or the data folder cannot be written.

    """
    if given is not None:
        yield Path(given).expanduser()
        return
    folder = data_folder() / "identities"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(
            f"the data folder {folder} cannot be made: {error.strerror}; "
            "name a key file with --identity, or set XDG_DATA_HOME to a folder of yours"
        ) from error
    for number in range(1, MAX_IDENTITIES + 1):
        path = folder / (f"{role}.key" if number == 1 else f"{role}-{number}.key")
        with _opened(path.with_suffix(".lock")) as file:
            if try_lock(file):
                yield path
                return
    raise ConfigurationError(
        f"all {MAX_IDENTITIES} identities of {role}s in {folder} are in use; "
        "name another with --identity"
    )


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("ab")
    except OSError as error:
        raise ConfigurationError(
            f"the lock file {path} cannot be made: {error.strerror}; make its folder writable and "
            "see that the disk has room, or name a key file with --identity"
        ) from error
