"""A TLS connection between the ends of a tunnel: its handshake, its frames, and what waits to go.

Whom the connection belongs to and what its frames mean is decided by its owner: `_far_end`,
`_near_end`, or a `_pair` once a program's connection goes through it.

Two rules of OpenSSL that bite: a write that was refused must be tried again with the same bytes or
more, and what was decrypted already makes no socket readable, so `pending` is asked before the
next poll.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from ...exceptions import RemoteProtocolError
from .._framing import TunnelFrames, frame
from ._loop import READ, WRITE, Loop
from ._sockets import watch_closely

MAX_QUEUED_BYTES: Final = 1 << 20
"""What a direction of a connection holds at most, apart from the kernel's buffers."""

READ_BYTES: Final = 64 << 10
"""What is read at a time. A TLS record has 16 KiB."""

ROOM_BYTES: Final = MAX_QUEUED_BYTES - READ_BYTES - 4
"""With less in a queue, another read still fits."""

# Records of one connection before the others have their turn.
_READS: Final = 16
_RECORD: Final = 16 << 10

_WANT: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


class Queue:
    """What waits to be sent on one socket, oldest first.

    Args:
      send: Sends some of what it is given, and says how many bytes; raises what sockets raise.

    """

    def __init__(self, send: Callable[[bytes | memoryview], int]) -> None:
        self._send = send
        self._pieces: deque[bytes | memoryview] = deque()
        self.size = 0
        """Bytes that wait."""

    def put(self, data: bytes | memoryview) -> None:
        """Send *data* after all else, at once if it can be.

        Raises:
          OSError: if the connection is gone.

        """
        self._pieces.append(data)
        self.size += len(data)
        if len(self._pieces) == 1:
            self.drain()

    def drain(self) -> None:
        """Send what can be sent now; raises as `put`."""
        while self._pieces:
            data = self._pieces[0]
            try:
                sent = self._send(data)
            except _WANT:
                return
            self.size -= sent
            if sent == len(data):
                self._pieces.popleft()
            else:
                self._pieces[0] = memoryview(data)[sent:]


class Owner(Protocol):
    """What a channel tells; each is called in the loop's thread."""

    def on_secure(self, channel: Channel) -> None:
        """Tell that the handshake is over, and the other side's certificate is the right one."""

    def on_frame(self, channel: Channel, kind: int, payload: bytes | memoryview) -> None:
        """Tell of a frame."""

    def on_drained(self, channel: Channel) -> None:
        """Tell that something was sent of what waited."""

    def on_ended(self, channel: Channel, ending: Ending) -> None:
        """Tell that the connection is closed, once; not after `Channel.close`."""


class Ending:
    """Why a connection ended that was not closed here.

    Args:
      word: ``unreachable``, ``certificate`` (the other side's is another), ``handshake``,
        ``protocol`` or ``ended``.
      reason: The same in a sentence.

    """

    __slots__ = ("reason", "word")

    def __init__(self, word: str, reason: str) -> None:
        self.word, self.reason = word, reason


