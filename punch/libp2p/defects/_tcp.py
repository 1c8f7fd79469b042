"""The work-around for TCP streams in libp2p 0.8.1: fewer system calls and turns a frame.

Installed by `apply` of `_swarm`, like all work-arounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from libp2p.io import trio as io_trio
from libp2p.io.exceptions import ConnectionClosedError

from ..._background import acquire_now
from . import _swarm as defects

READ_BYTES = 64 << 10
"""Most bytes that one read of a socket gives: as many as a message of Noise can have."""


def tcp_reads() -> None:
    """Read as much as there is, and write without giving all other tasks a turn first.

    Defect: `libp2p.io.trio.TrioTCPStream` reads from its socket what it is asked for and no
    more, which is two bytes and then the rest for each message of Noise. Without this, a frame
    takes two system calls and two turns of the scheduler more.
    """

    async def read(self: Any, n: int | None = None) -> bytes:
        rest: bytearray = self.__dict__.setdefault("_rest", bytearray())
        await acquire_now(self.read_lock)
        try:
            if not rest and n != 0:
                rest += await self.stream.receive_some(READ_BYTES)
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(f"the connection broke: {error}") from error
        except trio.ClosedResourceError:
            return b""
        finally:
            self.read_lock.release()
        data = bytes(rest[:n])
        del rest[:n]
        return data

    async def write(self: Any, data: bytes) -> None:
        await acquire_now(self.write_lock)
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(f"the connection broke: {error}") from error
        except trio.ClosedResourceError:
            return
        finally:
            self.write_lock.release()

    defects.replace(io_trio.TrioTCPStream, "read", read)
    defects.replace(io_trio.TrioTCPStream, "write", write)


PATCHES: tuple[Callable[[], None], ...] = (tcp_reads,)
"""What `apply` installs from this module."""
