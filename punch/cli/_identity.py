"""Where punch keeps its files, and which identity a process takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import platformdirs

from ..exceptions import ConfigurationError

# Processes of one kind on one machine; each needs an identity of its own.
MOST_IDENTITIES = 256


def data_folder() -> Path:
    """Where identities, known bootstraps and models are, as the platform has it."""
    return platformdirs.user_data_path("punch", appauthor=False)


def cache_folder() -> Path:
    """Where things are that can be made again."""
    return platformdirs.user_cache_path("punch", appauthor=False)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


@contextmanager
def claim_identity(role: str, given: str | None = None) -> Iterator[Path]:
    """A key file that no other process of this machine uses, for as long as the context lasts.

    If one is *given*, it is that one, and whoever gave it knows what else uses it.

    The first listener takes ``listener.key``, a second one beside it ``listener-2.key``, and
    so on; the system gives a lock back when its process ends, however it ends.

    Raises:
      ConfigurationError: if all of them are in use.

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
    for number in range(1, MOST_IDENTITIES + 1):
        path = folder / (f"{role}.key" if number == 1 else f"{role}-{number}.key")
        with path.with_suffix(".lock").open("ab") as file:
            if _lock(file):
                yield path
                return
    raise ConfigurationError(
        f"all {MOST_IDENTITIES} identities of {role}s in {folder} are in use; "
        "name another with --identity"
    )