class Channel:
    """One TLS connection, and the frames on it.

    Args:
      loop: The loop.
      sock: A socket that is connected, or is connecting.
      context: TLS, with the lease's certificates.
      expected: The other side's certificate, as DER.
      is_server: Whether this is the far end.
      owner: Who is told.

    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        context: ssl.SSLContext,
        expected: bytes,
        is_server: bool,
        owner: Owner,
    ) -> None:
        self.owner = owner
        self.is_secure = False
        """Whether the other side has shown the lease's certificate."""
        self.is_open = True
        self._loop = loop
        self._context = context
        self._expected = expected
        self._is_server = is_server
        # Until it is connected; then the wrapper has its descriptor.
        self._plain: socket.socket | None = sock
        self._sock: ssl.SSLSocket | None = None
        self._frames = TunnelFrames()
        self._is_paused = False
        sock.setblocking(False)
        loop.add(sock, READ if is_server else WRITE, self._connected)

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._queue.size if self.is_secure else 0

    # ---- until it is secure ----

    def _connected(self, mask: int) -> None:
        """Begin the handshake: a client is connected, or a server's first bytes are here."""
        del mask
        assert self._plain is not None
        plain, self._plain = self._plain, None
        self._loop.remove(plain)
        if error := plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._plain = plain
            self._fail("unreachable", f"cannot be connected to: {os.strerror(error)}")
            return
        try:
            self._sock = self._context.wrap_socket(
                plain, server_side=self._is_server, do_handshake_on_connect=False
            )
        except OSError as error:
            self._plain = plain
            self._fail("ended", f"ended before the handshake: {error}")
            return
        self._loop.add(self._sock, READ, self._shake)
        self._shake(READ)

    def _shake(self, mask: int) -> None:
        del mask
        sock = self._sock
        assert sock is not None
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.set(sock, READ)
            return
        except ssl.SSLWantWriteError:
            self._loop.set(sock, WRITE)
            return
        except ssl.SSLCertVerificationError:
            self._fail("certificate", "the other side shows another certificate than the lease's")
            return
        except OSError as error:
            self._fail("handshake", f"the handshake failed: {error}")
            return
        if sock.getpeercert(binary_form=True) != self._expected:
            self._fail("certificate", "the other side shows another certificate than the lease's")
            return
        self.is_secure = True
        self._queue = Queue(sock.send)
        self._loop.remove(sock)
        self._loop.add(sock, READ, self._ready)
        self.owner.on_secure(self)
        # What came with the end of the handshake is decrypted already.
        self._read()

    def watch_closely(self) -> None:
        """Have the kernel notice soon that the other machine is gone; see `_sockets`."""
        if self._sock is not None:
            watch_closely(self._sock)

    # ---- frames ----

    def send(self, kind: int, payload: bytes | memoryview = b"") -> None:
        """Send a frame, or keep it until it can be sent; nothing once the connection has ended."""
        if not self.is_open:
            return
        try:
            self._queue.put(frame(kind, payload))
        except OSError as error:
            self._fail("ended", f"the connection ended: {error}")
            return
        self._listen()

    def pause(self) -> None:
        """Read nothing until `resume`: its bytes have nowhere to go."""
        self._is_paused = True
        self._listen()

    def resume(self) -> None:
        """Read again."""
        if self._is_paused:
            self._is_paused = False
            self._listen()
            self._loop.call_soon(self._read)

    def _listen(self) -> None:
        if self.is_open and self._sock is not None:
            reading = 0 if self._is_paused else READ
            self._loop.set(self._sock, reading | (WRITE if self._queue.size else 0))

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            try:
                self._queue.drain()
            except OSError as error:
                self._fail("ended", f"the connection ended: {error}")
                return
            self._listen()
            self.owner.on_drained(self)
        if mask & READ:
            self._read()

    def _read(self) -> None:
        for _ in range(_READS):
            if self._is_paused or not self.is_open or self._sock is None:
                return
            try:
                data = self._sock.recv(READ_BYTES)
            except _WANT:
                return
            except OSError as error:
                self._fail("ended", f"the connection ended: {error}")
                return
            if not data:
                self._fail("ended", "the connection ended")
                return
            try:
                found = self._frames.feed(data)
            except RemoteProtocolError as error:
                self._fail("protocol", str(error))
                return
            self._deliver(found)
            if not self._has_more(len(data)):
                return
        self._loop.call_soon(self._read)

    def _has_more(self, size: int) -> bool:
        """Whether to read on after *size* bytes: after a full record there is more, most often."""
        if not self.is_open or self._sock is None:
            return False
        return size >= _RECORD or self._sock.pending() > 0

    def _deliver(self, found: list[tuple[int, bytes | memoryview]]) -> None:
        for kind, payload in found:
            if not self.is_open:
                return
            self.owner.on_frame(self, kind, payload)

    # ---- its end ----

    def _fail(self, word: str, reason: str) -> None:
        if self.is_open:
            self.close()
            self.owner.on_ended(self, Ending(word, reason))

    def close(self) -> None:
        """Close the connection; what waits to be sent is dropped, and nobody is told."""
        self.is_open = False
        for sock in (self._plain, self._sock):
            if sock is not None:
                self._loop.remove(sock)
                with suppress(OSError):
                    sock.close()
