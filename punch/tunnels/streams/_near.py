"""The near end of a tunnel over streams of the node: for where no direct connection is possible.

The same interface as `NearEnd` of TLS connections. It costs a quarter of a split's speed on a LAN,
and nothing that is seen over a link of milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from ..._background import open_background
from ..._logs import get_logger
from ...capability import PeerId
from ...exceptions import (
    AddressUnavailable,
    NetworkError,
    NotPermitted,
    PeerError,
    PeerUnreachable,
    RemoteProtocolError,
)
from ...network import Node
from .._counting import Counting
from .._framing import FILL, OPEN, PING, PONG, TAKEN, WATCH
from .._silence import Silence
from .._values import Measured, TunnelStatistics
from ._door import open_tunnel_stream
from ._messages import TunnelOpening
from ._relay import FramedStream, Relay

log = get_logger(__name__)

READY_STREAMS: Final = 3
"""Kept ready: a split is loaded through a dozen short connections, one after the other."""

MAX_CONNECTIONS: Final = 24
WAIT_SECONDS: Final = 5.0
PING_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.25
SILENCE_SECONDS: Final = 2.75
_PAUSE_SECONDS: Final = 0.5

_PINGS: Final = 8
_FILL_SECONDS: Final = 0.4
_PIECE: Final = bytes((32 << 10) - 4)
# Beyond what the other side has said to have, so that a stream is never full for long.
_FILL_AHEAD_BYTES: Final = 512 << 10
_PATIENCE_SECONDS: Final = 8.0


class NearStreams:
    """A port of loopback that leads to the other side's. Made by `open_near_stream`."""

    def __init__(
        self,
        node: Node,
        peer_id: PeerId,
        addresses: tuple[str, ...],
        opening: TunnelOpening,
        *,
        frames: bool,
        listener: trio.SocketListener,
    ) -> None:
        self.port = int(listener.socket.getsockname()[1])
        """Port on 127.0.0.1 that programs of this machine connect to."""
        self.lost = trio.Event()
        """Set when the tunnel carries nothing any more and was not closed here."""
        self.why: str | None = None
        """Why it is lost, in a sentence; `None` until then."""
        self._node = node
        self._peer_id = peer_id
        self._addresses = addresses
        self._opening = opening
        self._listener = listener
        self._silence = Silence(trio.current_time(), step=LOOK_SECONDS)
        self._counting = Counting(self._silence, frames=frames)
        self._ready: deque[FramedStream] = deque()
        self._wanted = trio.Event()
        self._refilled = trio.Event()
        self._is_open = True
        self._running = trio.CancelScope()

    def statistics(self) -> TunnelStatistics:
        """What went through until now."""
        return TunnelStatistics(**self._counting.values(trio.current_time()))

    def close(self) -> None:
        """Close it with all its connections, at once; does not wait until that is done."""
        self._is_open = False
        self._running.cancel()

    async def aclose(self) -> None:
        """Close it with all its connections."""
        self.close()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()

    # ---- streams ----

    async def first(self) -> FramedStream:
        """The stream that carries pings; raises what `open_near_stream` does."""
        return await self._ask()

    async def _ask(self) -> FramedStream:
        stream, outcome = await open_tunnel_stream(
            self._node, self._peer_id, self._addresses, self._opening
        )
        if outcome.refused:
            await stream.aclose()
            error = NotPermitted(outcome.reason)
            error.rule = outcome.refused
            raise error
        return FramedStream(stream)

    async def run(self, watch: FramedStream) -> None:
        """Carry connections until it is closed or lost."""
        try:
            with self._running:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear, watch)
                    nursery.start_soon(self._ping, watch)
                    nursery.start_soon(self._refill)
                    nursery.start_soon(self._accept, nursery)
        finally:
            with trio.CancelScope(shield=True):
                await self._listener.aclose()
                for each in (watch, *self._ready):
                    await each.stream.aclose()

    def _lose(self, why: str) -> None:
        if self._is_open:
            self.why = why
            self.close()
            self.lost.set()

    async def _hear(self, watch: FramedStream) -> None:
        with suppress(RemoteProtocolError):
            while await watch.receive():
                self._silence.heard()
        self._lose("the other side has ended the tunnel, or its connection was lost")

    async def _ping(self, watch: FramedStream) -> None:
        try:
            await watch.send(WATCH)
            last = -PING_SECONDS
            while True:
                now = trio.current_time()
                if now - last >= PING_SECONDS:
                    last = now
                    await watch.send(PING, bytes(8))
                if self._silence.look(now) >= SILENCE_SECONDS:
                    self._lose(f"the other side said nothing for {SILENCE_SECONDS:g} s")
                await trio.sleep(LOOK_SECONDS)
        except PeerUnreachable as error:
            self._lose(str(error))

    async def _refill(self) -> None:
        while True:
            while len(self._ready) < READY_STREAMS:
                try:
                    self._ready.append(await self._ask())
                except (PeerError, RemoteProtocolError, NotPermitted) as error:
                    log.debug("no stream for a tunnel", peer=self._peer_id, why=str(error))
                    await trio.sleep(_PAUSE_SECONDS)
                else:
                    self._signal()
            wanted = self._wanted
            await wanted.wait()

    def _signal(self) -> None:
        event, self._refilled = self._refilled, trio.Event()
        event.set()

    async def _take(self) -> FramedStream | None:
        """A stream that is ready; `None` if there is none for too long."""
        with trio.move_on_after(WAIT_SECONDS):
            while not self._ready:
                await self._refilled.wait()
            found = self._ready.popleft()
            event, self._wanted = self._wanted, trio.Event()
            event.set()
            return found
        return None

    # ---- connections of programs ----

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                plain = await self._listener.accept()
            except OSError:
                await trio.sleep(_PAUSE_SECONDS)
                continue
            self._counting.total += 1
            if len(nursery.child_tasks) > MAX_CONNECTIONS:
                await trio.aclose_forcefully(plain)
                continue
            nursery.start_soon(self._carry, plain)

    async def _carry(self, plain: trio.SocketStream) -> None:
        framed = await self._take()
        if framed is None:
            await trio.aclose_forcefully(plain)
            return
        meter = self._counting.begin()
        try:
            with suppress(PeerUnreachable):
                await framed.send(OPEN)
            why = await Relay(plain, framed, meter=meter).run()
            if why is not None:
                log.debug("a connection of a tunnel broke off", peer=self._peer_id, why=why)
        finally:
            meter.close()
            with trio.CancelScope(shield=True):
                await framed.stream.aclose()

    # ---- what it costs ----

    async def measure(self) -> Measured:
        """What the tunnel costs, measured through it in half a second.

        Raises:
          NetworkError: if nothing could be measured.

        """
        framed = await self._take() if self._is_open else None
        if framed is None:
            raise NetworkError(f"the tunnel is closed: {self.why or 'no stream is ready'}")
        try:
            with trio.fail_after(_PATIENCE_SECONDS):
                rtt = await _round_trip(framed)
                return Measured(rtt=rtt, rate=await _rate(framed), carrier="stream")
        except (PeerUnreachable, RemoteProtocolError, trio.TooSlowError) as error:
            raise NetworkError(f"the tunnel was not measured: {error}") from None
        finally:
            with trio.CancelScope(shield=True):
                await framed.stream.aclose()


