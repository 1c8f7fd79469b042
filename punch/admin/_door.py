"""The file by which a command finds the running punch: port, token and process, for this user only.

It goes with the program. What a killed program has left is recognised by its process: no other one
has its mark, whoever has its number.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import attrs

from .._locks import try_lock
from ..exceptions import ConfigurationError
from ..processes import ProcessMark

FILE = "admin.json"
"""In the folder, where the running program is to be asked."""

# Held by the program for as long as it runs: two that serve one folder would hide one another.
LOCK_FILE = "admin.lock"

# 256 bits: nobody guesses them, at however many tries a second.
TOKEN_BYTES = 32

# A port, a token and a process take a quarter of it.
MAX_FILE_BYTES = 1024

MAX_PORT = 65535


@attrs.frozen(kw_only=True)
class Door:
    """Where a running program takes commands, and with which word."""

    port: int
    """Of TCP, on loopback."""

    token: str = attrs.field(repr=False)
    """What a caller has to know: hexadecimal."""

    mark: ProcessMark
    """The program's process."""

    @classmethod
    def at(cls, port: int) -> Door:
        """The door of this process at *port*, with a token of its own."""
        mark = ProcessMark.of(os.getpid())
        assert mark is not None, "we run"
        return cls(port=port, token=secrets.token_hex(TOKEN_BYTES), mark=mark)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make *folder*, for this user alone, and hold it for as long as the context lasts.

    Raises:
      ConfigurationError: if it cannot be had, or another program has it.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Where it was there already, with more rights or fewer.
        folder.chmod(0o700)
        file = _open_private(folder / LOCK_FILE)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be used: {error.strerror}; see that it is a folder of yours, or set "
            "XDG_DATA_HOME to one"
        ) from None
    with file:
        if not try_lock(file):
            door = read_door(folder)
            who = "another process" if door is None else f"process {door.mark.pid}"
            raise ConfigurationError(
                f"{who} of punch takes the commands of {folder} already: `punch status` shows it, "
                "and `punch down` ends it"
            )
        yield


@contextmanager
def shown(folder: Path, door: Door) -> Iterator[None]:
    """Have *door* in its file for as long as the context lasts.

    Raises:
      ConfigurationError: if it cannot be written.

    """
    path = folder / FILE
    beside = folder / f"{FILE}.{secrets.token_hex(8)}"
    text = json.dumps({"port": door.port, "token": door.token, **attrs.asdict(door.mark)})
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; make its folder writable and see that "
            "the disk has room"
        ) from None
    try:
        yield
    finally:
        # Not what somebody else has put there since.
        if _read(path) == door:
            with suppress(OSError):
                path.unlink()


def read_door(folder: Path) -> Door | None:
    """The door of the program that runs with *folder*; `None` if none does."""
    door = _read(folder / FILE)
    return door if door is not None and door.mark.is_running else None


def _open_private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _read(path: Path) -> Door | None:
    """What is written in *path*; `None` if it is nothing of ours."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    match said:
        case {
            "port": int(port),
            "token": str(token),
            "pid": int(pid),
            "start": str(start),
            "boot": str(boot),
        } if type(port) is int and type(pid) is int and 0 < port <= MAX_PORT and pid > 0:
            mark = ProcessMark(pid=pid, start=start, boot=boot)
            return Door(port=port, token=token, mark=mark)
    return None
