"""Keeps a namespace on disk: a folder of small files that several processes of a machine share.

A file is written to a temporary name and renamed, so that a reader sees the old one or the new one;
whoever changes what it has read holds the folder's lock. Only the owner can read any of it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from .._locks import try_lock
from ..access import parse_namespace
from ..exceptions import ConfigurationError

INFO = "namespace.json"
"""What a folder is known by as that of a namespace."""

LEFT = "left.txt"
"""The file beside the folders that names those that were left; no more than `MAX_LEFT`."""

MAX_LEFT = 64

# A change takes milliseconds; one that takes longer than this is of a process that hangs.
LOCK_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.02

# The longest file that is read: thousands of removals with what each keeps stay below it.
MAX_FILE_BYTES = 64 << 20

# Folders of joins and creations that were not finished, and how old one is that nobody finishes.
_UNFINISHED = ".unfinished-"
_UNFINISHED_SECONDS = 3600.0


def default_folder() -> Path:
    """The folder of this user's namespaces, by the customs of the platform."""
    # Here: a program that is given its folders has no use for it.
    import platformdirs

    return platformdirs.user_data_path("punch", appauthor=False) / "namespaces"


@attrs.frozen
class Folder:
    """The files of one namespace."""

    path: Path
    """The folder, ``NAME@FINGERPRINT``."""

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def exists(self, name: str) -> bool:
        """True if there is a file *name*."""
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes | None:
        """The content of the file *name*; `None` if it is not there.

        Raises:
          ConfigurationError: if it cannot be read, or is far too long.

        """
        path = self.path / name
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        if len(data) > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"{path} has more than {MAX_FILE_BYTES} bytes, and punch wrote no such file: "
                "restore it from a backup"
            )
        return data

    def write(self, name: str, data: bytes) -> None:
        """Put *data* in the file *name*, at once and for good.

        Raises:
          ConfigurationError: if it cannot be written.

        """
        path = self.path / name
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise ConfigurationError(
                f"{path} cannot be written: {error.strerror}; make its folder writable and see "
                "that the disk has room"
            ) from None

    def remove(self, name: str) -> None:
        """Take the file *name* away, if it is there."""
        with suppress(OSError):
            (self.path / name).unlink(missing_ok=True)

    def stamp(self, *names: str) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when one of the files *names* is written."""
        return tuple(map(self._stamp, names))

    def _stamp(self, name: str) -> tuple[int, int, int] | None:
        try:
            found = (self.path / name).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the folder: no other process, and no other thread, changes it meanwhile.

        Raises:
          ConfigurationError: if another process holds it for `LOCK_SECONDS`.

        """
        path = self.path / ".lock"
        try:
            file = path.open("ab")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be made: {error.strerror}") from None
        with file:
            ends = time.monotonic() + LOCK_SECONDS
            while not try_lock(file):
                if time.monotonic() > ends:
                    raise ConfigurationError(
                        f"{path} is held by another process for {LOCK_SECONDS:.0f} s: "
                        "end the process of punch that hangs"
                    )
                time.sleep(LOCK_POLL_SECONDS)
            yield


def write_secret(path: Path, data: bytes) -> None:
    """Write *data* to a file that only its owner can read, in the place of one that is there.

    Raises:
      ConfigurationError: if it cannot be written.

    """
    Folder(path.parent).write(path.name, data)


def folders_in(parent: Path) -> tuple[Folder, ...]:
    """The namespaces that are kept in *parent*, by name."""
    try:
        found = sorted(path for path in parent.iterdir() if parse_namespace(path.name)[1])
    except OSError:
        return ()
    return tuple(Folder(path) for path in found if (path / INFO).is_file())


@contextmanager
def new_folder(parent: Path) -> Iterator[Folder]:
    """A folder for a namespace whose name is not known yet; it is gone unless it is `keep`-ed.

    Raises:
      ConfigurationError: if it cannot be made.

    """
    path = parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _clear(parent)
        path.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigurationError(
            f"the folder {parent} cannot be written: {error.strerror}; "
            "set XDG_DATA_HOME to a folder of yours"
        ) from None
    try:
        yield Folder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def keep(folder: Folder, name: str) -> Folder:
    """Give a new folder its name, by which it is a namespace of this machine from now on.

    Raises:
      ConfigurationError: if there is one of that name.

    """
    path = folder.path.with_name(name)
    try:
        folder.path.rename(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made: {error.strerror}") from None
    return Folder(path)


def discard(folder: Folder) -> None:
    """Take a namespace off this machine, with its keys."""
    # In one step it is none any more, whatever becomes of its files.
    path = folder.path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
    try:
        folder.path.rename(path)
    except OSError as error:
        raise ConfigurationError(f"{folder.path} cannot be removed: {error.strerror}") from None
    _note_left(folder.path.parent, folder.path.name)
    shutil.rmtree(path, ignore_errors=True)


def left_in(parent: Path) -> tuple[str, ...]:
    """The namespaces that this machine has left, as ``NAME@FINGERPRINT``, the last one last."""
    try:
        lines = (Folder(parent).read(LEFT) or b"").decode().splitlines()
    except (ConfigurationError, UnicodeDecodeError):
        return ()
    return tuple(line for line in lines if parse_namespace(line)[1])[-MAX_LEFT:]


def _note_left(parent: Path, name: str) -> None:
    """Keep that a namespace was left: whoever still says its name is in the open one from then."""
    names = (*(each for each in left_in(parent) if each != name), name)[-MAX_LEFT:]
    with suppress(ConfigurationError):  # It is left all the same.
        Folder(parent).write(LEFT, "".join(f"{each}\n" for each in names).encode())


def _clear(parent: Path) -> None:
    """Remove what a process left that was killed while it joined."""
    for path in parent.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNFINISHED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