async def _round_trip(framed: FramedStream) -> float:
    found = []
    for _ in range(_PINGS):
        began = trio.current_time()
        await framed.send(PING, bytes(8))
        while PONG not in [kind for kind, _ in await _some(framed)]:
            pass
        found.append(trio.current_time() - began)
    return min(found)


async def _rate(framed: FramedStream) -> float:
    """Bytes a second, over the last part of a time in which the stream was kept full."""
    began = trio.current_time()
    points = [(began, 0)]
    sent = 0
    while True:
        taken = points[-1][1]
        is_over = trio.current_time() - began >= _FILL_SECONDS
        if is_over and len(points) > 1:
            break
        if not is_over and sent - taken < _FILL_AHEAD_BYTES:
            await framed.send(FILL, _PIECE)
            sent += len(_PIECE)
            continue
        for kind, payload in await _some(framed):
            if kind == TAKEN and len(payload) == 8:
                count = int.from_bytes(payload, "big")
                if not points[-1][1] < count <= sent:
                    raise RemoteProtocolError(f"it says that it took {count} of {sent} bytes")
                points.append((trio.current_time(), count))
    middle = began + 0.4 * _FILL_SECONDS
    first = max((point for point in points if point[0] <= middle), default=points[0])
    last = points[-1]
    if last[0] <= first[0]:
        first = points[0]
    return (last[1] - first[1]) / max(last[0] - first[0], 1e-6)


async def _some(framed: FramedStream) -> list[tuple[int, bytes | memoryview]]:
    found = await framed.receive()
    if not found:
        raise PeerUnreachable("the stream ended", peer_id=framed.stream.peer_id)
    return found


@asynccontextmanager
async def open_near_stream(
    node: Node,
    peer_id: PeerId,
    addresses: tuple[str, ...],
    opening: TunnelOpening,
    *,
    frames: bool = False,
    listen: Sequence[int] = (0,),
) -> AsyncIterator[NearStreams]:
    """Lead a port of loopback to what *opening* asks a peer for, over streams of *node*.

    Args:
      node: The node of this process.
      peer_id: The peer.
      addresses: Where it may be dialled.
      opening: The lease or the port by its name; `wants` is ``stream``.
      frames: Whether what it carries is llama.cpp's RPC: then messages and replies are counted.
      listen: Ports of loopback to try, in order; 0 for any.

    Raises:
      NotPermitted: if the peer refuses it; `rule` has its word for why.
      PeerUnreachable: if the peer cannot be reached, or speaks no such protocol.
      PeerTimeout: if it does not answer.
      RemoteProtocolError: if it says what it should not.
      AddressUnavailable: if no port can be listened at.

    """
    listener = await _listen(listen)
    near = NearStreams(node, peer_id, addresses, opening, frames=frames, listener=listener)
    try:
        watch = await near.first()
    except BaseException:
        with trio.CancelScope(shield=True):
            await listener.aclose()
        raise
    async with open_background() as nursery:
        nursery.start_soon(near.run, watch)
        try:
            yield near
        finally:
            near.close()


async def _listen(ports: Sequence[int]) -> trio.SocketListener:
    trouble: OSError | None = None
    for port in ports:
        try:
            return (await trio.open_tcp_listeners(port, host="127.0.0.1"))[0]
        except OSError as error:
            trouble = trouble or error
    why = "no port was given" if trouble is None else trouble.strerror
    raise AddressUnavailable(f"cannot listen on loopback: {why}", is_taken=trouble is not None)
