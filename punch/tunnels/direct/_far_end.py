"""The far end of a tunnel, in the carrier's process: lets the lease's near end reach one target.

Who has the lease's certificate is let in; everybody else costs a place among the strangers for a
few seconds. A connection is told READY, and waits there for what it is for: pings, bytes that
measure, or a program's, for which the target is connected to when it is used and not before: an
RPC server serves one client at a time.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from ...network import site_of
from .._framing import BYE, FAILED, FILL, OPEN, PING, PONG, READY, TAKEN, WATCH
from .._silence import Silence
from ._channel import Channel, Ending
from ._loop import READ, WRITE, Loop
from ._pair import Pair, Unmetered
from ._sockets import LOOPBACK, accepted, connect_to, listen_at
from ._strangers import Strangers

MAX_CONNECTIONS: Final = 32
"""Of the lease's near end, at a time: a dozen at load, one or two after that."""

CONNECT_SECONDS: Final = 3.0
"""For the target, on loopback: it answers at once, or its backlog is full."""

TICK_SECONDS: Final = 0.25

SILENCE_SECONDS: Final = 5.0
"""After that the near end is gone, which says something each half second, and what it had open is
closed, so that the target is free again."""

_ANSWERS_BYTES: Final = 64 << 10  # With more of them unread, nothing is read of who asks.
_TAKEN_STEP: Final = 64 << 10  # Bytes of `FILL` after which it is told how many have come.


