"""One answer, or several side by side, for one HTTP request.

What every endpoint has in common: the client is watched, and leaving it is leaving the answer;
what arrives is passed on at once and nothing is kept; whoever waits is told what for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Protocol

import attrs
import trio

from .._background import take
from .._logs import get_logger
from ..dialer import Answer, Router
from ..exceptions import DeadlineExceeded, PunchError
from ..wire import CommandRequest, CommandResponse, Progress, Provenance
from ._errors import Refusal, internal, out_of_time_in_queue, refusal_of, untied
from ._exchange import DISCONNECTED, STOPPED, Exchange, Observers
from ._headers import header_value, in_short, usage_of, what_is_waited_for, where_from
from .keys._charging import believed, cost_of
from .keys._quotas import Grant

log = get_logger(__name__)

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

# Proxies and clients give a silent stream up after 30 to 60 s; a listener says every five that a
# request still waits.
COMMENT_SECONDS = 5.0

# What a server may take over the last bytes of an answer once it has said that the client left.
LAST_BYTE_SECONDS = 1.0

# Text that one write may carry, in characters, if more is there at once: a packet or two.
MOST_AT_ONCE = 4096


class Shape(Protocol):
    """How one endpoint spells answers. Knows no network; `_openai_shapes` has the first of them."""

    stream_type: str
    """Media type of a stream."""

    def began(self, model: str) -> bytes:
        """What opens a stream, answered by *model*."""

    def named(self, model: str) -> None:
        """It is *model* after all: a stream may begin before that is known."""

    def text(self, index: int, parts: Sequence[str]) -> bytes:
        """The next parts of the text of one answer, each in an event of its own."""

    def comment(self, words: str) -> bytes:
        """What the client waits for, if there is a way to say it."""

    def finished(self, index: int, response: CommandResponse) -> bytes:
        """The end of one answer, and all that is known only then."""

    def ended(self, responses: Sequence[CommandResponse]) -> bytes:
        """The end of the stream."""

    def failed(self, refusal: Refusal) -> bytes:
        """The end of a stream that broke."""

    def whole(self, responses: Sequence[CommandResponse]) -> dict[str, Any]:
        """All of it at once, for a client that wants no stream."""


@attrs.frozen(kw_only=True)
class Question:
    """What an endpoint has made of an HTTP request."""

    requests: tuple[CommandRequest, ...]
    """What to ask, all of it side by side."""

    stream: bool
    """Send the answer as it is made."""

    shape: Shape
    """How to say it."""


class Admit(Protocol):
    """Lets a request in when it is its turn, or refuses; `Quotas.admit` for one key and model."""

    def __call__(
        self, *, waiting: Callable[[int, float | None], None]
    ) -> AbstractAsyncContextManager[Grant]:
        """A context that is entered when it is its turn."""


class Answering:
    """One HTTP request that is being answered.

    Args:
      router: Who is asked.
      question: What is asked.
      exchange: What observers see of it.
      observers: The observers.
      receive: Takes what the client sends, ASGI's way.
      send: Sends to it.
      admit: Lets the request in when it is its turn, or refuses.

    """

    def __init__(
        self,
        *,
        router: Router,
        question: Question,
        exchange: Exchange,
        observers: Observers,
        receive: Receive,
        send: Send,
        admit: Admit,
    ) -> None:
        self._router = router
        self._question = question
        self._shape = question.shape
        self._exchange = exchange
        self._observers = observers
        self._receive = receive
        self._send = send
        self._admit = admit
        self._answers: dict[int, Answer] = {}
        self._responses: dict[int, CommandResponse] = {}
        self._failure: Refusal | None = None
        self._gone = False
        self._is_open = False
        self._is_done = False
        self._is_nameless = False
        self._lock = trio.Lock()
        self._quiet_since = trio.current_time()

    async def run(self) -> None:
        """Answer, from the first question to the last byte."""
        exchange = self._exchange
        # Whatever ends this from outside leaves it so: the gateway's own end.
        exchange.error_code = STOPPED
        try:
            await self._while_client_is_there(self._all, comments=True)
            exchange.error_code = None
            if self._failure is not None:
                await self._while_client_is_there(self._fail, self._failure)
            if self._gone:
                exchange.error_code = DISCONNECTED
        except Exception:
            # One request's bug is not the next one's.
            log.exception("a request met a bug", request_id=exchange.request_id)
            self._failure = internal()
            await self._while_client_is_there(self._fail, self._failure)
        finally:
            self._look()
            self._exchange.usage = usage_of(self._responses.values())

    # ---- the client ----

    async def _while_client_is_there(
        self, work: Callable[..., Awaitable[None]], *args: Any, comments: bool = False
    ) -> None:
        """Do *work* until it is done or the client goes away, which is told what it waits for."""
        if self._gone:
            return
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while not await self._leaves(comments=comments):
                    # In a task of its own: to ask for text with a time limit would have the
                    # router begin anew with whatever it waits for.
                    await self._comment()
                if self._is_done:
                    # Servers say so as well when the last byte has left, and are still busy with
                    # it. But not for long: a byte that never leaves would hold all of this.
                    await trio.sleep(LAST_BYTE_SECONDS)
                self._gone = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await work(*args)
            nursery.cancel_scope.cancel()

    async def _leaves(self, *, comments: bool) -> bool:
        """Wait until the client goes away; with *comments*, or until it is time for one."""
        while True:
            due = self._quiet_since + COMMENT_SECONDS if comments else math.inf
            if trio.current_time() >= due:
                return False
            with trio.move_on_at(due):
                if (await self._receive())["type"] == "http.disconnect":
                    return True

    async def _open(self, status: int, kind: str, length: int | None = None) -> None:
        """Send the headers, once."""
        if self._is_open:
            return
        self._is_open = True
        headers = [(b"content-type", kind.encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        else:
            # nginx keeps a stream back until it has a buffer full, unless it is told not to.
            headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        headers += self._headers()
        if self._failure is not None:
            headers += self._failure.all_headers()
        self._exchange.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, spell: Callable[[], bytes], *, last: bool = False) -> None:
        """Send what *spell* gives; returns when the client, or its buffers, have taken it."""
        await take(self._lock)
        try:
            if self._is_done:
                return
            opening = b""
            if not self._is_open:
                await self._open(200, self._shape.stream_type)
                opening = self._shape.began(self._model())
                self._is_nameless = self._exchange.provenance is None
            data = opening + spell()
            self._is_done = last
            if data or last:
                body = {"type": "http.response.body", "body": data, "more_body": not last}
                await self._send(body)
        finally:
            self._lock.release()

    # ---- answers ----

    async def _all(self) -> None:
        """Be let in, take all answers, and say the end."""
        question = self._question
        try:
            async with self._admit(waiting=self._queued) as grant:
                try:
                    await self._take_all(question.requests)
                finally:
                    grant.charge(self._exchange.cost.tokens)
        except PunchError as error:
            self._failure = self._failure or refusal_of(error, endpoint=self._exchange.endpoint)
        if self._failure is not None:
            return
        responses = [self._responses[index] for index in sorted(self._responses)]
        if question.stream:
            await self._write(partial(self._shape.ended, responses), last=True)
            return
        try:
            whole = self._shape.whole(responses)
        except Refusal as refusal:
            self._failure = refusal
            return
        body = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        data = body.encode(errors="replace")
        await self._open(200, "application/json", len(data))
        await self._write(lambda: data, last=True)

    async def _take_all(self, requests: Sequence[CommandRequest]) -> None:
        if len(requests) == 1:
            await self._take(0, requests[0])
            return
        async with trio.open_nursery() as nursery:

            async def take(index: int, request: CommandRequest) -> None:
                await self._take(index, request)
                if self._failure is not None:
                    # Half of what was asked for is nothing that a client could use.
                    nursery.cancel_scope.cancel()

            for index, request in enumerate(requests):
                nursery.start_soon(take, index, request)

    async def _take(self, index: int, request: CommandRequest) -> None:
        """Take one answer, and pass it on as it comes."""
        answer: Answer | None = None
        exchange = self._exchange
        # One id is one request: of the same endpoint, and for as many answers.
        scope = f"{exchange.endpoint} {len(self._question.requests)}"
        try:
            asked = self._router.answer(request, keep=exchange.chosen_id, scope=scope)
            async with asked as answer:
                self._answers[index] = answer
                try:
                    await self._pass_on(index, answer)
                    self._responses[index] = believed(answer.response, answer)
                finally:
                    # However it ends, and before it is left to others who read it.
                    cost = cost_of(answer, self._responses.get(index))
                    exchange.cost = exchange.cost.plus(cost)
            self._name()
            if self._question.stream:
                await self._write(partial(self._shape.finished, index, self._responses[index]))
        except PunchError as error:
            self._failure = self._failure or self._refusal(error, answer)
            untied(error)

    async def _pass_on(self, index: int, answer: Answer) -> None:
        while (text := await answer.receive()) is not None:
            parts, size = [text], len(text)
            # What is there is taken; nothing is waited for while a part is in hand.
            with suppress(trio.WouldBlock):
                while size < MOST_AT_ONCE and (text := answer.receive_nowait()) is not None:
                    parts.append(text)
                    size += len(text)
            self._heard(answer, len(parts))
            self._name()
            if self._question.stream:
                await self._write(partial(self._shape.text, index, parts))

    async def _comment(self) -> None:
        """Tell whoever waits what for: there was no text for a while."""
        self._quiet_since = trio.current_time()
        self._look()
        self._observers.changed(self._exchange)
        if self._question.stream:
            waited = trio.current_time() - self._exchange.began_at
            words = what_is_waited_for(self._exchange.progress, waited)
            if comment := self._shape.comment(words):
                # Where there is none, the status stays open: it may still be an error.
                await self._write(lambda: comment)

    # ---- what observers see ----

    def _queued(self, ahead: int, seconds: float | None) -> None:
        """It has to wait for the gateway itself."""
        exchange = self._exchange
        exchange.progress = Progress(
            request_id=exchange.request_id, state="queued", ahead=ahead, seconds=seconds
        )
        self._observers.changed(exchange)

    def _heard(self, answer: Answer, parts: int) -> None:
        """So many parts of the text are there."""
        exchange = self._exchange
        exchange.texts += parts
        self._quiet_since = trio.current_time()
        if exchange.first_text_at is None:
            exchange.first_text_at = trio.current_time()
        elif answer.peer_id == exchange.peer_id or len(self._question.requests) > 1:
            return
        self._look()
        self._observers.changed(exchange)

    def _look(self) -> None:
        """Note on the exchange how things stand."""
        exchange, answers = self._exchange, list(self._answers.values())
        exchange.decisions = tuple(d for answer in answers for d in answer.decisions)
        exchange.attempts = tuple(a for answer in answers for a in answer.attempts)
        exchange.segments = tuple(s for answer in answers for s in answer.segments)
        for answer in answers:
            exchange.progress = answer.progress or exchange.progress
            exchange.peer_id = answer.peer_id or exchange.peer_id
            exchange.provenance = answer.provenance or exchange.provenance

    def _name(self) -> None:
        """Say who answers, if a comment opened the stream before that was known."""
        if not self._is_nameless:
            return
        self._look()
        if self._exchange.provenance is not None:
            self._is_nameless = False
            self._shape.named(self._model())

    # ---- what the headers say ----

    def _model(self) -> str:
        """Who answers, as far as that is known."""
        provenance = self._exchange.provenance
        if provenance is not None and provenance.model is not None:
            return provenance.model
        return self._exchange.model or "auto"

    def _headers(self) -> list[tuple[bytes, bytes]]:
        self._look()
        exchange = self._exchange
        found = {"x-request-id": exchange.request_id}
        if exchange.peer_id is not None:
            found["x-punch-peer"] = exchange.peer_id
        if exchange.decisions:
            found["x-punch-decision"] = in_short(exchange.decisions[-1])
        elif self._responses:
            found["x-punch-decision"] = "replayed"
        provenance = exchange.provenance or self._expected()
        if provenance is not None:
            found["x-punch-provenance"] = where_from(provenance)
        if self._responses and not self._question.stream:
            found["x-punch-segments"] = str(len(exchange.segments))
        return [(name.encode(), header_value(value)) for name, value in found.items()]

    def _expected(self) -> Provenance | None:
        """Where the answer will come from, as its peer claims: it must say the same later."""
        exchange = self._exchange
        if exchange.peer_id is None or not exchange.decisions:
            return None
        decision = exchange.decisions[-1]
        if exchange.peer_id not in decision.scored:
            return None
        record, _ = decision.scored[exchange.peer_id]
        offer = record.capability.offer(decision.request.model, decision.request.model_digest)
        return Provenance(
            kind="simulated" if record.capability.simulated else "real",
            backend=record.capability.backend,
            model=None if offer is None else offer.name,
            model_digest=None if offer is None else offer.digest,
        )

    # ---- what went wrong ----

    def _refusal(self, error: PunchError, answer: Answer | None) -> Refusal:
        if isinstance(error, DeadlineExceeded) and answer is not None and not answer.text:
            progress = answer.progress
            if progress is not None and progress.state in ("queued", "loading"):
                return out_of_time_in_queue(error, progress.seconds)
        decisions = () if answer is None else answer.decisions
        return refusal_of(error, decisions, endpoint=self._exchange.endpoint)

    async def _fail(self, refusal: Refusal) -> None:
        """Say that there is no answer, or no more of it."""
        self._exchange.error_code = refusal.cause
        if self._is_open:
            data = self._shape.failed(refusal) if self._question.stream else b""
        else:
            data = refusal.body(self._exchange.endpoint)
            await self._open(refusal.status, "application/json", len(data))
        await self._write(lambda: data, last=True)
