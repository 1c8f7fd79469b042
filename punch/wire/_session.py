"""Decides what may be said in a session, when, and how far ahead of its reader. No I/O.

1. A session is one byte stream between a dialer, who asks, and a listener, who answers.
   Both ends run this code: `receive_data` and `next_event` for what comes in, `send` and
   `data_to_send` for what goes out. It knows no clock and no network.
2. Who may say what, and when, is in the two tables below and nowhere else. The diagram in
   docs/protocol.md is drawn from them.
3. What the peer does wrong raises `RemoteProtocolError` and ends the session. What we do
   wrong raises `LocalProtocolError` and changes nothing.
4. A cancel and an answer may cross. So a `Cancel` or `Credit` for a request that has just
   ended is no fault, and chunks may follow a cancel until its `Response`.
5. What an answer may be ahead of its reader is counted in bytes that are there already: those of
   its chunks' frames between peers of minor 1, those of their text towards minor 0.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Literal

import attrs

from ..exceptions import LocalProtocolError, NotPermitted, RemoteProtocolError
from ._codec import AnyMessage, Encoded, decode, encode
from ._frame_buffer import HEADER, FrameBuffer
from ._frames import (
    Advert,
    Cancel,
    Chunk,
    Credit,
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
    Standing,
    Started,
)
from ._limits import MAX_FRAME_BYTES
from ._schema import MINOR

PROTOCOL = "/punch/session/1"

# The oldest minor version this code still speaks.
OLDEST_MINOR = 0

# How far an answer may be ahead of its reader. A window of 64 KiB holds some 15,000 tokens,
# far more than any link needs at token speed, and bounds a dialer with 1,000 stalled readers
# at 64 MiB.
WINDOW = 64 * 1024

# What the frame of a chunk has beside its text: a request id of 128 characters, names and numbers.
MAX_CHUNK_FIELDS = 192

# The longest frame before a peer is accepted: a `hello` with a chain of grants.
MAX_GREETING_BYTES = 4096

# Bytes of the reason in a `Goodbye`.
MAX_FAREWELL_BYTES = 800

MAX_REQUESTS = 1024
"""Requests that a listener takes at a time on one session."""


class State(enum.Enum):
    """The states of a session."""

    GREETING = "greeting"
    OPEN = "open"
    ENDED = "ended"


class RequestState(enum.Enum):
    """The states of a request, as both ends see it."""

    ASKED = "asked"
    STARTED = "started"
    CANCELLING = "cancelling"

    # Each message looks its state up; `Enum` hashes the name of a member, in Python.
    __hash__ = object.__hash__


Role = Literal["dialer", "listener"]
Transition = tuple[RequestState | None, type[Any]]

# What each side may say once both have greeted.
SAYS: dict[Role, frozenset[type[Any]]] = {
    "dialer": frozenset({Request, Cancel, Credit, Standing, Ping, Pong, Goodbye}),
    "listener": frozenset(
        {Advert, LoadReport, Progress, Started, Chunk, Reasoning, Response}
        | {Standing, Ping, Pong, Goodbye}
    ),
}

# The messages that came after minor 0: they go only to a peer that knows them.
NEWER: dict[type[Any], int] = {LoadReport: 1, Reasoning: 1, Standing: 2}

# One request: the state it is in and what is said -> the state it is in then. `None` is a
# request that does not exist: before it was asked, and after its response.
REQUEST_TRANSITIONS: dict[Transition, RequestState | None] = {
    (None, Request): RequestState.ASKED,
    (RequestState.ASKED, Progress): RequestState.ASKED,
    (RequestState.ASKED, Started): RequestState.STARTED,
    (RequestState.ASKED, Response): None,
    (RequestState.ASKED, Cancel): RequestState.CANCELLING,
    (RequestState.STARTED, Progress): RequestState.STARTED,
    (RequestState.STARTED, Chunk): RequestState.STARTED,
    (RequestState.STARTED, Reasoning): RequestState.STARTED,
    (RequestState.STARTED, Credit): RequestState.STARTED,
    (RequestState.STARTED, Response): None,
    (RequestState.STARTED, Cancel): RequestState.CANCELLING,
    (RequestState.CANCELLING, Progress): RequestState.CANCELLING,
    (RequestState.CANCELLING, Started): RequestState.CANCELLING,
    (RequestState.CANCELLING, Chunk): RequestState.CANCELLING,
    (RequestState.CANCELLING, Reasoning): RequestState.CANCELLING,
    (RequestState.CANCELLING, Credit): RequestState.CANCELLING,
    (RequestState.CANCELLING, Response): None,
}


def diagram() -> str:
    """The table as a Mermaid state diagram, for docs/protocol.md."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for (before, said), after in REQUEST_TRANSITIONS.items():
        source = before.value if before is not None else "[*]"
        target = after.value if after is not None else "[*]"
        lines.append(f"    {source} --> {target}: {said.__name__}")
    return "\n".join([*lines, "```"])


