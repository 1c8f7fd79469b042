"""A stream of messages and descriptors between the gateway's process and one of its fronts.

Both ends are processes of one program on one machine, over a socket in a folder that this user
alone may enter: what they send each other is pickled. Descriptors travel beside the bytes
(``SCM_RIGHTS``, unix(7)), which is how a connection goes from one process to another.

A frame is its length, the number of its descriptors, and a pickled value. Descriptors arrive in
order and not after the first byte that they were sent with, so that they are counted off.
"""

from __future__ import annotations

import array
import copyreg
import io
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

import trio

from ..._background import open_background
from ..._logs import get_logger

log = get_logger(__name__)

_HEAD = struct.Struct(">IB")

# Bytes of one frame: the events of a twentieth of a second, or a connection with what was read.
MAX_FRAME_BYTES = 32 << 20

# Frames that wait for a process that is busy; a connection that finds no room is closed.
MAX_WAITING = 1024

# Descriptors of one frame: two ports have two sockets each where the host has two addresses.
MAX_DESCRIPTORS = 16

_READ_BYTES = 256 << 10
_ROOM = socket.CMSG_SPACE(64 * array.array("i").itemsize) if hasattr(socket, "CMSG_SPACE") else 0


class _Pickler(pickle.Pickler):
    """Pickles frozen mappings, too, which Python does not by itself."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.dispatch_table = _DISPATCH


def _frozen(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


_DISPATCH: Any = copyreg.dispatch_table | {
    MappingProxyType: lambda mapping: (_frozen, (dict(mapping),))
}


def pickled(value: Any) -> bytes:
    """*value* as bytes, for another process of this program."""
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


class Link:
    """One end of the stream. Made by `open_link`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(sock)
        self._news, self._waiting = trio.open_memory_channel[tuple[Any, list[int]]](MAX_WAITING)
        self._bytes = bytearray()
        self._descriptors: deque[int] = deque()
        # Values, of those that were sent, that are not written yet.
        self._unsent = 0

    def send(
        self, value: Any, sockets: Sequence[socket.socket | trio.socket.SocketType] = ()
    ) -> bool:
        """Send *value* soon, with copies of *sockets*; false if there is no room for it."""
        copies: list[int] = []
        try:
            copies.extend(os.dup(each.fileno()) for each in sockets)
            self._news.send_nowait((value, copies))
        except (OSError, trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            # No descriptor is left, or no room, or nobody is there.
            _close(copies)
            return False
        self._unsent += 1
        return True

    @property
    def waiting(self) -> int:
        """How many values wait to be sent."""
        return self._news.statistics().current_buffer_used

    async def flush(self, seconds: float) -> None:
        """Wait up to *seconds* until all that waits is sent."""
        with trio.move_on_after(seconds, shield=True):
            while self._unsent:  # noqa: ASYNC110 - at the end, for milliseconds
                await trio.sleep(0.005)

    async def receive(self) -> tuple[Any, list[int]] | None:
        """The next value with its descriptors, which the caller closes; `None` at the end."""
        while True:
            if len(self._bytes) >= _HEAD.size:
                size, count = _HEAD.unpack_from(self._bytes)
                if size > MAX_FRAME_BYTES or count > MAX_DESCRIPTORS:
                    log.error("a front says what cannot be", bytes=size, descriptors=count)
                    return None
                if len(self._bytes) >= _HEAD.size + size:
                    data = bytes(self._bytes[_HEAD.size : _HEAD.size + size])
                    del self._bytes[: _HEAD.size + size]
                    found = [self._descriptors.popleft() for _ in range(count)]
                    # Of a process of our own, over a socket that nobody else can reach.
                    return pickle.loads(data), found  # noqa: S301 - as above
            if not await self._read():
                return None

    async def _read(self) -> bool:
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, beside, told, _ = await self._socket.recvmsg(_READ_BYTES, _ROOM, flags)
        except OSError:
            return False
        for level, kind, content in beside:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                for number in numbers:
                    os.set_inheritable(number, False)
                self._descriptors.extend(numbers)
        if told & socket.MSG_CTRUNC:
            # Which ones are missing cannot be told, and a connection must not become another one's.
            log.error("no descriptor is left for a connection: raise the limit of open files")
            return False
        self._bytes += data
        return bool(data)

    async def _write(self) -> None:
        """Send what waits, for as long as the other end takes it."""
        with suppress(OSError):
            async for value, descriptors in self._waiting:
                try:
                    await self._put(value, descriptors)
                finally:
                    self._unsent -= 1
                    _close(descriptors)

    async def _put(self, value: Any, descriptors: list[int]) -> None:
        try:
            content = pickled(value)
        except Exception:
            # One value that cannot be told must not end the process and its requests.
            log.exception("what a process of the gateway says cannot be sent")
            return
        if len(content) > MAX_FRAME_BYTES:
            # The other end would take that for nonsense, and end with it.
            log.error("too much to say at once", bytes=len(content), limit=MAX_FRAME_BYTES)
            return
        data = memoryview(_HEAD.pack(len(content), len(descriptors)) + content)
        rights = array.array("i", descriptors).tobytes()
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        sent = await self._socket.sendmsg([data], beside)
        while sent < len(data):
            sent += await self._socket.send(data[sent:])

    def close(self) -> None:
        """Close this end, and what has come over it and nobody has received."""
        self._news.close()
        self._socket.close()
        with suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                _close(self._waiting.receive_nowait()[1])
        _close(self._descriptors)


def _close(descriptors: Sequence[int] | deque[int]) -> None:
    for each in descriptors:
        with suppress(OSError):
            os.close(each)


@asynccontextmanager
async def open_link(sock: socket.socket) -> AsyncIterator[Link]:
    """A link over a connected socket of this machine's own, for as long as the context lasts."""
    link = Link(sock)
    try:
        async with open_background() as nursery:
            nursery.start_soon(link._write)
            yield link
    finally:
        link.close()
