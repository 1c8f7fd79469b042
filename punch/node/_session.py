"""Carries a session over a stream: one reader, one writer, one heartbeat."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Literal, Protocol

import attrs
import trio

from ..capability import PeerId
from ..exceptions import PeerError, PeerTimeout, PeerUnreachable, RemoteProtocolError
from ..logs import get_logger
from ..wire import (
    WINDOW,
    Advert,
    Cancel,
    Chunk,
    CommandRequest,
    CommandResponse,
    Credit,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Progress,
    Provenance,
    Request,
    Response,
    Session,
    Started,
    State,
    Usage,
)
from ._base import Stream

log = get_logger(__name__)

# A heartbeat a second is 40 bytes; a peer that misses five is gone. TCP alone would notice a
# machine that lost its power after minutes.
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 5.0

# How long a stream may take to say Hello, which needs one round trip.
GREETING_SECONDS = 5.0

# The reader's credit is returned in quarters of the window: often enough that the writer
# never waits for a reader who keeps up, seldom enough to cost nothing.
CREDIT_STEP = WINDOW // 4

# Bytes that may wait for the writer before answers wait for it too: a peer that does not read
# its stream cannot grow our memory much past this.
MAX_PENDING = 4 << 20

# How long a farewell may take.
FAREWELL_SECONDS = 1.0


class Call:
    """A request we sent: its answer as it comes in."""

    def __init__(self, owner: PeerSession, request: CommandRequest) -> None:
        self.request = request
        self._owner = owner
        self._arrived: deque[Progress | Started | Chunk | CommandResponse] = deque()
        self._error: PeerError | None = None
        self._wake = trio.Event()
        self._taken = 0
        self._over = False

    async def receive(self) -> Progress | Started | Chunk | CommandResponse:
        """The next part of the answer; a `CommandResponse` is the last one.

        Raises:
          PeerError: if the session ended before the answer did.

        """
        while not self._arrived:
            if self._error is not None:
                raise self._error
            self._wake = trio.Event()
            await self._wake.wait()
        part = self._arrived.popleft()
        if type(part) is Chunk:
            self._taken += len(part.text.encode())
            if self._taken >= CREDIT_STEP and not self._over:
                self._owner._say(Credit(request_id=self.request.request_id, amount=self._taken))
                self._taken = 0
        return part

    def cancel(self) -> None:
        """Tell the listener to stop. What still arrives is dropped."""
        if not self._over:
            self._owner._abandon(self)

    def _add(self, part: Progress | Started | Chunk | CommandResponse) -> None:
        self._over = type(part) is CommandResponse
        self._arrived.append(part)
        self._wake.set()

    def _fail(self, error: PeerError) -> None:
        self._over = True
        self._error = error
        self._wake.set()


class Inquiry:
    """A request we received: the way to answer it."""

    def __init__(self, owner: PeerSession, request: CommandRequest) -> None:
        self.request = request
        self.cancel_scope = trio.CancelScope()
        """Cancelled when the dialer cancels or its session ends."""
        self.tokens = 0
        """Tokens sent so far."""
        self._owner = owner
        self._room = trio.Event()
        self._answered = False

    @property
    def dialer(self) -> PeerId:
        """Who asks."""
        return self._owner.peer_id

    def progress(self, state: Literal["queued", "loading"]) -> None:
        """Tell the dialer what its request waits for."""
        self._owner._say(Progress(request_id=self.request.request_id, state=state))

    def started(self, provenance: Provenance) -> None:
        """Tell the dialer that the backend works on it."""
        self._owner._say(Started(request_id=self.request.request_id, provenance=provenance))

    async def send_text(self, text: str, tokens: int) -> None:
        """Send the next part of the answer; waits while the dialer is behind."""
        request_id = self.request.request_id
        session = self._owner._session
        self.tokens += tokens
        # A character has at most four bytes, so a piece this long always fits an empty window.
        pieces = [text[i : i + WINDOW // 4] for i in range(0, len(text), WINDOW // 4)]
        for piece in pieces:
            size = len(piece.encode())
            while session.room(request_id) < size:
                self._room = trio.Event()
                await self._room.wait()
            self._owner._say(Chunk(request_id=request_id, text=piece, tokens=tokens))
            tokens = 0
        while session.pending > MAX_PENDING:
            await self._owner._written.wait()
        await trio.lowlevel.checkpoint()

    def respond(self, response: CommandResponse) -> None:
        """Send the end of the answer. A session that has ended takes it to nobody."""
        self._answered = True
        self._owner._say(Response(response=response))


class SessionHandler(Protocol):
    """What the owner of a session does with it. Nothing in here may block or raise."""

    def opened(self, session: PeerSession, hello: Hello) -> None:
        """Both sides have greeted."""
        ...

    def advertised(self, session: PeerSession, advert: Advert) -> None:
        """The listener pushed its capability."""
        ...

    def round_trip(self, session: PeerSession, seconds: float) -> None:
        """A heartbeat came back."""
        ...

    async def inquire(self, inquiry: Inquiry) -> None:
        """A dialer asks; answer it. Runs in a task of its own, inside its cancel scope."""
        ...


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """What one session holds at one instant; all zero but the bytes when it is idle."""

    requests: int
    """Requests in flight, by the rules."""

    calls: int
    """Of these, the ones we asked and still want."""

    inquiries: int
    """Of these, the ones we answer."""

    sent: int
    """Bytes sent so far."""

    received: int
    """Bytes received so far."""


class PeerSession:
    """One end of a session, on a stream. `run` carries it until it ends.

    Args:
      stream: The stream it lives on. It is closed at the end.
      session: The rules.
      handler: What to do with what comes in.

    """

    def __init__(self, stream: Stream, session: Session, handler: SessionHandler) -> None:
        self.peer_id = stream.peer_id
        self.ended: PeerError | None = None
        """Why the session ended, once it has."""
        self._stream = stream
        self._session = session
        self._handler = handler
        self._calls: dict[str, Call] = {}
        self._inquiries: dict[str, Inquiry] = {}
        self._scope = trio.CancelScope()
        self._writable = trio.Event()
        self._written = trio.Event()
        self._capacity = trio.Event()
        self._pings: dict[int, float] = {}
        self._next_nonce = 0
        self._heard_at = 0.0
        self._sent = self._received = 0

    @property
    def is_open(self) -> bool:
        """True between the greetings and the end."""
        return self.ended is None and self._session.state is State.OPEN

    def statistics(self) -> SessionStatistics:
        """What it holds now."""
        return SessionStatistics(
            requests=self._session.requests,
            calls=len(self._calls),
            inquiries=len(self._inquiries),
            sent=self._sent,
            received=self._received,
        )

    async def run(self) -> None:
        """Carry the session until it ends; `ended` says why. Raises nothing of its own."""
        self._heard_at = trio.current_time()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._beat)
                    await self._read(nursery)
        finally:
            self.close("bye", "the session was closed")
            with trio.CancelScope(shield=True):
                with trio.move_on_after(FAREWELL_SECONDS), suppress(PeerUnreachable):
                    await self._flush()
                await self._stream.aclose()

    async def ask(self, request: CommandRequest) -> Call:
        """Send *request*; waits while the listener has as many as it takes.

        Raises:
          PeerError: if the session has ended.
          LocalProtocolError: if the request is in flight already or too long for the peer.

        """
        while not self._session.can_ask:
            if self.ended is not None:
                raise self.ended
            self._capacity = trio.Event()
            await self._capacity.wait()
        self._session.send(Request(request=request))
        call = self._calls[request.request_id] = Call(self, request)
        self._writable.set()
        return call

    def advertise(self, advert: Advert) -> None:
        """Push our capability, if the session is open."""
        self._say(advert)

    def close(self, code: str, message: str) -> None:
        """End the session and tell the peer why. Nothing happens if it has ended."""
        if self.ended is None:
            self._session.send(Goodbye(code=code, message=message))
            self._finish(PeerUnreachable(f"{self.peer_id}: we ended the session: {message}"))

    # ---- the three tasks ----

    async def _read(self, nursery: trio.Nursery) -> None:
        while self.ended is None:
            data = await self._stream.receive_some()
            if not data:
                self._finish(PeerUnreachable(f"{self.peer_id}: the connection was lost"))
                return
            self._heard_at = trio.current_time()
            self._received += len(data)
            self._session.receive_data(data)
            try:
                while (message := self._session.next_event()) is not None:
                    self._take(message, nursery)
            except RemoteProtocolError as error:
                log.warning(
                    "session ended: the peer broke a rule", peer=self.peer_id, why=str(error)
                )
                self._finish(PeerUnreachable(f"{self.peer_id}: broke the protocol: {error}"))

    async def _write(self) -> None:
        try:
            while True:
                await self._flush()
                self._writable = trio.Event()
                await self._writable.wait()
        except PeerUnreachable as error:
            self._finish(error)

    async def _flush(self) -> None:
        while data := self._session.data_to_send():
            await self._stream.send_all(data)
            self._sent += len(data)
            self._written.set()
            self._written = trio.Event()

    async def _beat(self) -> None:
        opened_at = trio.current_time()
        while self.ended is None:
            if self.is_open:
                self._ping()
            await trio.sleep(HEARTBEAT_SECONDS)
            now = trio.current_time()
            if not self.is_open and now - opened_at > GREETING_SECONDS:
                error = PeerTimeout(f"{self.peer_id}: no greeting within {GREETING_SECONDS:.0f} s")
                self._finish(error)
            elif now - self._heard_at > SILENCE_SECONDS - HEARTBEAT_SECONDS:
                silent = now - self._heard_at
                self._finish(PeerTimeout(f"{self.peer_id}: silent for {silent:.1f} s"))

    def _ping(self) -> None:
        self._next_nonce += 1
        self._pings = {n: t for n, t in self._pings.items() if n > self._next_nonce - 8}
        self._pings[self._next_nonce] = trio.current_time()
        self._say(Ping(nonce=self._next_nonce))

    # ---- what came in ----

    def _take(self, message: Message, nursery: trio.Nursery) -> None:
        match message:
            case Chunk() | Progress() | Started():
                if call := self._calls.get(message.request_id):
                    call._add(message)
            case Response(response=response):
                self._capacity.set()
                if call := self._calls.pop(response.request_id, None):
                    call._add(response)
            case Request(request=request):
                inquiry = self._inquiries[request.request_id] = Inquiry(self, request)
                nursery.start_soon(self._serve, inquiry)
            case Cancel(request_id=request_id):
                if inquired := self._inquiries.get(request_id):
                    inquired.cancel_scope.cancel()
            case Credit(request_id=request_id):
                if inquired := self._inquiries.get(request_id):
                    inquired._room.set()
            case Ping(nonce=nonce):
                self._say(Pong(nonce=nonce))
            case Pong(nonce=nonce):
                sent_at = self._pings.pop(nonce, None)
                if sent_at is not None:
                    self._handler.round_trip(self, trio.current_time() - sent_at)
            case Advert():
                self._handler.advertised(self, message)
            case Hello():
                self._capacity.set()
                self._handler.opened(self, message)
                self._ping()
            case Goodbye(code=code, message=text):
                self._finish(PeerUnreachable(f"{self.peer_id}: said goodbye ({code}): {text}"))

    async def _serve(self, inquiry: Inquiry) -> None:
        request_id = inquiry.request.request_id
        try:
            with inquiry.cancel_scope:
                await self._handler.inquire(inquiry)
        finally:
            # The dialer may have used the id again the moment it had the response.
            if self._inquiries.get(request_id) is inquiry:
                del self._inquiries[request_id]
        if not inquiry._answered:
            inquiry.respond(
                CommandResponse(
                    request_id=request_id,
                    status="cancelled",
                    usage=Usage(completion_tokens=inquiry.tokens),
                )
            )

    # ---- what goes out ----

    def _say(self, message: Message) -> None:
        if self.ended is None and self._session.state is State.OPEN:
            self._session.send(message)
            self._writable.set()

    def _abandon(self, call: Call) -> None:
        call._over = True
        request_id = call.request.request_id
        if self._calls.get(request_id) is call:
            del self._calls[request_id]
            self._say(Cancel(request_id=request_id))

    def _finish(self, error: PeerError) -> None:
        if self.ended is not None:
            return
        self.ended = error
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call._fail(error)
        for inquiry in self._inquiries.values():
            inquiry.cancel_scope.cancel()
        self._capacity.set()
        self._scope.cancel()
