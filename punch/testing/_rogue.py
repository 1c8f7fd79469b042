"""A listener that misbehaves at its sessions, in front of a real one that advertises as ever.

A `Rogue` stands between a listener and its node. The frames of the session pass through it, and
as long as it has a manner it keeps every request for itself: the listener behind it goes on
saying that it is free. With its manner taken away it is the listener again, in the same session.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import attrs
import trio

from ..capability import PeerId
from ..exceptions import PeerUnreachable, RemoteProtocolError
from ..network import Handler, Node, Stream
from ..wire import (
    PROTOCOL,
    Cancel,
    Chunk,
    CommandRequest,
    CommandResponse,
    Credit,
    Fault,
    FrameBuffer,
    Message,
    Provenance,
    Request,
    Response,
    Started,
    decode,
    encode,
)

# Whatever a frame may say of its length: what is too long is for the listener to refuse.
MAX_ANY_FRAME_BYTES = 1 << 32

HEADER = 4

DRIP_SECONDS = 4.0


class Turn:
    """One request that a rogue keeps for itself."""

    def __init__(self, request: CommandRequest, peer_id: PeerId, stream: _RogueStream) -> None:
        self.request = request
        """What is asked."""
        self.peer_id = peer_id
        """The identity of the listener."""
        self.scope = trio.CancelScope()
        """Cancelled when the dialer cancels the request."""
        self._stream = stream

    async def say(self, message: Message) -> None:
        """Send *message* to the dialer, whether the rules of a session allow it or not."""
        with suppress(PeerUnreachable):
            await self._stream.write(encode(message))

    async def respond(self, response: CommandResponse) -> None:
        """End the request."""
        await self.say(Response(response=response))


class Manner(Protocol):
    """How a rogue answers."""

    @property
    def obeys(self) -> bool:
        """Whether it acknowledges a cancel."""
        ...

    async def answer(self, turn: Turn) -> None:
        """Do with one request whatever this manner does; cancelled when the dialer cancels it."""
        ...


@attrs.frozen(kw_only=True)
class Silent:
    """Says nothing of any request, not even that it was cancelled."""

    obeys: bool = False

    async def answer(self, turn: Turn) -> None:
        """Say nothing."""
        await trio.sleep_forever()


@attrs.frozen(kw_only=True)
class Blaming:
    """Says of every request, at once, that the caller is at fault."""

    code: str = "invalid_request"
    message: str = "temperature: must be a number"
    param: str | None = "temperature"
    obeys: bool = True

    async def answer(self, turn: Turn) -> None:
        """Blame the caller."""
        fault = Fault(code=self.code, message=self.message, param=self.param)
        request_id = turn.request.request_id
        await turn.respond(
            CommandResponse(
                request_id=request_id, status="error", executor=turn.peer_id, error=fault
            )
        )


@attrs.frozen(kw_only=True)
class Dripping:
    """Answers with one character every few seconds, for as long as the dialer listens."""

    provenance: Provenance
    """Where it says that its answers come from."""

    seconds: float = DRIP_SECONDS
    """Between two characters, and before the first one."""

    obeys: bool = True

    async def answer(self, turn: Turn) -> None:
        """Drip."""
        request_id = turn.request.request_id
        await turn.say(Started(request_id=request_id, provenance=self.provenance))
        while True:
            await trio.sleep(self.seconds)
            await turn.say(Chunk(request_id=request_id, text="x"))


class Rogue:
    """Decides how a listener behaves at its sessions. Made for one listener.

    Args:
      manner: How it behaves; `None` for as well as the listener behind it.

    """

    def __init__(self, manner: Manner | None = None) -> None:
        self.manner = manner
        """May be changed at any time; a request keeps the manner that it met."""
        self.turns = 0
        """Requests that were kept from the listener."""

    def node(self, node: Node) -> Node:
        """*node* as its listener is to have it."""
        return _RogueNode(node, self)


class _RogueNode:
    """A node whose inbound sessions pass through a rogue."""

    def __init__(self, node: Node, rogue: Rogue) -> None:
        self._node = node
        self._rogue = rogue

    @property
    def peer_id(self) -> PeerId:
        return self._node.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._node.addresses

    @property
    def on_link(self) -> tuple[str, ...]:
        return self._node.on_link

    @property
    def moved(self) -> trio.Event:
        return self._node.moved

    def handle(self, protocol: str, handler: Handler) -> None:
        async def serve(stream: Stream) -> None:
            async with trio.open_nursery() as nursery:
                await handler(_RogueStream(stream, self._rogue, self.peer_id, nursery))
                nursery.cancel_scope.cancel()

        self._node.handle(protocol, serve if protocol == PROTOCOL else handler)

    async def open_stream(
        self, peer_id: PeerId, addresses: tuple[str, ...], protocol: str
    ) -> Stream:
        return await self._node.open_stream(peer_id, addresses, protocol)

    async def identify(self, address: str) -> PeerId:
        return await self._node.identify(address)

    def sign(self, data: bytes) -> bytes:
        return self._node.sign(data)

    def verify(self, peer_id: PeerId, data: bytes, signature: bytes) -> bool:
        return self._node.verify(peer_id, data, signature)


class _RogueStream:
    """The listener's end of a session, without the requests that the rogue keeps."""

    def __init__(self, stream: Stream, rogue: Rogue, me: PeerId, nursery: trio.Nursery) -> None:
        self._stream = stream
        self._rogue = rogue
        self._me = me
        self._nursery = nursery
        self._incoming = FrameBuffer(MAX_ANY_FRAME_BYTES)
        self._outgoing = FrameBuffer(MAX_ANY_FRAME_BYTES)
        self._lock = trio.Lock()
        self._turns: dict[str, Turn] = {}

    @property
    def peer_id(self) -> PeerId:
        return self._stream.peer_id

    async def receive_some(self) -> bytes:
        while True:
            passed = bytearray()
            while (body := self._incoming.next_body()) is not None:
                if not self._keeps(body):
                    passed += _framed(body)
            if passed:
                return bytes(passed)
            data = await self._stream.receive_some()
            if not data:
                return b""
            self._incoming.feed(data)

    @property
    def room(self) -> int:
        return 0

    def send_now(self, data: bytes) -> None:
        raise NotImplementedError("a rogue's writes take turns")

    async def send_all(self, data: bytes) -> None:
        # Only whole frames: what a turn says must not come in the middle of one.
        self._outgoing.feed(data)
        whole = bytearray()
        while (body := self._outgoing.next_body()) is not None:
            whole += _framed(body)
        if whole:
            await self.write(bytes(whole))

    async def write(self, frames: bytes) -> None:
        """Send whole frames."""
        async with self._lock:
            await self._stream.send_all(frames)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _keeps(self, body: bytes) -> bool:
        """Whether the frame with this *body* is none of the listener's business."""
        try:
            message = decode(body)
        except RemoteProtocolError:
            return False
        if isinstance(message, Request):
            manner = self._rogue.manner
            if manner is None:
                return False
            self._rogue.turns += 1
            turn = Turn(message.request, self._me, self)
            self._turns[turn.request.request_id] = turn
            self._nursery.start_soon(self._serve, turn, manner)
            return True
        if isinstance(message, Cancel | Credit) and message.request_id in self._turns:
            if isinstance(message, Cancel):
                self._turns[message.request_id].scope.cancel()
            return True
        return False

    async def _serve(self, turn: Turn, manner: Manner) -> None:
        request_id = turn.request.request_id
        with turn.scope:
            await manner.answer(turn)
        self._turns.pop(request_id, None)
        if turn.scope.cancelled_caught and manner.obeys:
            await turn.respond(
                CommandResponse(request_id=request_id, status="cancelled", executor=self._me)
            )


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER, "big") + body
