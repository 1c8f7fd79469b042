"""The near end of a tunnel, in the carrier's process: a port on loopback that leads to the target.

It keeps a few connections ready, since a split is loaded through a dozen short ones, one after the
other, and a handshake costs two round trips. One more connection carries pings alone: the far end
that is not heard, on it or on any other, is gone, whatever the kernels say of the connections. The
kernel of a process that is stopped answers.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from .._counting import Counting, Meter
from .._framing import BYE, FAILED, OPEN, PING, PONG, READY, WATCH, words
from .._silence import Silence
from ._channel import Channel, Ending
from ._far_end import MAX_CONNECTIONS, TICK_SECONDS
from ._loop import READ, Loop
from ._measuring import PATIENCE_SECONDS, Measuring
from ._pair import Pair
from ._sockets import LOOPBACK, accepted, connect_to, listen_at

READY_CONNECTIONS: Final = 6
"""Kept ready. A dozen come at load, each after the last one ended, and each that is used is made up
for at once."""

OPEN_SECONDS: Final = 5.0
"""For the first connection: after that the far end is not reached."""

WAIT_SECONDS: Final = 3.0
"""For a program whose connection finds none ready."""

PING_SECONDS: Final = 0.5

SILENCE_SECONDS: Final = 2.75
"""After that, nothing heard, the far end is lost. With the pings that is between 2.25 and 3.25 s
after the cable was cut."""

# After a connection could not be opened, before the next one is tried.
_PAUSE_SECONDS: Final = 0.5

MAX_ADDRESSES: Final = 8


class NearEnd:
    """Carries what connects to a port on loopback.

    Args:
      loop: The loop.
      context: TLS with the lease's certificates.
      expected: The far end's certificate, as DER.
      addresses: Where the far end may be, as IP addresses and ports; all are tried at once.
      frames: Whether llama.cpp's RPC is read along.
      listen: Ports of loopback to try, in order; 0 for any.
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
        addresses: Sequence[tuple[str, int]],
        frames: bool,
        listen: Sequence[int],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self._loop = loop
        self._context = context
        self._expected = expected
        self._tell = tell
        self._is_open = True
        self._is_lost = False
        # Of each channel that is not in use yet: where it goes, and when it is given up.
        self._opening: dict[Channel, tuple[str, int]] = {}
        self._watch: Channel | None = None
        self._place: tuple[str, int] | None = None
        self._ready: deque[Channel] = deque()
        self._waiting: deque[tuple[socket.socket, float]] = deque()
        self._pairs: dict[Pair, Meter] = {}
        self._measuring: list[Measuring] = []
        self._asked: deque[tuple[Callable[[tuple[float, float] | str], None], float]] = deque()
        self._pause_until = 0.0
        self._silence = Silence(loop.now, step=TICK_SECONDS)
        self._counting = Counting(self._silence, frames=frames)
        self._ping_at = 0.0
        self._trouble = Ending("unreachable", "no address of the other side was given")
        self._listener = listen_at(LOOPBACK, listen)
        self._give_up_at = loop.now + OPEN_SECONDS
        for place in addresses[:MAX_ADDRESSES]:
            self._connect(place)
        loop.call_at(loop.now, self._tick)

    @property
    def port(self) -> int:
        """The port on loopback."""
        return int(self._listener.getsockname()[1])

    # ---- connections to the far end ----

    def _connect(self, place: tuple[str, int]) -> None:
        try:
            sock = connect_to(*place)
        except OSError as error:
            self._trouble = Ending("unreachable", f"{place[0]} port {place[1]}: {error.strerror}")
            self._pause_until = self._loop.now + _PAUSE_SECONDS
            return
        channel = Channel(
            self._loop,
            sock,
            context=self._context,
            expected=self._expected,
            is_server=False,
            owner=self,
        )
        self._opening[channel] = place

    def on_secure(self, channel: Channel) -> None:
        """Wait for the far end's word: in TLS 1.3 a client is done before it was judged."""

    def on_frame(self, channel: Channel, kind: int, payload: bytes | memoryview) -> None:
        """Take what the far end says on a connection that no program uses."""
        self._silence.heard()
        if kind == READY and channel in self._opening:
            self._is_ready(channel)
        elif kind in (BYE, FAILED):
            channel.close()
            self.on_ended(channel, Ending("ended", words(payload)))
        elif kind == PONG:
            pass  # That it came is what counts.

    def _is_ready(self, channel: Channel) -> None:
        place = self._opening.pop(channel)
        if self._watch is None:
            self._watch, self._place = channel, place
            channel.watch_closely()
            channel.send(WATCH)
            for other in self._opening:
                other.close()
            self._opening.clear()
            self._loop.add(self._listener, READ, self._accept)
            self._tell({"event": "opened", "port": self.port, "place": place})
        else:
            self._ready.append(channel)
        self._settle()

    def on_drained(self, channel: Channel) -> None:
        """Nothing of it waits for room."""

    def on_ended(self, channel: Channel, ending: Ending) -> None:
        """Make up for a connection that ended, or give the far end up."""
        if channel is self._watch:
            self._lose(ending)
        elif channel in self._opening:
            host, port = self._opening.pop(channel)
            word = "refused" if channel.is_secure else ending.word
            reason = f"{host} port {port} {ending.reason}"
            if word == "refused":
                reason = f"{host} port {port} does not accept this side's certificate"
            # What a lease is refused for says more than that another address is not reached.
            if word in ("refused", "certificate") or self._trouble.word == "unreachable":
                self._trouble = Ending(word, reason)
            self._pause_until = self._loop.now + _PAUSE_SECONDS
            if self._watch is None and not self._opening:
                self._lose(self._trouble)
        else:
            with suppress(ValueError):
                self._ready.remove(channel)
            self._settle()

    def _settle(self) -> None:
        """Give ready connections to who waits for them, and open as many more as are to be."""
        while self._ready and (self._waiting or self._asked):
            channel = self._ready.popleft()
            if self._waiting:
                self._use(channel, self._waiting.popleft()[0])
            else:
                self._measuring.append(Measuring(self._loop, channel, self._asked.popleft()[0]))
        if self._place is None or self._loop.now < self._pause_until:
            return
        wanted = READY_CONNECTIONS + len(self._waiting) + len(self._asked)
        used = len(self._pairs) + len(self._measuring) + 1
        for _ in range(min(wanted, MAX_CONNECTIONS - used) - len(self._ready) - len(self._opening)):
            self._connect(self._place)

    # ---- connections of programs ----

    def _accept(self, mask: int) -> None:
        del mask
        for sock, _ in accepted(self._loop, self._listener):
            self._counting.total += 1
            self._waiting.append((sock, self._loop.now + WAIT_SECONDS))
        self._settle()

    def _use(self, channel: Channel, sock: socket.socket) -> None:
        channel.send(OPEN)
        meter = self._counting.begin()
        pair = Pair(self._loop, sock, channel, meter=meter, over=self._over)
        self._pairs[pair] = meter
        if not channel.is_open:
            pair.break_off("the connection ended")

    def _over(self, pair: Pair, why: str | None) -> None:
        if (meter := self._pairs.pop(pair, None)) is not None:
            meter.close()
        if why is not None and self._is_open:
            self._tell({"event": "broken", "reason": why})
        if self._is_open:
            self._settle()

    def measure(self, done: Callable[[tuple[float, float] | str], None]) -> None:
        """Measure what the tunnel costs; *done* is called once."""

        def over(found: tuple[float, float] | str) -> None:
            self._measuring = [each for each in self._measuring if not each.is_over]
            done(found)

        self._asked.append((over, self._loop.now + PATIENCE_SECONDS))
        self._settle()

    # ---- now and then ----

    def _tick(self) -> None:
        if not self._is_open:
            return
        now = self._loop.now
        self._loop.call_at(now + TICK_SECONDS, self._tick)
        silent = self._silence.look(now)
        while self._waiting and self._waiting[0][1] <= now:
            self._waiting.popleft()[0].close()
        while self._asked and self._asked[0][1] <= now:
            self._asked.popleft()[0](f"no connection was to be had for {PATIENCE_SECONDS:g} s")
        if self._watch is None:
            if not self._opening:
                self._lose(self._trouble)
            elif now >= self._give_up_at:
                where = ", ".join(f"{host} port {port}" for host, port in self._opening.values())
                reason = f"{where}: nothing answers within {OPEN_SECONDS:g} s"
                self._lose(Ending("unreachable", reason))
            return
        if now >= self._ping_at:
            self._ping_at = now + PING_SECONDS
            self._watch.send(PING, bytes(8))
        if silent >= SILENCE_SECONDS:
            self._lose(Ending("silent", f"the other side said nothing for {SILENCE_SECONDS:g} s"))
            return
        self._settle()
        self._tell_counts()

    def _tell_counts(self) -> None:
        if (news := self._counting.news(self._loop.clock())) is not None:
            self._tell({"event": "counts", **news})

    # ---- its end ----

    def _lose(self, ending: Ending) -> None:
        if self._is_open and not self._is_lost:
            self._is_lost = True
            if self._watch is not None:
                self._tell_counts()
            self.close()
            self._tell({"event": "lost", "word": ending.word, "reason": ending.reason})

    def close(self) -> None:
        """Close all connections and the port, at once."""
        self._is_open = False
        self._loop.remove(self._listener)
        self._listener.close()
        for pair in list(self._pairs):
            pair.break_off("the tunnel was closed")
        for measuring in list(self._measuring):
            measuring.close()
        while self._asked:
            self._asked.popleft()[0]("the tunnel was closed")
        while self._waiting:
            self._waiting.popleft()[0].close()
        for channel in (*self._opening, *self._ready, *([self._watch] if self._watch else ())):
            channel.close()
        self._opening.clear()
        self._ready.clear()
