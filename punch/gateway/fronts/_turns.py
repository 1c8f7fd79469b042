"""Whose turn it is to accept the next connection: of the front that has the fewest.

All fronts wait at the same sockets, and all are woken by a connection. Without more, whichever runs
first takes it, and a pool of a client's connections may end up with one of them, while the others
rest. So each says how many connections it has, where all can read it, and one that has more than
another gives way for a moment: to a front that is idle it is long enough, and one that is busy
leaves the connection to those who have time.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import trio

_COUNT = struct.Struct("@I")

# What stands for a front that is not there.
ABSENT = 0xFFFFFFFF

# How long a front gives way, in seconds: a few times what another one takes to wake up.
GIVE_WAY_SECONDS = 0.002


def turns_beside(socket: Path) -> Path:
    """The file of the turns of a gateway whose fronts connect to *socket*."""
    return socket.with_name("turns")


class Turns:
    """The connections of all fronts, in memory that they share.

    Args:
      path: The file that it is; made by the gateway, with `make`.
      number: Of the front, from 0.

    """

    def __init__(self, path: Path, number: int) -> None:
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)
        self._number = number

    @staticmethod
    def make(path: Path, count: int) -> None:
        """Make the file, for *count* fronts of which none is there."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_COUNT.pack(ABSENT) * count)

    def note(self, connections: int) -> None:
        """Say how many connections this front has."""
        _COUNT.pack_into(self._shared, self._number * _COUNT.size, connections)

    async def give_way(self, connections: int) -> None:
        """Wait a moment if another front has fewer than these *connections*."""
        self.note(connections)
        if connections > min(count for (count,) in _COUNT.iter_unpack(self._shared)):
            await trio.sleep(GIVE_WAY_SECONDS)

    def close(self) -> None:
        """Say that this front is not there, and use the file no more."""
        self.note(ABSENT)
        self._shared.close()
