"""Takes a request that asks a model from its headers and body to its `RequestHandler`.

Decides whether a request can be understood, under which id, and for which key. Fields and bodies
of a dialect are left to the endpoints in the room of each.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import attrs
import trio

from .._logs import get_logger
from ..dialer import Router, new_request_id
from ..events import DISCONNECTED, STOPPED, PromptRead, RequestRecord
from ..exceptions import PunchError
from ..wire import MARK, NO_HINTS, CommandRequest, Hints
from ._client import Receive, Send
from ._errors import (
    Dialect,
    Refusal,
    dialect_of,
    internal,
    refusal_of,
    without_traceback,
)
from ._handler import ParsedRequest, RequestHandler
from ._live import LiveRequests
from ._memory import BodyReservation, MemoryBudget, read_body
from ._offered import AUTO, Naming
from .bodies import Body, hints_in, read_aside
from .keys._charging import expected_tokens
from .keys._keys import Key
from .keys._quotas import Quotas
from .server import WATCH, ClientGone, Limits, discarding_body, has_body

log = get_logger(__name__)

Scope = Any

REQUEST_ID = b"x-request-id"

# The router takes 128; the key's id and the number of an answer (``#1``) are added behind it.
MAX_REQUEST_ID_CHARACTERS = 100


@attrs.frozen(kw_only=True)
class Service:
    """The objects that all endpoints share."""

    router: Router
    """Is asked for every answer."""

    live: LiveRequests
    """The requests under way."""

    limits: Limits = attrs.field(factory=Limits)
    """Limits of a client."""

    memory: MemoryBudget = attrs.field(
        default=attrs.Factory(lambda own: MemoryBudget(own.limits), True)
    )
    """Memory for the bodies of requests under way."""

    timeout: float = 300.0
    """Seconds for a whole answer, where the caller does not say."""

    strict: bool = False
    """Real inference only, whatever a request says."""

    naming: Naming = attrs.field(factory=Naming)
    """Decides which model a name means."""

    quotas: Quotas = attrs.field(factory=Quotas)
    """Decides when a request may begin."""

    stored_seconds: float = 0.0
    """For which a response can be referred to after its last use; 0 for none at all."""

    began_at: int = 0
    """When this gateway began, in seconds since 1970: what stands for the age of a model."""

    new_id: Callable[[], str] = new_request_id
    """Makes the id of a request whose caller has chosen none."""

    wall: Callable[[], float] = attrs.field()
    """The time, in seconds since 1970."""


@attrs.frozen(kw_only=True)
class RequestContext:
    """What an endpoint knows of a request besides its body."""

    request_id: str
    """The client's ``X-Request-ID``, or a fresh id."""

    model: str | None
    """The model that the body names, as it is offered, if it is; `None` for any."""

    asked: str | None
    """The model to ask for: what the key allows of what the body names; `None` for any."""

    hints: Hints = NO_HINTS
    """What is wished of the choice, and how exactly the model is named."""

    created: int
    """When the request came, in seconds since 1970."""

    key_id: str | None = None
    """Public id of the key that asks; `None` where none is needed."""


B = TypeVar("B", bound=Body)