class FarEnd:
    """Listens for the lease's near end.

    Args:
      loop: The loop.
      context: TLS with the lease's certificates.
      expected: The near end's certificate, as DER.
      hosts: IP addresses to listen at.
      ports: Ports to try, in order; 0 for any.
      target: The port on loopback that it leads to.
      is_allowed: Whether a port may be connected to now.
      tell: Tells the parent of something.

    Raises:
      OSError: if it cannot listen.

    """

    def __init__(
        self,
        loop: Loop,
        *,
        context: ssl.SSLContext,
        expected: bytes,
        hosts: Sequence[str],
        ports: Sequence[int],
        target: int,
        is_allowed: Callable[[int], bool],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self._loop = loop
        self._context = context
        self._expected = expected
        self._target = target
        self._is_allowed = is_allowed
        self._tell = tell
        self._strangers = Strangers()
        self._idle: set[Channel] = set()
        self._watches: set[Channel] = set()
        self._fills: dict[Channel, int] = {}
        self._connecting: dict[Channel, socket.socket] = {}
        self._pairs: dict[Pair, Channel] = {}
        self.silence = Silence(loop.now, step=TICK_SECONDS)
        self._is_open = True
        self._listeners: list[socket.socket] = []
        try:
            for host in hosts:
                # One port for all, so that a firewall has one to open.
                chosen = [each.getsockname()[1] for each in self._listeners[:1]] or ports
                self._listeners.append(listen_at(host, chosen))
        except OSError:
            self.close()
            raise
        for each in self._listeners:
            loop.add(each, READ, partial(self._accept, each))
        loop.call_at(loop.now + TICK_SECONDS, self._tick)

    @property
    def places(self) -> list[tuple[str, int]]:
        """Host and port of each listener."""
        return [each.getsockname()[:2] for each in self._listeners]

    @property
    def _connections(self) -> int:
        known = (self._idle, self._watches, self._fills, self._connecting, self._pairs)
        return sum(map(len, known))

    # ---- strangers ----

    def _accept(self, listener: socket.socket, mask: int) -> None:
        del mask
        for sock, host in accepted(self._loop, listener):
            site = site_of(host)
            self._strangers.make_room(site)
            channel = Channel(
                self._loop,
                sock,
                context=self._context,
                expected=self._expected,
                is_server=True,
                owner=self,
            )
            self._strangers.add(channel, site, self._loop.now)

    # ---- the near end's connections ----

    def on_secure(self, channel: Channel) -> None:
        """Let in who has the certificate."""
        self._strangers.know(channel)
        if self._connections >= MAX_CONNECTIONS:
            channel.send(BYE, b"there are too many connections of this lease")
            channel.close()
            return
        self._idle.add(channel)
        self.silence.heard()
        channel.send(READY)

    def on_frame(self, channel: Channel, kind: int, payload: bytes | memoryview) -> None:
        """Do what a connection is for."""
        self.silence.heard()
        if kind == OPEN and channel in self._idle:
            self._idle.discard(channel)
            self._open(channel)
        elif kind == WATCH and channel in self._idle:
            self._idle.discard(channel)
            self._watches.add(channel)
            channel.watch_closely()
        elif kind == PING:
            self._answer(channel, PONG, payload)
        elif kind == FILL:
            self._idle.discard(channel)
            before = self._fills.get(channel, 0)
            taken = self._fills[channel] = before + len(payload)
            if taken // _TAKEN_STEP > before // _TAKEN_STEP:
                self._answer(channel, TAKEN, taken.to_bytes(8, "big"))

    def _answer(self, channel: Channel, kind: int, payload: bytes | memoryview) -> None:
        channel.send(kind, payload)
        if channel.queued >= _ANSWERS_BYTES:
            channel.pause()

    def on_drained(self, channel: Channel) -> None:
        """Read again of who reads what it is answered."""
        if channel.queued < _ANSWERS_BYTES and channel not in self._connecting:
            channel.resume()

    def on_ended(self, channel: Channel, ending: Ending) -> None:
        """Forget a connection that ended by itself."""
        if self._strangers.refuse(channel):
            return
        self._idle.discard(channel)
        self._fills.pop(channel, None)
        if (sock := self._connecting.pop(channel, None)) is not None:
            self._drop(sock)
        if channel in self._watches:
            self._watches.discard(channel)
            if not self._watches:
                self._let_go(f"the near end is gone: {ending.reason}")

    def _open(self, channel: Channel) -> None:
        if not self._is_allowed(self._target):
            self._tell({"event": "forbidden", "port": self._target})
            self._turn_away(channel, "the target is not allowed any more")
            return
        try:
            sock = connect_to(LOOPBACK, self._target)
        except OSError as error:
            self._turn_away(channel, f"the target cannot be reached: {error.strerror}")
            return
        # What comes meanwhile waits in the kernel.
        channel.pause()
        self._connecting[channel] = sock
        timer = self._loop.call_at(
            self._loop.now + CONNECT_SECONDS,
            lambda: self._opened(channel, sock, "the target does not accept the connection"),
        )

        def ready(mask: int) -> None:
            del mask
            timer.cancel()
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._opened(channel, sock, error and f"the target cannot be reached: errno {error}")

        self._loop.add(sock, WRITE, ready)

    def _opened(self, channel: Channel, sock: socket.socket, trouble: str | int) -> None:
        if self._connecting.pop(channel, None) is None:
            return
        self._loop.remove(sock)
        if trouble:
            self._drop(sock)
            self._turn_away(channel, str(trouble))
            return
        pair = Pair(self._loop, sock, channel, meter=_Heard(self.silence), over=self._over)
        self._pairs[pair] = channel
        pair.start()

    def _turn_away(self, channel: Channel, why: str) -> None:
        channel.send(FAILED, why.encode()[:256])
        channel.close()

    def _over(self, pair: Pair, why: str | None) -> None:
        del why
        self._pairs.pop(pair, None)

    def _drop(self, sock: socket.socket) -> None:
        self._loop.remove(sock)
        with suppress(OSError):
            sock.close()

    # ---- now and then ----

    def _tick(self) -> None:
        if not self._is_open:
            return
        now = self._loop.now
        self._loop.call_at(now + TICK_SECONDS, self._tick)
        if self.silence.look(now) >= SILENCE_SECONDS and self._connections:
            self._let_go(f"the near end said nothing for {SILENCE_SECONDS:g} s")
        if refused := self._strangers.look(now):
            self._tell({"event": "refused", "hosts": refused})

    def _let_go(self, why: str) -> None:
        """Close what the near end had open; it may come back while the lease lasts."""
        self._tell({"event": "gone", "reason": why})
        self._close_connections(why)

    def _close_connections(self, why: str) -> None:
        for pair in list(self._pairs):
            pair.break_off(why)
        for channel, sock in list(self._connecting.items()):
            self._drop(sock)
            channel.close()
        for channel in (*self._idle, *self._watches, *self._fills):
            channel.close()
        for known in (self._idle, self._watches, self._fills, self._connecting):
            known.clear()

    def close(self) -> None:
        """Close all connections and the listeners, at once; the near end is told."""
        self._is_open = False
        for listener in self._listeners:
            self._loop.remove(listener)
            listener.close()
        for channel in self._watches:
            channel.send(BYE, b"the other side has ended the lease")
        self._close_connections("the lease has ended")
        self._strangers.close()


class _Heard(Unmetered):
    """Has the far end know that a connection moves: under load its pings may be late."""

    def __init__(self, silence: Silence) -> None:
        self._silence = silence

    def down(self, data: bytes | memoryview, now: float) -> None:
        """Note it."""
        del data, now
        self._silence.heard()
