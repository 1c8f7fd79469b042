"""Carries a session over a stream: one reader, one writer, one heartbeat."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Protocol

import attrs
import trio

from .._logs import get_logger
from ..access import Admit, Introduction, admit_everybody
from ..capability import PeerId
from ..exceptions import (
    LocalProtocolError,
    NotPermitted,
    PeerError,
    PeerFailed,
    PeerRefused,
    PeerTimeout,
    PeerUnreachable,
    RemoteProtocolError,
    RequestConflict,
)
from ..network import Stream
from ..wire import (
    Advert,
    Cancel,
    Chunk,
    CommandRequest,
    CommandResponse,
    Credit,
    Encoded,
    Fault,
    Goodbye,
    Hello,
    LoadReport,
    Message,
    Ping,
    Pong,
    Progress,
    Reasoning,
    Request,
    Response,
    Session,
    Started,
    State,
    Usage,
)
from ._calls import ClientCall, ServerCall

log = get_logger(__name__)

# A heartbeat a second is 40 bytes; a peer that misses five is gone. TCP alone would notice a
# machine that lost its power after minutes.
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 5.0

# How long a stream may take to say Hello, which needs one round trip.
GREETING_SECONDS = 5.0

# Bytes that may wait for the writer before answers wait for it too: a peer that does not read
# its stream cannot grow our memory much past this.
MAX_PENDING = 4 << 20

# Past this much the peer reads slowly, and adverts it has no time for can wait.
MAX_PENDING_ADVERTS = 64 << 10

# What is written at a time; more would hide from the heartbeat that the peer still reads.
PIECE = 256 << 10

# Messages that are read before what they set off gets its turn. Reading a burst to its end first
# makes the two sides work in turns instead of side by side: half the throughput of 32 requests.
TURN = 16

# How long a farewell may take.
FAREWELL_SECONDS = 1.0


class SessionHandler(Protocol):
    """What the owner of a session does with it. Nothing in here may block or raise."""

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        ...

    def opened(self, session: PeerSession, hello: Hello) -> None:
        """Both sides have greeted."""
        ...

    def advertised(self, session: PeerSession, advert: Advert | LoadReport) -> None:
        """The listener pushed its capability, or the load of its lanes."""
        ...

    def round_trip(self, session: PeerSession, seconds: float) -> None:
        """A heartbeat came back."""
        ...

    async def serve_call(self, call: ServerCall) -> None:
        """A dialer asks; answer it. Runs in a task of its own, inside its cancel scope."""
        ...


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """What one session holds at one instant; all zero but the bytes when it is idle."""

    requests: int
    """Requests in flight, by the rules."""

    client_calls: int
    """Of these, the ones we asked and still want."""

    server_calls: int
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
      admit: Decides whether the peer is let in, once it has said hello.

    """

    def __init__(
        self,
        stream: Stream,
        session: Session,
        handler: SessionHandler,
        *,
        admit: Admit = admit_everybody,
    ) -> None:
        self.peer_id = stream.peer_id
        self.ended: PeerError | None = None
        """Why the session ended, once it has."""
        self._stream = stream
        self._session = session
        self._admit = admit
        session.admit = self._let_in
        self._handler = handler
        self._client_calls: dict[str, ClientCall] = {}
        self._cancelled: dict[str, ClientCall] = {}
        self._server_calls: dict[str, ServerCall] = {}
        self._scope = trio.CancelScope()
        self._writable = trio.Event()
        self._written = trio.Event()
        self._pings: dict[int, float] = {}
        self._next_nonce = 0
        self._heard_at = 0.0
        self._sent = self._received = 0

    @property
    def is_open(self) -> bool:
        """True between the greetings and the end."""
        return self.ended is None and self._session.state is State.OPEN

    @property
    def minor(self) -> int:
        """Minor version that both ends speak."""
        return self._session.minor

    def statistics(self) -> SessionStatistics:
        """What it holds now."""
        return SessionStatistics(
            requests=self._session.requests,
            client_calls=len(self._client_calls),
            server_calls=len(self._server_calls),
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

    def ask(self, request: CommandRequest) -> ClientCall:
        """Send *request*.

        Raises:
          PeerError: if the session has ended.
          PeerRefused: if the listener takes no more requests from us, or none so long.
          RequestConflict: if a request with its id is in flight here already.

        """
        if self.ended is not None:
            raise self.ended
        if self._session.in_flight(request.request_id):
            raise RequestConflict(
                f"request_id {request.request_id!r} is in flight already: give each request its own"
            )
        if not self._session.can_ask:
            raise PeerRefused(
                f"takes no more than {self._session.requests} at once", peer_id=self.peer_id
            )
        try:
            self._session.send(Request(request=request))
        except LocalProtocolError as error:
            raise PeerRefused(str(error), peer_id=self.peer_id) from None
        call = self._client_calls[request.request_id] = ClientCall(self, request)
        self._writable.set()
        return call

    def advertise(self, advert: Advert | LoadReport | Encoded) -> bool:
        """Push what we can do, unless the peer is behind in reading; whether it was pushed."""
        if self._session.pending >= MAX_PENDING_ADVERTS:
            return False
        self.say(advert)
        return True

    def answer(self, response: CommandResponse) -> None:
        """Send the end of an answer, or an error in its place if it cannot travel."""
        if not self.is_open:
            return
        try:
            self._session.send(Response(response=response))
        except LocalProtocolError as error:
            fault = Fault(code=PeerFailed.code, message=f"the answer cannot travel: {error}")
            self._session.send(
                Response(
                    response=CommandResponse(
                        request_id=response.request_id,
                        status="error",
                        error=fault,
                        executor=response.executor,
                    )
                )
            )
        self._writable.set()

    def close(self, code: str, message: str) -> None:
        """End the session and tell the peer why. Nothing happens if it has ended."""
        if self.ended is None:
            self._session.send(Goodbye(code=code, message=message))
            self._finish(PeerUnreachable(f"we ended the session: {message}", peer_id=self.peer_id))

    # ---- the three tasks ----

    async def _read(self, nursery: trio.Nursery) -> None:
        while self.ended is None:
            # Whoever does not read what we say is not listened to either: what it makes us say
            # would pile up.
            if self.is_behind:
                await self.drained()
            data = await self._stream.receive_some()
            if not data:
                self._finish(PeerUnreachable("the connection was lost", peer_id=self.peer_id))
                return
            self._heard_at = trio.current_time()
            self._received += len(data)
            self._session.receive_data(data)
            try:
                taken = 0
                while (message := self._session.next_event()) is not None:
                    self._take(message, nursery)
                    taken += 1
                    if taken % TURN == 0:
                        await trio.lowlevel.checkpoint()
            except NotPermitted as error:
                log.info("a peer was turned away", peer=self.peer_id, why=str(error))
                self._finish(PeerUnreachable(f"{self.peer_id}: not let in: {error}"))
            except RemoteProtocolError as error:
                log.warning(
                    "session ended: the peer broke a rule", peer=self.peer_id, why=str(error)
                )
                self._finish(PeerUnreachable(f"broke the protocol: {error}", peer_id=self.peer_id))

    async def _write(self) -> None:
        try:
            while True:
                await self._flush()
                self._writable = trio.Event()
                await self._writable.wait()
                if self._session.role == "listener":
                    # Whoever answers now has more to say: one packet for both costs half as much.
                    await trio.lowlevel.checkpoint()
        except PeerUnreachable as error:
            self._finish(error)

    async def _flush(self) -> None:
        while data := self._session.data_to_send():
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                await self._stream.send_all(piece)
                self._sent += len(piece)
                if start:
                    # A peer that takes what we send is not silent, even while we do not listen.
                    self._heard_at = trio.current_time()
            self._written.set()
            self._written = trio.Event()

    async def _beat(self) -> None:
        opened_at = trio.current_time()
        while self.ended is None:
            # A listener hears its dialers' pings: its own would only say the same again.
            quiet = trio.current_time() - self._heard_at >= HEARTBEAT_SECONDS
            if self.is_open and (quiet or self._session.role == "dialer"):
                self._ping()
            before = trio.current_time()
            await trio.sleep(HEARTBEAT_SECONDS)
            now = trio.current_time()
            if now - before > 2 * HEARTBEAT_SECONDS:
                # We were held up ourselves: what the peer said in the meantime is not read yet.
                continue
            if not self.is_open and now - opened_at > GREETING_SECONDS:
                error = PeerTimeout(
                    f"no greeting within {GREETING_SECONDS:.0f} s", peer_id=self.peer_id
                )
                self._finish(error)
            elif now - self._heard_at > SILENCE_SECONDS - HEARTBEAT_SECONDS:
                silent = now - self._heard_at
                self._finish(PeerTimeout(f"silent for {silent:.1f} s", peer_id=self.peer_id))

    def _ping(self) -> None:
        self._next_nonce += 1
        self._pings = {n: t for n, t in self._pings.items() if n > self._next_nonce - 8}
        self._pings[self._next_nonce] = trio.current_time()
        self.say(Ping(nonce=self._next_nonce))

    # ---- what came in ----

    def _let_in(self, hello: Hello) -> None:
        introduction = Introduction(namespace=hello.namespace, grant=hello.grant)
        # The ends of grants are UTC, so this one rule knows the machine's clock.
        refusal = self._admit(self.peer_id, introduction, time.time())
        if refusal is not None:
            raise NotPermitted(refusal.reason)

    def _take(self, message: Message, nursery: trio.Nursery) -> None:
        match message:
            case Chunk():
                if call := self._client_calls.get(message.request_id):
                    call.add(message, self._session.charged)
            case Reasoning():
                if call := self._client_calls.get(message.request_id):
                    call.think(message, self._session.charged)
            case Progress() | Started():
                if call := self._client_calls.get(message.request_id):
                    call.add(message)
            case Response(response=response):
                if call := self._client_calls.pop(response.request_id, None):
                    call.add(response)
                elif call := self._cancelled.pop(response.request_id, None):
                    call.confirm(response.usage.completion_tokens)
            case Request(request=request):
                asked = self._server_calls[request.request_id] = ServerCall(self, request)
                nursery.start_soon(self._serve, asked)
            case Cancel(request_id=request_id):
                if served := self._server_calls.get(request_id):
                    served.unwanted = True
                    served.cancel_scope.cancel()
            case Credit(request_id=request_id):
                if served := self._server_calls.get(request_id):
                    served.caught_up()
            case Ping(nonce=nonce):
                self.say(Pong(nonce=nonce))
            case Pong(nonce=nonce):
                sent_at = self._pings.pop(nonce, None)
                if sent_at is not None:
                    self._handler.round_trip(self, trio.current_time() - sent_at)
            case Advert() | LoadReport():
                self._handler.advertised(self, message)
            case Hello():
                # The rules have queued a listener's own Hello.
                self._writable.set()
                self._handler.opened(self, message)
                if self._session.role == "dialer":
                    self._ping()
            case Goodbye(code=code, message=text):
                self._finish(
                    PeerUnreachable(f"said goodbye ({code}): {text}", peer_id=self.peer_id)
                )

    async def _serve(self, call: ServerCall) -> None:
        request_id = call.request.request_id
        try:
            with call.cancel_scope:
                await self._handler.serve_call(call)
        finally:
            # The dialer may have used the id again the moment it had the response.
            if self._server_calls.get(request_id) is call:
                del self._server_calls[request_id]
        if not call.answered:
            call.respond(
                CommandResponse(
                    request_id=request_id,
                    status="cancelled",
                    executor=self._handler.peer_id,
                    usage=Usage(completion_tokens=call.tokens),
                )
            )

    # ---- what goes out ----

    def say(self, message: Message | Encoded) -> None:
        """Queue *message*; nothing happens if the session is not open."""
        if not self.is_open:
            return
        try:
            self._session.send(message)
        except LocalProtocolError as error:
            # A bug on this side, or a message this peer cannot take: its session ends, and the
            # task that wanted to say something goes on.
            log.error("session ended: we broke a rule", peer=self.peer_id, why=str(error))
            self._finish(PeerUnreachable(f"we broke the protocol: {error}", peer_id=self.peer_id))
        else:
            self._writable.set()

    def abandon(self, call: ClientCall) -> None:
        """Cancel a call of ours; what still arrives of it is dropped."""
        request_id = call.request.request_id
        if self._client_calls.get(request_id) is call:
            del self._client_calls[request_id]
            call.forget()
            self._cancelled[request_id] = call
            self.say(Cancel(request_id=request_id))

    def cancelling(self, request_id: str) -> ClientCall | None:
        """The call with this id that was cancelled, if that is not acknowledged yet."""
        return self._cancelled.get(request_id)

    def send_window(self, request_id: str) -> int:
        """Bytes that may be sent for a request before its reader catches up."""
        return self._session.send_window(request_id)

    def cost(self, text: str) -> int:
        """Bytes of that which *text* takes as one chunk, at the most."""
        return self._session.cost(text)

    @property
    def is_behind(self) -> bool:
        """Whether more than `MAX_PENDING` bytes wait for the writer."""
        return self._session.pending > MAX_PENDING

    async def drained(self) -> None:
        """Wait while more than `MAX_PENDING` bytes wait for the writer."""
        while self.is_behind:
            await self._written.wait()
        await trio.lowlevel.checkpoint()

    def _finish(self, error: PeerError) -> None:
        if self.ended is not None:
            return
        self.ended = error
        calls = [*self._client_calls.values(), *self._cancelled.values()]
        self._client_calls, self._cancelled = {}, {}
        for call in calls:
            call.fail(error)
        for served in self._server_calls.values():
            served.cancel_scope.cancel()
        self._scope.cancel()