class Endpoint(ABC, Generic[B]):
    """An endpoint that asks a model; an ASGI application.

    Args:
      service: What all endpoints work with.

    """

    path: ClassVar[str]
    """Template of the route."""

    body: type[B]
    """The model of the bodies that the endpoint accepts."""

    command: ClassVar[str] = "chat"
    """The feature that its models must have."""

    def __init__(self, service: Service) -> None:
        self.service = service

    @abstractmethod
    def parsed(self, body: B, context: RequestContext) -> ParsedRequest:
        """The commands that *body* asks for; raises `Refusal` or `PunchError`."""

    @abstractmethod
    def is_streamed(self, body: B) -> bool:
        """Whether *body* asks for a stream."""

    def model(self, body: B) -> str | None:
        """The model that *body* names, in its client's words; `None` for any."""
        name = getattr(body, "model", None)
        return None if name in (None, AUTO) else str(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        record = RequestRecord(request_id="", endpoint=self.path, began_at=trio.current_time())
        try:
            with self.service.memory.reserve(key_id_in(scope)) as reservation:
                await self._serve(record, scope, receive, send, reservation)
        finally:
            # Without a status or an error, nothing but a cancellation from outside got here.
            if record.status is None and record.error_code is None:
                record.error_code = STOPPED
            self.service.live.end(record)

    async def _serve(
        self,
        record: RequestRecord,
        scope: Scope,
        receive: Receive,
        send: Send,
        reservation: BodyReservation,
    ) -> None:
        service = self.service
        try:
            key, entry, parsed = await self._understand(record, scope, receive, reservation)
        except ClientGone:
            record.error_code = DISCONNECTED
            return
        except Exception as error:  # noqa: BLE001 - one request's bug is not the next one's
            refusal = self._refusal(error, record)
            record.error_code = refusal.cause
            work = partial(say, refusal, record, send)
            if reservation.is_read or not has_body(scope["punch.headers"]):
                await work()
                return
            # The rest of the body is unread, and would be taken for the next request.
            refusal.closes = True
            await discarding_body(receive, work)
            return
        service.live.start(record)
        events = service.live.events
        # A question is private: it leaves this function only for a subscriber that asks for it.
        if parsed.requests and events.wants(PromptRead):
            text = words_of(parsed.requests[0])
            events.publish(PromptRead(at=trio.current_time(), request=record, text=text))
        limit = max((request.timeout or 0.0 for request in parsed.requests), default=math.inf)
        admit = partial(
            service.quotas.admit,
            key,
            entry,
            tokens=expected_tokens(parsed.requests),
            # Each answer side by side takes a listener's slot, so each counts.
            weight=max(1, len(parsed.requests)),
            timeout=limit or math.inf,
        )
        await RequestHandler(
            router=service.router,
            parsed=parsed,
            record=record,
            live=service.live,
            receive=receive,
            send=send,
            admit=admit,
            watch=scope.get(WATCH),
        ).run()

    def _refusal(self, error: Exception, record: RequestRecord) -> Refusal:
        """The refusal for an *error* that came before the request was understood."""
        if isinstance(error, Refusal):
            return without_traceback(error)
        if isinstance(error, PunchError):
            return refusal_of(without_traceback(error), endpoint=self.path)
        log.exception("a request met a bug", request_id=record.request_id)
        return internal()

    async def _understand(
        self, record: RequestRecord, scope: Scope, receive: Receive, reservation: BodyReservation
    ) -> tuple[Key | None, str | None, ParsedRequest]:
        """The key, the model in the words of its list, and what to ask."""
        headers = scope["punch.headers"]
        key: Key | None = scope.get("punch.key")
        record.request_id = self.service.new_id()
        record.key_id = key_id_in(scope)
        if (traceparent := headers.get(b"traceparent")) is not None:
            record.traceparent = traceparent.decode("latin-1")
        if (own := request_id_in(headers)) is not None:
            # The key is part of the id: one key must never get the stored answer of another.
            record.request_id = own if key is None else f"{own}@{key.key_id}"
            record.chosen_id = True
        if (mark := headers.get(MARK.lower().encode())) is not None:
            check_loop(mark.decode("latin-1"), self.service.live)
        check_media_type(headers, anything=self.path.startswith("/api/"))
        memory = self.service.memory
        data = await read_body(scope, receive, self.service.limits, reservation)
        reading = await read_aside(self.body, data, memory.parsing)
        body, record.taken = reading.body, reading.taken
        record.said = record.model = self.model(body)
        record.stream = self.is_streamed(body)
        wanted = self.service.naming.wanted(
            record.said, self.service.router.names, command=self.command, key=key
        )
        record.model = wanted.model
        context = RequestContext(
            request_id=record.request_id,
            model=wanted.model,
            asked=wanted.asked,
            hints=hints_in(headers, wanted.naming),
            created=int(self.service.wall()),
            key_id=record.key_id,
        )
        parsed = self.parsed(body, context)
        record.taken += parsed.taken
        return key, wanted.entry, parsed


def check_loop(mark: str, live: LiveRequests) -> None:
    """Refuse a request that was made of one that is under way here: it would wait for itself."""
    if live.works_at(mark):
        raise Refusal(
            status=508,
            message="this gateway has asked itself: a server of models that one of its peers uses "
            "leads back here; take that server away from the peer (`punch adopt list`, or "
            "PUNCH_OPENAI_URL)",
            type="server_error",
            code="loop_detected",
            cause="no_peer",
        )


def key_id_in(scope: Scope) -> str | None:
    """Public id of the key that a request came with; `None` where none is needed."""
    key: Key | None = scope.get("punch.key")
    return None if key is None else key.key_id


def words_of(request: CommandRequest) -> str:
    """The question in *request*: its last message, its prompt or its first text."""
    if request.messages:
        return request.messages[-1].content
    return request.prompt or (request.inputs[0] if request.inputs else "")


def request_id_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The client's own id, if it sent one; raises `Refusal` if that cannot be one."""
    value = headers.get(REQUEST_ID)
    if value is None:
        return None
    text = value.decode("latin-1")
    if 1 <= len(text) <= MAX_REQUEST_ID_CHARACTERS and all("!" <= c <= "~" for c in text):
        return text
    raise Refusal(
        status=400,
        message=f"X-Request-ID must be 1 to {MAX_REQUEST_ID_CHARACTERS} printable ASCII characters "
        "without spaces",
        code="invalid_request_id",
        param="X-Request-ID",
    )


def check_media_type(headers: Mapping[bytes, bytes], *, anything: bool) -> None:
    """Refuse a body that is not JSON; with *anything*, trust any media type, as Ollama does."""
    said = headers.get(b"content-type", b"")
    if said in (b"", b"application/json"):
        return
    given = said.decode("latin-1")
    kind = given.split(";")[0].strip().lower()
    if anything or kind in ("", "application/json") or kind.endswith("+json"):
        return
    raise Refusal(
        status=415,
        message=f"the body is said to be {kind[:80]!r}; send it as application/json",
        code="unsupported_media_type",
        param="Content-Type",
    )


def id_headers(request_id: str | None, dialect: Dialect) -> list[tuple[bytes, bytes]]:
    """The headers that say the id of a request."""
    if request_id is None:
        return []
    value = request_id.encode("ascii", "replace")
    found = [(b"x-request-id", value)]
    # Anthropic's clients show this one with every error.
    return [*found, (b"request-id", value)] if dialect == "anthropic" else found


async def say(refusal: Refusal, record: RequestRecord, send: Send) -> None:
    """Send *refusal* in place of an answer."""
    record.status = refusal.status
    await send_refusal(refusal, dialect_of(record.endpoint), send, record.request_id)


async def send_refusal(
    refusal: Refusal, dialect: Dialect, send: Send, request_id: str | None = None
) -> None:
    """Send *refusal* in the form that clients of *dialect* read.

    Args:
      refusal: What to say.
      dialect: In whose shape.
      send: Sends messages to the client, as ASGI has it.
      request_id: Of the request; `None` if it was refused before it got one.

    """
    if request_id is None and dialect == "anthropic":
        # Its clients quote the id of every answer.
        request_id = new_request_id()
    data = refusal.body(dialect, request_id or "")
    headers_out = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
        *id_headers(request_id, dialect),
        *refusal.all_headers(),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers_out})
    await send({"type": "http.response.body", "body": data, "more_body": False})
