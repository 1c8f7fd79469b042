"""Carries a session over a stream with three tasks: a reader, a writer and a heartbeat.

What may be said is decided by `punch.wire.Session`, when a peer is gone by `_heartbeat`, and what
comes of a message by the handler. No request ever cancels one of the three tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol

import attrs
import trio

from .._logs import get_logger
from ..access import Admit, admit_everybody
from ..capability import PeerId
from ..exceptions import (
    CONNECTION_LOST,
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
    Addressed,
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
    Standing,
    Started,
    State,
    Usage,
    quoted,
)
from ._call_table import CallTable
from ._calls import ClientCall, ServerCall
from ._door import Door, OpenDoor
from ._heartbeat import HEARTBEAT_SECONDS, Heartbeat
from ._outbox import Outbox

log = get_logger(__name__)

# Past this much the peer reads slowly, and adverts it has no time for can wait.
MAX_PENDING_ADVERT_BYTES = 64 << 10

# Messages that are read before the tasks that they wake get their turn. Reading a burst to its end
# first makes the two sides work in turns instead of side by side: half the throughput of 32
# requests.
TURN_MESSAGES = 16

# How long writing the last messages may take.
FAREWELL_SECONDS = 1.0


class SessionHandler(Protocol):
    """What a listener or a dialer does with its sessions.

    No method may raise or block: the session's reader calls them.
    """

    @property
    def peer_id(self) -> PeerId:
        """Our own identity."""
        ...

    def opened(self, session: PeerSession, hello: Hello) -> None:
        """Note that both sides have greeted."""
        ...

    def advertised(self, session: PeerSession, advert: Advert | LoadReport) -> None:
        """Note the capability of the listener, or the load of its lanes."""
        ...

    def round_trip(self, session: PeerSession, seconds: float) -> None:
        """Note that a heartbeat came back after *seconds*."""
        ...

    def serve_call(self, call: ServerCall) -> None:
        """Begin to answer what a dialer asks; see `ServerCall.left` for its end."""
        ...


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """The size of a session at one instant; all zero but the bytes when it is idle."""

    requests: int
    """Requests in flight, cancelled ones included until that is acknowledged."""

    client_calls: int
    """Those of them that we asked and still want."""

    server_calls: int
    """Those of them that we answer."""

    sent: int
    """Bytes sent so far."""

    received: int
    """Bytes received so far."""


class PeerSession:
    """An end of a session, on a stream. `run` carries it until it ends.

    Args:
      stream: The stream that carries the session. It is closed at the end.
      session: The rules.
      handler: What to do with what comes in.
      admit: Decides whether the peer is let in, once it has said hello.
      door: The same in a closed namespace, and whether it may stay.

    """

    def __init__(
        self,
        stream: Stream,
        session: Session,
        handler: SessionHandler,
        *,
        admit: Admit = admit_everybody,
        door: Door | None = None,
    ) -> None:
        self.peer_id = stream.peer_id
        self._door = OpenDoor(stream, admit) if door is None else door
        self.is_own = self._door.is_own(stream.peer_id)
        """True if the peer is of the same owner, once it has said who it is."""
        self.ended: PeerError | None = None
        """Why the session ended, once it has."""
        self._stream = stream
        self._session = session
        session.admit = partial(self._door.let_in, stream.peer_id)
        self._handler = handler
        self._calls = CallTable()
        self._scope = trio.CancelScope()
        self.heartbeat = Heartbeat()
        """When the peer was heard."""
        self._outbox = Outbox(stream, session, self.heartbeat)
        self._received = 0

    @property
    def is_open(self) -> bool:
        """True between the greetings and the end."""
        return self.ended is None and self._session.state is State.OPEN

    @property
    def minor(self) -> int:
        """Minor version that both ends speak."""
        return self._session.minor

    def statistics(self) -> SessionStatistics:
        """The size of the session now."""
        return SessionStatistics(
            requests=self._session.requests,
            client_calls=len(self._calls.asked),
            server_calls=len(self._calls.served),
            sent=self._outbox.sent,
            received=self._received,
        )

    async def run(self) -> None:
        """Carry the session until it ends; `ended` then says why. Raises nothing of its own."""
        self.heartbeat.begin(trio.current_time())
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._outbox.run, self._finish)
                    nursery.start_soon(self._beat)
                    await self._read()
        finally:
            self._door.left(self)
            self.close("bye", "the session was closed")
            with trio.CancelScope(shield=True):
                with trio.move_on_after(FAREWELL_SECONDS), suppress(PeerUnreachable):
                    await self._outbox.flush()
                await self._stream.aclose()

    def ask(self, request: CommandRequest, addressed: Addressed | None = None) -> ClientCall:
        """Send *request*.

        Args:
          request: What is asked.
          addressed: The same as its peer is to be asked it, if that differs.

        Raises:
          PeerError: if the session has ended.
          PeerRefused: if the listener accepts no more requests from us, or none as long as this.
          RequestConflict: if a request with its id is in flight here already.

        """
        if self.ended is not None:
            raise self.ended
        _check_room(self._session, request.request_id, self.peer_id)
        try:
            self._session.send(addressed or Request(request=request))
        except LocalProtocolError as error:
            raise PeerRefused(str(error), peer_id=self.peer_id) from None
        call = self._calls.asked[request.request_id] = ClientCall(self, request)
        self._outbox.send(Request)
        return call

    def advertise(self, advert: Advert | LoadReport | Encoded) -> bool:
        """Send our capability or load; False if not, since the peer would read an old one."""
        if self._session.pending >= MAX_PENDING_ADVERT_BYTES:
            return False
        self.say(advert)
        return True

    def answer(self, response: CommandResponse) -> None:
        """Send the end of an answer, or an error in its place if it cannot travel.

        Does nothing if the call is over.
        """
        if not self.is_open or self._calls.served.pop(response.request_id, None) is None:
            return
        try:
            self._session.send(Response(response=response))
        except LocalProtocolError as error:
            self._session.send(Response(response=_stranded(response, error)))
        self._outbox.send(Response)

    def close(self, code: str, message: str) -> None:
        """End the session and tell the peer why. Does nothing if it has ended."""
        if self.ended is None:
            self._session.send(Goodbye(code=code, message=message))
            self._lose(f"we ended the session: {message}")

    def turn_away(self, reason: str) -> None:
        """End the session of a peer that may not stay, and what it has asked."""
        _refuse(self._calls.served.values(), self._handler.peer_id, reason)
        self.close(NotPermitted.code, reason)

    # ---- the three tasks ----

    async def _read(self) -> None:
        while self.ended is None:
            # A peer that reads nothing is not read: what it makes us say would pile up.
            if self.is_behind:
                await self.drained()
            data = await self._stream.receive_some()
            if not data:
                self._finish(PeerUnreachable(CONNECTION_LOST, peer_id=self.peer_id, why="lost"))
                return
            self.heartbeat.heard(trio.current_time())
            self._received += len(data)
            self._session.receive_data(data)
            try:
                handled = 0
                while (message := self._session.next_event()) is not None:
                    self._handle(message)
                    handled += 1
                    if handled % TURN_MESSAGES == 0:
                        await trio.lowlevel.checkpoint()
            except NotPermitted as error:
                log.info("a peer was turned away", peer=self.peer_id, why=str(error))
                self._lose(f"not let in: {error}")
            except RemoteProtocolError as error:
                log.warning("session ended: a rule is broken", peer=self.peer_id, why=str(error))
                self._lose(f"broke the protocol: {error}")

    async def _beat(self) -> None:
        while self.ended is None:
            # A listener hears its dialers' pings: its own would only say the same again.
            now, is_dialer = trio.current_time(), self._session.role == "dialer"
            if self.is_open and (is_dialer or self.heartbeat.is_quiet(now)):
                self.say(Ping(nonce=self.heartbeat.ping(now)))
            await trio.sleep(HEARTBEAT_SECONDS)
            why = self.heartbeat.why_gone(trio.current_time(), is_open=self.is_open)
            if why is not None:
                self._finish(PeerTimeout(why, peer_id=self.peer_id))

    def _handle(self, message: Message) -> None:
        match message:
            case Chunk() | Reasoning() | Progress() | Started() | Response() | Credit():
                self._calls.deliver(message, self._session.charged)
            case Request(request=request):
                call = self._calls.served[request.request_id] = ServerCall(self, request)
                self._handler.serve_call(call)
            case Cancel(request_id=request_id):
                if served := self._calls.served.get(request_id):
                    served.leave(unwanted=True)
                    served.respond(_cancelled(served, self._handler.peer_id))
            case Ping(nonce=nonce):
                self.say(Pong(nonce=nonce))
            case Pong(nonce=nonce):
                seconds = self.heartbeat.pong(nonce, trio.current_time())
                if seconds is not None:
                    self._handler.round_trip(self, seconds)
            case Advert() | LoadReport():
                self._handler.advertised(self, message)
            case Hello():
                # The rules have queued a listener's own Hello.
                self._outbox.send(Hello)
                self.is_own = self._door.is_own(self.peer_id)
                self._handler.opened(self, message)
                self._door.opened(self)
                if self._session.role == "dialer":
                    self.say(Ping(nonce=self.heartbeat.ping(trio.current_time())))
            case Standing():
                self._door.heard(self, message)
            case Goodbye(code=code, message=text):
                self._lose(f"said goodbye ({code}): {quoted(text)}")

    # ---- what goes out ----

    def say(self, message: Message | Encoded) -> None:
        """Queue *message*; does nothing if the session is not open."""
        if not self.is_open:
            return
        try:
            self._session.send(message)
        except LocalProtocolError as error:
            # A bug on this side, or a message this peer cannot take: its session ends, and the
            # task that wanted to say something continues.
            log.error("session ended: we broke a rule", peer=self.peer_id, why=str(error))
            self._lose(f"we broke the protocol: {error}")
        else:
            self._outbox.send(type(message))

    def abandon(self, call: ClientCall) -> None:
        """Cancel a call of ours; what still arrives of it is dropped."""
        if self._calls.abandon(call):
            self.say(Cancel(request_id=call.request.request_id))

    def cancelling(self, request_id: str) -> ClientCall | None:
        """The call with this id that was cancelled, if that is not acknowledged yet."""
        return self._calls.cancelled.get(request_id)

    def fits(self, request_id: str, text: str) -> bool:
        """True if *text* may be sent for a request before its reader catches up."""
        return self._session.cost(text) <= self._session.send_window(request_id)

    @property
    def is_behind(self) -> bool:
        """True if the peer reads so slowly that answers must wait for it."""
        return self._outbox.is_behind

    async def drained(self) -> None:
        """Wait while the peer is behind."""
        await self._outbox.drained()

    def _lose(self, why: str) -> None:
        self._finish(PeerUnreachable(why, peer_id=self.peer_id))

    def _finish(self, error: PeerError) -> None:
        if self.ended is not None:
            return
        self.ended = error
        self._calls.fail(error)
        self._scope.cancel()


def _check_room(session: Session, request_id: str, peer_id: PeerId) -> None:
    """Raise what keeps a request from being sent now, if anything does."""
    if session.is_in_flight(request_id):
        raise RequestConflict(
            f"request_id {request_id!r} is in flight already: give each request its own"
        )
    if not session.can_ask:
        raise PeerRefused(f"takes no more than {session.requests} at once", peer_id=peer_id)


def _stranded(response: CommandResponse, error: LocalProtocolError) -> CommandResponse:
    """The response that is sent in place of *response*, which cannot travel for *error*."""
    return CommandResponse(
        request_id=response.request_id,
        status="error",
        error=Fault(code=PeerFailed.code, message=f"the answer cannot travel: {error}"),
        executor=response.executor,
    )


def _refuse(calls: Iterable[ServerCall], executor: PeerId, reason: str) -> None:
    """End *calls*, whose dialer is let in no longer; another listener may not know that yet."""
    for call in tuple(calls):
        call.leave(unwanted=False)
        call.respond(
            CommandResponse(
                request_id=call.request.request_id,
                status="refused",
                error=Fault(code=NotPermitted.code, message=reason, retryable=True),
                executor=executor,
                usage=Usage(completion_tokens=call.tokens),
            )
        )


def _cancelled(call: ServerCall, executor: PeerId) -> CommandResponse:
    """The end of a call that its dialer did not want any more, and how far it had come."""
    return CommandResponse(
        request_id=call.request.request_id,
        status="cancelled",
        executor=executor,
        usage=Usage(completion_tokens=call.tokens),
    )
