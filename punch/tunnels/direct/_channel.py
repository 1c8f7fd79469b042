"""A TLS connection between the ends of a tunnel: its handshake, its frames, and what waits to go.

Whom the connection belongs to and what its frames mean is decided by its owner: `_far_end`,
`_near_end`, or a `_pair` once a program's connection goes through it.

TLS reads and writes memory here, and the sockets are read and written in pieces of `READ_BYTES`:
OpenSSL itself asks the kernel twice for each record that it reads, and once for each of 16 KiB that
it writes. What waits in memory makes no socket readable, so all of it is decrypted at once, or when
there is room for it again.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections import deque
from contextlib import suppress
from typing import Any, Final, Protocol

from ...exceptions import RemoteProtocolError
from .._framing import HEAD_BYTES, MAX_PAYLOAD, TunnelFrames, frame
from ._loop import READ, WRITE, Loop
from ._sockets import watch_closely

MAX_QUEUED_BYTES: Final = 1 << 20
"""What a direction of a connection holds at most, apart from the kernel's buffers."""

# What a record of TLS brings at most.
_RECORD_BYTES: Final = 16 << 10

# What is read at a time: a full frame of a program's bytes, with what TLS adds to it.
_READ_BYTES: Final = MAX_PAYLOAD + HEAD_BYTES + 256

ROOM_BYTES: Final = MAX_QUEUED_BYTES - 2 * _READ_BYTES
"""With less in a queue, another read still fits, and what TLS holds of the one before."""

# What a piece that waits takes beside its bytes. The other side decides how small pieces are.
_PIECE_BYTES: Final = 256


class Queue:
    """What waits to be sent on one socket, oldest first.

    Args:
      sock: The socket, which never blocks.

    """

    def __init__(self, sock: socket.socket) -> None:
        self._send = sock.send
        self._pieces: deque[bytes | memoryview] = deque()
        self.size = 0
        """Bytes that wait."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read for it."""
        return self.size + _PIECE_BYTES * len(self._pieces) >= ROOM_BYTES

    def put(self, data: bytes | memoryview) -> None:
        """Send *data* after all else, at once if it can be; what cannot is copied.

        Raises:
          OSError: if the connection is gone.

        """
        if not self._pieces:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self._pieces.append(bytes(data))
        self.size += len(data)

    def drain(self) -> None:
        """Send what can be sent now; raises as `put`."""
        while self._pieces:
            data = self._pieces[0]
            try:
                sent = self._send(data)
            except BlockingIOError:
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
        """Tell of a frame; its *payload* is gone when this returns."""

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
        self._expected = expected
        self._sock = sock
        # What came and is still encrypted, and what is encrypted and was not sent.
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=is_server)
        self._queue = Queue(sock)
        self._frames = TunnelFrames()
        # Frames that came together with the one at which it was paused.
        self._kept: list[tuple[int, bytes | memoryview]] = []
        self._is_paused = False
        sock.setblocking(False)
        loop.add(sock, READ if is_server else WRITE, self._connected)

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._queue.size

    # ---- until it is secure ----

    def _connected(self, mask: int) -> None:
        """Begin the handshake: a client is connected, or a server's first bytes are here."""
        if error := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail("unreachable", f"cannot be connected to: {os.strerror(error)}")
            return
        self._loop.remove(self._sock)
        self._loop.add(self._sock, READ, self._ready)
        if mask & READ:
            self._read()
        else:
            self._shake()

    def _shake(self) -> None:
        """Go on with the handshake, as far as what came allows it."""
        trouble: ssl.SSLError | None = None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            trouble = error
        self._flush()  # Where it failed, the other side is told what of it.
        if isinstance(trouble, ssl.SSLCertVerificationError) or (
            trouble is None and self._tls.getpeercert(binary_form=True) != self._expected
        ):
            self._fail("certificate", "the other side shows another certificate than the lease's")
        elif trouble is not None:
            self._fail("handshake", f"the handshake failed: {trouble}")
        elif self.is_open:
            self.is_secure = True
            self.owner.on_secure(self)

    def watch_closely(self) -> None:
        """Have the kernel notice soon that the other machine is gone; see `_sockets`."""
        watch_closely(self._sock)

    # ---- frames ----

    def send(self, kind: int, payload: bytes | memoryview = b"") -> None:
        """Send a frame, or keep it until it can be sent; nothing once the connection has ended."""
        self.send_framed(frame(kind, payload))

    def send_framed(self, data: bytes | memoryview) -> None:
        """As `send`, of a frame that is made already."""
        if self.is_open:
            self._tls.write(data)
            self._flush()

    def _flush(self) -> None:
        """Send what TLS has written."""
        if self._outgoing.pending:
            try:
                self._queue.put(self._outgoing.read())
            except OSError as error:
                self._fail("ended", f"the connection ended: {error}")
                return
            if self._queue.size:
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
            self._loop.call_soon(self._decrypt)

    def _listen(self) -> None:
        if self.is_open:
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
            if self.is_secure:
                self.owner.on_drained(self)
        if mask & READ and self.is_open and not self._is_paused:
            self._read()

    def _read(self) -> None:
        if self.is_secure and (self._kept or self._incoming.pending):
            self._decrypt()  # What was kept when it was paused comes before all else.
            if self._is_paused or not self.is_open:
                return
        room = self._loop.room
        try:
            size = self._sock.recv_into(room, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail("ended", f"the connection ended: {error}")
            return
        if not size:
            self._fail("ended", "the connection ended")
            return
        self._incoming.write(room[:size])
        if not self.is_secure:
            self._shake()
        if self.is_secure:
            self._decrypt()

    def _decrypt(self) -> None:
        """Give out what has come, unless there is no room for it."""
        if self._kept and not self._is_paused:
            found, self._kept = self._kept, []
            self._deliver(found)
        room, trouble = self._loop.room, None
        while self._incoming.pending and self.is_open and not self._is_paused and not trouble:
            size = 0
            try:
                # Several records are passed on as one.
                while self._incoming.pending and size <= len(room) - _RECORD_BYTES:
                    got: Any = self._tls.read(_RECORD_BYTES, room[size:])
                    if not got:
                        # TLS was ended; what came behind that is never read, and stays pending.
                        trouble = OSError("the other side has closed it")
                        break
                    size += got  # As many bytes, since it was given where to put them.
            except ssl.SSLWantReadError:
                pass  # The last one is not whole.
            except OSError as error:
                trouble = error
            try:
                found = self._frames.feed(room[:size])
            except RemoteProtocolError as error:
                self._fail("protocol", str(error))
                return
            self._deliver(found)
        if trouble is not None:
            self._fail("ended", f"the connection ended: {trouble}")

    def _deliver(self, found: list[tuple[int, bytes | memoryview]]) -> None:
        for at, (kind, payload) in enumerate(found):
            if not self.is_open:
                return
            if self._is_paused:
                self._kept = [(kind, bytes(payload)) for kind, payload in found[at:]]
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
        self._loop.remove(self._sock)
        with suppress(OSError):
            self._sock.close()