# Rule 4: these may arrive too late and then mean nothing.
_MAY_BE_LATE = frozenset({Cancel, Credit})
_ABOUT_REQUESTS = frozenset(said for _, said in REQUEST_TRANSITIONS)


@attrs.define
class _InFlight:
    """A request that was asked and is not over."""

    state: RequestState
    ahead: int = 0
    """Bytes sent (or received) that the reader has not acknowledged."""


def _request_id(message: Any) -> str:
    if type(message) is Request:
        return message.request.request_id
    if type(message) is Response:
        return message.response.request_id
    request_id: str = message.request_id
    return request_id


class Session:
    """An end of a session.

    Args:
      role: Which end.
      hello: What this end says of itself. The dialer's is queued for sending at once, the
        listener's once the dialer's has come and is right.

    """

    def __init__(self, role: Role, hello: Hello) -> None:
        self.role: Role = role
        self.state = State.GREETING
        self.theirs: Hello | None = None
        """The other end's hello; `None` before it has greeted."""
        self.admit: Callable[[Hello], None] | None = None
        """Called with the other end's `Hello` before ours is said to a dialer; raises
        `NotPermitted` to turn it away. `None` lets everybody in."""
        self.minor = hello.minor
        """Minor version that both ends speak, once both have greeted."""
        self.charged = 0
        """Bytes of the window that the text which came last takes; to be credited once read."""
        self._ours = hello
        self._other: Role = "listener" if role == "dialer" else "dialer"
        self._requests: dict[str, _InFlight] = {}
        # A stranger may send this much before it has said who it is.
        self._received = FrameBuffer(MAX_GREETING_BYTES)
        self._outgoing: list[bytes] = []
        self.pending = 0
        """Bytes queued and not yet taken by `data_to_send`."""
        if role == "dialer":
            # The listener waits: it does not tell strangers which namespace it is in.
            self._queue(encode(hello))

    # ---- coming in ----

    def receive_data(self, data: bytes) -> None:
        """Add bytes of the stream, cut anywhere."""
        if self.state is not State.ENDED:
            self._received.feed(data)

    def next_event(self) -> Message | None:
        """The next message, or `None` until there is more data.

        Raises:
          RemoteProtocolError: if the peer broke a rule. The session has ended, and a
            `Goodbye` with the reason is ready to be sent.

        """
        try:
            return self._next_event()
        except RemoteProtocolError as error:
            self._say_goodbye(Goodbye(code=error.code, message=str(error)))
            raise

    def _next_event(self) -> Message | None:
        if self.state is State.ENDED or (body := self._received.next_body()) is None:
            return None
        message = decode(body)
        self._check_received(message, HEADER + len(body))
        return message  # type: ignore[return-value]  # `_check_received` lets nothing else pass

    def _check_received(self, message: AnyMessage, size: int) -> None:
        said = type(message)
        if self.state is State.GREETING:
            if said is Goodbye:
                self._end()
            elif isinstance(message, Hello):
                self._greet(message)
            else:
                raise RemoteProtocolError(f"{said.__name__} before Hello")
            return
        if said not in SAYS[self._other]:
            raise RemoteProtocolError(f"a {self._other} may not say {said.__name__}")
        if said is Goodbye:
            self._end()
        elif said in _ABOUT_REQUESTS:
            request_id = _request_id(message)
            if said in _MAY_BE_LATE and request_id not in self._requests:
                return
            try:
                self._move(request_id, message, self._ours.max_requests, size)
            except LocalProtocolError as error:
                raise RemoteProtocolError(str(error)) from None

    def _greet(self, theirs: Hello) -> None:
        if theirs.minor < OLDEST_MINOR:
            raise RemoteProtocolError(
                f"the {self._other} speaks {PROTOCOL}.{theirs.minor} (punch {theirs.version}) and "
                f"the {self.role} needs at least .{OLDEST_MINOR}: the {self._other} must upgrade"
            )
        if self.admit is not None:
            try:
                self.admit(theirs)
            except NotPermitted as error:
                # A stranger hears why it is not let in, and nothing of us.
                self._say_goodbye(Goodbye(code=error.code, message=str(error)))
                raise
        # After the door: a stranger does not hear whether it has guessed the name.
        if theirs.namespace != self._ours.namespace:
            raise RemoteProtocolError(f"the {self._other} is in another namespace")
        self.theirs = theirs
        self.minor = min(theirs.minor, self._ours.minor)
        self.state = State.OPEN
        self._received.max_frame = self._ours.max_frame
        if self.role == "listener":
            self._queue(encode(self._ours))

    # ---- going out ----

    def send(self, message: Message | Encoded) -> None:
        """Queue *message*; `data_to_send` has its bytes.

        Raises:
          LocalProtocolError: if the rules do not allow it now. Nothing has changed.

        """
        ready: Encoded | None = None
        if isinstance(message, Encoded):
            ready, message = message, message.message
        said = type(message)
        if type(message) is Goodbye:
            self._say_goodbye(message)
            return
        if self.state is not State.OPEN:
            raise LocalProtocolError(f"{said.__name__} while the session is {self.state.value}")
        if said not in SAYS[self.role]:
            raise LocalProtocolError(f"a {self.role} may not say {said.__name__}")
        if NEWER.get(said, 0) > self.minor:
            raise LocalProtocolError(f"{said.__name__} to a peer of minor {self.minor}")
        assert self.theirs is not None
        if (type(message) is Chunk or type(message) is Reasoning) and not message.text:
            raise LocalProtocolError(f"a chunk without text for {message.request_id!r}")
        if type(message) is Credit and message.amount < 1:
            raise LocalProtocolError(f"credit of {message.amount} for {message.request_id!r}")
        limit = self.theirs.max_frame
        if ready is not None:
            frame = ready.frame(max_frame=limit, minor=self.minor)
        else:
            frame = encode(message, max_frame=limit, minor=self.minor)
        if said in _ABOUT_REQUESTS:
            self._move(_request_id(message), message, self.theirs.max_requests, len(frame))
        self._queue(frame)

    def data_to_send(self) -> bytes:
        """Everything queued, as one piece; empty if there is nothing."""
        if not self._outgoing:
            return b""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        self.pending = 0
        return data

    def _queue(self, frame: bytes) -> None:
        self._outgoing.append(frame)
        self.pending += len(frame)

    # ---- requests ----

    @property
    def requests(self) -> int:
        """Requests in flight."""
        return len(self._requests)

    @property
    def can_ask(self) -> bool:
        """True if the session is open and the listener takes one more request."""
        return (
            self.state is State.OPEN
            and self.theirs is not None
            and len(self._requests) < min(self.theirs.max_requests, MAX_REQUESTS)
        )

    def is_in_flight(self, request_id: str) -> bool:
        """True if a request with this id was asked and is not over."""
        return request_id in self._requests

    def cost(self, text: str) -> int:
        """Bytes of the window that *text* takes as a chunk, at the most."""
        if self.minor < 1:
            return len(text.encode())
        # The text is encoded once, with its frame: until then this is near enough.
        return MAX_CHUNK_FIELDS + (len(text) if text.isascii() else 4 * len(text))

    def send_window(self, request_id: str) -> int:
        """Bytes that may be sent for a request before its reader catches up."""
        request = self._requests.get(request_id)
        return WINDOW - request.ahead if request is not None else 0

    def _move(self, request_id: str, message: Any, limit: int, size: int) -> None:
        """Change a request's state, or raise `LocalProtocolError` and change nothing.

        *size* is that of the message's frame, in bytes.
        """
        request = self._requests.get(request_id)
        state = request.state if request is not None else None
        said = type(message)
        try:
            after = REQUEST_TRANSITIONS[state, said]
        except KeyError:
            known = state.value if state is not None else "not in flight"
            raise LocalProtocolError(
                f"{said.__name__} for request {request_id!r}, which is {known}"
            ) from None
        if request is None:
            if len(self._requests) >= limit:
                raise LocalProtocolError(f"more than {limit} requests in flight")
            self._requests[request_id] = _InFlight(RequestState.ASKED)
            return
        if said is Chunk or said is Reasoning:
            charged = size if self.minor else len(message.text.encode())
            ahead = request.ahead + charged
            if ahead > WINDOW:
                raise LocalProtocolError(f"{request_id!r} is {ahead} bytes ahead of its reader")
            request.ahead, self.charged = ahead, charged
        elif said is Credit:
            if message.amount > request.ahead:
                raise LocalProtocolError(f"credit for {request_id!r} beyond what was sent")
            request.ahead -= message.amount
        if after is None:
            del self._requests[request_id]
        else:
            request.state = after

    # ---- the end ----

    def _say_goodbye(self, goodbye: Goodbye) -> None:
        if self.state is not State.ENDED:
            # Short enough for the smallest frame that a peer may ask for.
            text = goodbye.message.encode(errors="replace")[:MAX_FAREWELL_BYTES]
            message = text.decode(errors="ignore")
            self._queue(encode(Goodbye(code=goodbye.code, message=message)))
            self._end()

    def _end(self) -> None:
        self.state = State.ENDED
        self._requests.clear()
        self._received.clear()


def greeting(*, namespace: str, incarnation: int, version: str) -> Hello:
    """The hello of this version of punch, for *namespace*."""
    return Hello(
        minor=MINOR,
        version=version,
        incarnation=incarnation,
        namespace=namespace,
        max_frame=MAX_FRAME_BYTES,
        max_requests=MAX_REQUESTS,
    )
