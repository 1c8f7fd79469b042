"""Carries the bytes of one connection between Yamux and its socket, sealed by Noise.

libp2p does this in seven layers, each of which waits for the next one: a message takes two locks,
three cancel scopes and two turns of all other tasks on its way out, and is read in four parts. Here
all that is there is read at once, and a message that the system takes at once goes out without any
wait. What it does not take stays here, so that no cancel ever loses half a record.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from .defects import _swarm as defects

READ_BYTES = 64 << 10
"""Most bytes that one read of the socket gives: about as many as a record of Noise can have."""

MAX_PLAIN_BYTES = 65_535 - 16
"""Most bytes in one record of Noise, which has a tag of 16 bytes (Noise, section 3)."""

_LENGTH = 2


class SealedPipe:
    """Both directions of a connection over TCP whose handshake of Noise is over.

    Args:
      secured: libp2p's own connection, which is not read or written any more.
      nursery: Where what the system did not take at once is sent; it ends with the connection.

    """

    def __init__(self, secured: Any, nursery: trio.Nursery) -> None:
        self.error: OSError | None = None
        """Why nothing can be sent any more."""
        self.unsent = bytearray()
        """What was put and the system has not taken, sealed."""
        self.puts = 0
        """How often something was put since the system had taken all that there was then."""
        stream = secured.conn.read_writer.read_write_closer.stream
        self._noise = secured.conn.noise_state
        self._socket = stream.stream.socket
        # Trio's own send gives all other tasks a turn, even where the system takes everything.
        self._raw = self._socket._sock
        # What came together with the end of the handshake.
        self._received = bytearray(stream.__dict__.get("_rest", b""))
        self._opened: bytes = secured._drain(None)
        self._nursery = nursery
        # Bytes, sealed: put, taken by the system, and put when `puts` was last 0.
        self._put = self._taken = self._mark = 0
        self._progress = trio.Event()
        self._is_emptying = False

    async def receive(self) -> bytes:
        """The next bytes, as many as are there; ``b""`` at the end.

        Raises:
          Exception: of Noise, trio or the system, if the connection broke or was forged.

        """
        while not self._opened:
            self._opened = self._open()
            if self._opened:
                break
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._raw.recv(READ_BYTES)
            except BlockingIOError:  # Woken in vain, as happens.
                continue
            if not data:
                return b""
            self._received += data
        opened, self._opened = self._opened, b""
        return opened

    def _open(self) -> bytes:
        """What is in the whole records that have arrived."""
        received, start, parts = self._received, 0, []
        while (begin := start + _LENGTH) <= len(received):
            end = begin + int.from_bytes(received[start:begin], "big")
            if end > len(received):
                break
            parts.append(self._noise.decrypt(bytes(received[begin:end])))
            start = end
        del received[:start]
        return b"".join(parts)

    def put(self, data: bytes) -> None:
        """Send *data*: now, as far as the system takes it, and the rest as soon as it does."""
        for start in range(0, len(data), MAX_PLAIN_BYTES):
            record = self._noise.encrypt(data[start : start + MAX_PLAIN_BYTES])
            self.unsent += len(record).to_bytes(_LENGTH, "big") + record
            self._put += _LENGTH + len(record)
        self.puts += 1
        if not self._is_emptying:
            self._send()
            if self.unsent and self.error is None:
                # Where the connection has ended, whoever waits in `sent` sends the rest.
                with suppress(RuntimeError):
                    self._nursery.start_soon(self._empty_to_the_end)
                    self._is_emptying = True

    async def sent(self) -> None:
        """Wait until all that was put so far is sent, whatever is put meanwhile.

        Raises:
          OSError: if the connection ended, or the peer reads nothing for 10 s.

        """
        mine = self._put
        while self._taken < mine and self.error is None:
            if self._is_emptying:
                await self._progress.wait()
            else:
                self._is_emptying = True
                await self._empty()
        if self._taken < mine and self.error is not None:
            raise self.error

    def _send(self) -> None:
        try:
            sent = self._raw.send(self.unsent)
        except BlockingIOError:
            return
        except OSError as error:
            # What the peer said before can still be read, and then its reader finds the end.
            self.error = error
            return
        del self.unsent[:sent]
        self._taken += sent
        if self._taken >= self._mark:
            self.puts, self._mark = 0, self._put

    async def _empty_to_the_end(self) -> None:
        # A program that is cancelled still says its last words; a closed socket ends this, or 10 s.
        with trio.CancelScope(shield=True):
            await self._empty()

    async def _empty(self) -> None:
        """Send what is left, for as long as there is progress."""
        try:
            while self.unsent and self.error is None and self._socket.fileno() >= 0:
                with trio.move_on_after(defects.STALL_SECONDS) as patience:
                    await trio.lowlevel.wait_writable(self._socket)
                if patience.cancelled_caught:
                    self.error = OSError(
                        f"the peer reads nothing since {defects.STALL_SECONDS:g} s"
                    )
                    self._nursery.cancel_scope.cancel()
                else:
                    self._send()
                    self._tell()
        except trio.ClosedResourceError:
            pass
        finally:
            if self.unsent and self.error is None:
                self.error = OSError("the connection is closed")
            self._is_emptying = False
            self._tell()

    def _tell(self) -> None:
        """Wake who waits in `sent`."""
        progress, self._progress = self._progress, trio.Event()
        progress.set()
