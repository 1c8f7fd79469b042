"""A network inside one process, with faults on demand.

Simulates delay, jitter, loss, cuts and stalls on trio's clock. Not secure in any way: signatures
are hashes that any peer could make.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable
from random import Random

import trio

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import PeerUnreachable
from ..network import Handler

log = get_logger(__name__)

# What a stream holds before its writer waits: about what a kernel's socket buffers hold.
BUFFER_BYTES = 256 << 10

# How long a write waits for a reader, as with a real stream.
STALL_SECONDS = 10.0

# How much later a piece arrives if its packet was lost: what Linux waits at least before it
# sends a packet again (TCP_RTO_MIN). A stream keeps its order, so what follows waits as well.
RESEND_SECONDS = 0.2

# What one read gives at most, as with a real stream.
READ_BYTES = 64 << 10


class _Pipe:
    """A direction of a stream."""

    def __init__(self, network: MemoryNetwork, writer: PeerId, reader: PeerId) -> None:
        self._network = network
        self._ends = (writer, reader)
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._arrival = 0.0
        self._changed = trio.Event()
        self.closed = False

    def signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def close(self) -> None:
        self.closed = True
        self.signal()

    @property
    def room(self) -> int:
        return 0 if self.closed else max(0, BUFFER_BYTES - self._size)

    async def send(self, data: bytes) -> None:
        while not self.room and not self.closed:
            await self._changed.wait()
        if self.closed:
            raise PeerUnreachable("the connection was lost", peer_id=self._ends[1])
        self.put(data)
        await trio.lowlevel.checkpoint()

    def put(self, data: bytes) -> None:
        # In order: nothing arrives before what was sent before it.
        due = trio.current_time() + self._network.travel(*self._ends)
        self._arrival = max(self._arrival, due)
        self._pieces.append((self._arrival, data))
        self._size += len(data)
        self.signal()

    async def receive(self) -> bytes:
        while True:
            if self._network.is_stalled(*self._ends):
                await self._network.change()
            elif self._pieces:
                due, data = self._pieces[0]
                if due > trio.current_time():
                    await trio.sleep_until(due)
                    continue
                self._pieces.popleft()
                if len(data) > READ_BYTES:
                    self._pieces.appendleft((due, data[READ_BYTES:]))
                    data = data[:READ_BYTES]
                self._size -= len(data)
                self.signal()
                # As Yamux does: what is there is read without a turn of all other tasks.
                await trio.lowlevel.checkpoint_if_cancelled()
                return data
            elif self.closed:
                await trio.lowlevel.checkpoint()
                return b""
            else:
                await self._changed.wait()


class MemoryStream:
    """An end of a stream; implements `punch.network.Stream`."""

    def __init__(
        self, peer_id: PeerId, incoming: _Pipe, outgoing: _Pipe, *, ip: str | None = None
    ) -> None:
        self.peer_id = peer_id
        self.ip = ip
        """The address of the peer at the other end."""
        self._incoming = incoming
        self._outgoing = outgoing

    async def receive_some(self) -> bytes:
        """The next bytes; ``b""`` at the end."""
        return await self._incoming.receive()

    @property
    def room(self) -> int:
        """Bytes that `send_now` takes."""
        return self._outgoing.room

    def send_now(self, data: bytes) -> None:
        """Send *data*, which `room` allows."""
        self._outgoing.put(data)

    async def send_all(self, data: bytes) -> None:
        """Send *data*, or raise `PeerUnreachable`."""
        with trio.CancelScope(shield=True), trio.move_on_after(STALL_SECONDS) as scope:
            await self._outgoing.send(data)
        if scope.cancelled_caught:
            self.end()
            raise PeerUnreachable(f"took nothing for {STALL_SECONDS:.0f} s", peer_id=self.peer_id)

    async def aclose(self) -> None:
        """End both directions; what was sent before still arrives."""
        self.end()
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """End both directions, now."""
        self._incoming.close()
        self._outgoing.close()


class MemoryNode:
    """A peer of a `MemoryNetwork`: a `punch.network.Node`. Made by `MemoryNetwork.node`."""

    def __init__(self, network: MemoryNetwork, peer_id: PeerId, address: str) -> None:
        self.peer_id = peer_id
        self.at = address
        """Where it began."""
        self.addresses: tuple[str, ...] = (address,)
        self.on_link: tuple[str, ...] = ()
        """Link-local addresses; may be set."""
        self.ip: str | None = address.split("/")[2]
        """Where its streams come from, as the other end sees it; may be set."""
        self.moved = trio.Event()
        """Set when the peer has moved; see `MemoryNetwork.move`."""
        self.is_up = True
        self.handlers: dict[str, Handler] = {}
        self._network = network

    def handle(self, protocol: str, handler: Handler) -> None:
        """Serve inbound streams of *protocol*."""
        self.handlers[protocol] = handler

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> MemoryStream:
        """Open a stream to a peer of the same network."""
        await trio.sleep(2 * self._network.distance(self.peer_id, peer_id))
        return self._network.connect(self, peer_id, addresses, protocol)

    async def identify(self, address: str) -> PeerId:
        """The peer at *address*; raises `PeerUnreachable`."""
        await trio.sleep(self._network.delay)
        return self._network.at(address).peer_id

    def sign(self, data: bytes) -> bytes:
        """A hash in place of a signature: it proves nothing."""
        return _hash(self.peer_id, data)

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        """True if *signature* is the hash that *peer_id* would make."""
        return signature == _hash(peer_id, data)


def _hash(peer_id: PeerId, data: bytes) -> bytes:
    return hashlib.sha256(peer_id.encode() + b"\0" + data).digest()


def _check_way(node: MemoryNode, addresses: tuple[str, ...], *, is_shut: bool) -> None:
    """Raise `PeerUnreachable` unless *node* is at one of *addresses* and lets streams in."""
    places = {*node.addresses[:1], *node.on_link}
    if not places & {address.split("/p2p/")[0] for address in addresses}:
        where = ", ".join(addresses) or "no address"
        raise PeerUnreachable(f"is not at {where}", peer_id=node.peer_id)
    if is_shut:
        raise PeerUnreachable("no answer", peer_id=node.peer_id, why="no_answer")


class MemoryNetwork:
    """Peers, and the streams between them.

    Args:
      nursery: Where inbound streams are served; it outlives them.
      delay: Seconds that bytes take from one end to the other.
      jitter: Seconds by which they may take longer, drawn anew for each piece.
      loss: Share of the pieces that are lost and sent again: they arrive `RESEND_SECONDS` later.
      rng: Draws jitter and losses.

    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        loss: float = 0.0,
        rng: Random | None = None,
    ) -> None:
        self.firewalled: set[PeerId] = set()
        """Peers that let no new stream in, while what they open themselves works."""
        self.delay = delay
        self.jitter = jitter
        self.loss = loss
        self.rng = rng or Random(0)
        self._extra: dict[PeerId, float] = {}
        self._nursery = nursery
        self._nodes: dict[PeerId, MemoryNode] = {}
        self._addresses: dict[str, MemoryNode] = {}
        self._streams: list[tuple[PeerId, PeerId, MemoryStream]] = []
        self._stalled: set[PeerId] = set()
        self._changed = trio.Event()
        self._numbers = itertools.count(1)

    def node(self, name: str) -> MemoryNode:
        """A new peer; one of the same name that is down comes back at its old address."""
        peer_id = PeerId(name)
        before = self._nodes.get(peer_id)
        if before is not None:
            address = before.at
        else:
            number = next(self._numbers)
            address = f"/ip4/10.{number >> 16}.{number >> 8 & 255}.{number & 255}/tcp/1"
        node = self._nodes[peer_id] = MemoryNode(self, peer_id, address)
        self._addresses[address] = node
        return node

    def move_away(self, peer_id: PeerId, seconds: float) -> None:
        """Make bytes to and from *peer_id* take *seconds* longer than `delay`."""
        self._extra[peer_id] = seconds

    def distance(self, writer: PeerId, reader: PeerId) -> float:
        """Seconds that bytes take at least."""
        extra = self._extra
        if not extra:
            return self.delay
        return self.delay + extra.get(writer, 0.0) + extra.get(reader, 0.0)

    def travel(self, writer: PeerId, reader: PeerId) -> float:
        """Seconds that the next piece takes, its jitter and a loss included."""
        seconds = self.distance(writer, reader)
        if self.jitter:
            seconds += self.rng.uniform(0.0, self.jitter)
        while self.loss and self.rng.random() < self.loss:
            seconds += RESEND_SECONDS
        return seconds

    def at(self, address: str) -> MemoryNode:
        """The peer at *address*, or `PeerUnreachable`."""
        node = self._addresses.get(address.split("/p2p/")[0])
        if node is None or not node.is_up:
            raise PeerUnreachable(f"{address}: nobody is there", why="no_route")
        if node.peer_id in self.firewalled:
            raise PeerUnreachable(f"{address}: no answer", why="no_answer")
        return node

    def connect(
        self, dialer: MemoryNode, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> MemoryStream:
        """Both ends of a new stream; the far one goes to the peer's handler."""
        node = self._nodes.get(peer_id)
        if node is None or not node.is_up or not dialer.is_up:
            raise PeerUnreachable(f"nobody is at {', '.join(addresses)}", peer_id=peer_id)
        # Without an address: over a connection that is there, whoever has made it.
        if addresses or not self._are_connected(dialer.peer_id, peer_id):
            _check_way(node, addresses, is_shut=node.peer_id in self.firewalled)
        handler = node.handlers.get(protocol)
        if handler is None:
            raise PeerUnreachable(f"does not speak {protocol}", peer_id=peer_id)
        there = _Pipe(self, dialer.peer_id, peer_id)
        back = _Pipe(self, peer_id, dialer.peer_id)
        near = MemoryStream(peer_id, back, there, ip=node.ip)
        far = MemoryStream(dialer.peer_id, there, back, ip=dialer.ip)
        self._streams = [entry for entry in self._streams if not entry[2]._outgoing.closed]
        self._streams.append((dialer.peer_id, peer_id, near))
        self._nursery.start_soon(self._serve, handler, far)
        return near

    def _are_connected(self, one: PeerId, other: PeerId) -> bool:
        """Whether the two have a stream."""
        return any(
            {near, far} == {one, other} and not stream._outgoing.closed
            for near, far, stream in self._streams
        )

    async def _serve(self, handler: Handler, stream: MemoryStream) -> None:
        try:
            await handler(stream)
        except Exception:
            # As with a real node: a handler's bug ends its stream and nothing else.
            log.exception("a handler has a bug", peer=stream.peer_id)
        finally:
            stream.end()

    # ---- faults ----

    def cut(self, which: Callable[[PeerId, PeerId], bool] = lambda dialer, listener: True) -> int:
        """End every stream for which *which* is true, at once; returns how many."""
        chosen = [entry for entry in self._streams if which(entry[0], entry[1])]
        for _, _, stream in chosen:
            stream.end()
        return len(chosen)

    def take_down(self, peer_id: PeerId) -> None:
        """Take a peer off the network: its streams end, and no peer can reach it."""
        self._nodes[peer_id].is_up = False
        self.cut(lambda dialer, listener: peer_id in (dialer, listener))

    def move(self, peer_id: PeerId, address: str) -> None:
        """Give a peer another address: its streams end without a word, and it notices."""
        node = self._nodes[peer_id]
        del self._addresses[node.addresses[0]]
        node.addresses = (address,)
        self._addresses[address] = node
        self.cut(lambda dialer, listener: peer_id in (dialer, listener))
        moved, node.moved = node.moved, trio.Event()
        moved.set()

    def stall(self, peer_id: PeerId) -> None:
        """Stop a peer from sending and receiving, its streams open: a stopped process."""
        self._stalled.add(peer_id)

    def resume(self, peer_id: PeerId) -> None:
        """Undo `stall`."""
        self._stalled.discard(peer_id)
        self._changed.set()
        self._changed = trio.Event()

    def is_stalled(self, *peers: PeerId) -> bool:
        """True if one of *peers* is stalled."""
        return not self._stalled.isdisjoint(peers)

    async def change(self) -> None:
        """Wait until a stalled peer resumes."""
        await self._changed.wait()
