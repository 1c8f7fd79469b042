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

from .._background import acquire_now
from .._logs import get_logger
from ..dialer import Answer, Router
from ..events import DISCONNECTED, STOPPED, RequestRecord
from ..exceptions import DeadlineExceeded, PunchError
from ..wire import CommandRequest, CommandResponse, Progress, Provenance
from ._errors import Refusal, internal, out_of_time_in_queue, refusal_of, without_traceback
from ._headers import header_value, in_short, usage_of, what_is_waited_for, where_from
from ._live import LiveRequests
from ._shape import StreamShape, WholeShape
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


@attrs.frozen(kw_only=True)
class ParsedRequest:
    """What an endpoint has made of an HTTP request."""

    requests: tuple[CommandRequest, ...]
    """What to ask, all of it side by side."""

    whole: WholeShape
    """How to spell the answer in one piece."""

    stream: StreamShape | None = None
    """How to spell it as it is made; `None` if the client wants it whole."""


class Admit(Protocol):
    """Lets a request in when it is its turn, or refuses; `Quotas.admit` for one key and model."""

    def __call__(
        self, *, waiting: Callable[[int, float | None], None]
    ) -> AbstractAsyncContextManager[Grant]:
        """A context that is entered when it is its turn."""


class RequestHandler:
    """One HTTP request that is being answered.

    Args:
      router: Who is asked.
      parsed: What is asked.
      record: What subscribers see of it.
      live: Where its changes are published.
      receive: Takes what the client sends, ASGI's way.
      send: Sends to it.
      admit: Lets the request in when it is its turn, or refuses.

    """

    def __init__(
        self,
        *,
        router: Router,
        parsed: ParsedRequest,
        record: RequestRecord,
        live: LiveRequests,
        receive: Receive,
        send: Send,
        admit: Admit,
    ) -> None:
        self._router = router
        self._parsed = parsed
        self._stream = parsed.stream
        self._record = record
        self._live = live
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
        record = self._record
        # Whatever ends this from outside leaves it so: the gateway's own end.
        record.error_code = STOPPED
        try:
            await self._while_client_is_there(self._all, comments=True)
            record.error_code = None
            if self._failure is not None:
                await self._while_client_is_there(self._fail, self._failure)
            if self._gone:
                record.error_code = DISCONNECTED
        except Exception:
            # One request's bug is not the next one's.
            log.exception("a request met a bug", request_id=record.request_id)
            self._failure = internal()
            await self._while_client_is_there(self._fail, self._failure)
        finally:
            self._look()
            self._record.usage = usage_of(self._responses.values())

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
        self._record.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, spell: Callable[[], bytes], *, last: bool = False) -> None:
        """Send what *spell* gives; returns when the client, or its buffers, have taken it."""
        await acquire_now(self._lock)
        try:
            if self._is_done:
                return
            opening = b""
            if not self._is_open:
                # An answer that is whole has sent its head with its length before.
                assert self._stream is not None
                await self._open(200, self._stream.stream_type)
                opening = self._stream.began(self._model())
                self._is_nameless = self._record.provenance is None
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
        parsed = self._parsed
        try:
            async with self._admit(waiting=self._queued) as grant:
                try:
                    await self._collect_all(parsed.requests)
                finally:
                    grant.charge(self._record.cost.tokens)
        except PunchError as error:
            self._failure = self._failure or refusal_of(error, endpoint=self._record.endpoint)
        if self._failure is not None:
            return
        responses = [self._responses[index] for index in sorted(self._responses)]
        if self._stream is not None:
            await self._write(partial(self._stream.ended, responses), last=True)
            return
        try:
            whole = parsed.whole.whole(responses)
        except Refusal as refusal:
            self._failure = refusal
            return
        body = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        data = body.encode(errors="replace")
        await self._open(200, "application/json", len(data))
        await self._write(lambda: data, last=True)

    async def _collect_all(self, requests: Sequence[CommandRequest]) -> None:
        if len(requests) == 1:
            await self._collect(0, requests[0])
            return
        async with trio.open_nursery() as nursery:

            async def collect(index: int, request: CommandRequest) -> None:
                await self._collect(index, request)
                if self._failure is not None:
                    # Half of what was asked for is nothing that a client could use.
                    nursery.cancel_scope.cancel()

            for index, request in enumerate(requests):
                nursery.start_soon(collect, index, request)

    async def _collect(self, index: int, request: CommandRequest) -> None:
        """Take one answer, and pass it on as it comes."""
        answer: Answer | None = None
        record = self._record
        # One id is one request: of the same endpoint, and for as many answers.
        scope = f"{record.endpoint} {len(self._parsed.requests)}"
        try:
            asked = self._router.answer(request, keep=record.chosen_id, scope=scope)
            async with asked as answer:
                self._answers[index] = answer
                try:
                    await self._pass_on(index, answer)
                    self._responses[index] = believed(answer.response, answer)
                finally:
                    # However it ends, and before it is left to others who read it.
                    cost = cost_of(answer, self._responses.get(index))
                    record.cost = record.cost.plus(cost)
            self._name()
            if self._stream is not None:
                await self._write(partial(self._stream.finished, index, self._responses[index]))
        except PunchError as error:
            self._failure = self._failure or self._refusal(error, answer)
            without_traceback(error)

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
            if self._stream is not None:
                await self._write(partial(self._stream.text, index, parts))

    async def _comment(self) -> None:
        """Tell whoever waits what for: there was no text for a while."""
        self._quiet_since = trio.current_time()
        self._look()
        self._live.change(self._record)
        if self._stream is not None:
            waited = trio.current_time() - self._record.began_at
            words = what_is_waited_for(self._record.progress, waited)
            if comment := self._stream.comment(words):
                # Where there is none, the status stays open: it may still be an error.
                await self._write(lambda: comment)

    # ---- what subscribers see ----

    def _queued(self, ahead: int, seconds: float | None) -> None:
        """It has to wait for the gateway itself."""
        record = self._record
        record.progress = Progress(
            request_id=record.request_id, state="queued", ahead=ahead, seconds=seconds
        )
        self._live.change(record)

    def _heard(self, answer: Answer, parts: int) -> None:
        """So many parts of the text are there."""
        record = self._record
        record.texts += parts
        self._quiet_since = trio.current_time()
        if record.first_text_at is None:
            record.first_text_at = trio.current_time()
        elif answer.peer_id == record.peer_id or len(self._parsed.requests) > 1:
            return
        self._look()
        self._live.change(record)

    def _look(self) -> None:
        """Note on the record how things stand."""
        record, answers = self._record, list(self._answers.values())
        record.decisions = tuple(d for answer in answers for d in answer.decisions)
        record.attempts = tuple(a for answer in answers for a in answer.attempts)
        record.segments = tuple(s for answer in answers for s in answer.segments)
        for answer in answers:
            record.progress = answer.progress or record.progress
            record.peer_id = answer.peer_id or record.peer_id
            record.provenance = answer.provenance or record.provenance

    def _name(self) -> None:
        """Say who answers, if a comment opened the stream before that was known."""
        if not self._is_nameless:
            return
        self._look()
        if self._record.provenance is not None:
            self._is_nameless = False
            if self._stream is not None:
                self._stream.named(self._model())

    # ---- what the headers say ----

    def _model(self) -> str:
        """Name of the model that answers, as far as that is known."""
        provenance = self._record.provenance
        if provenance is not None and provenance.model is not None:
            return provenance.model
        return self._record.model or "auto"

    def _headers(self) -> list[tuple[bytes, bytes]]:
        self._look()
        record = self._record
        found = {"x-request-id": record.request_id}
        if record.peer_id is not None:
            found["x-punch-peer"] = record.peer_id
        if record.decisions:
            found["x-punch-decision"] = in_short(record.decisions[-1])
        elif self._responses:
            found["x-punch-decision"] = "replayed"
        provenance = record.provenance or self._expected()
        if provenance is not None:
            found["x-punch-provenance"] = where_from(provenance)
        if self._responses and self._stream is None:
            found["x-punch-segments"] = str(len(record.segments))
        return [(name.encode(), header_value(value)) for name, value in found.items()]

    def _expected(self) -> Provenance | None:
        """Where the answer will come from, as its peer claims: it must say the same later."""
        record = self._record
        if record.peer_id is None or not record.decisions:
            return None
        decision = record.decisions[-1]
        candidate = decision.best_of(record.peer_id)
        if candidate is None:
            return None
        return Provenance(
            kind="simulated" if candidate.lane.simulated else "real",
            backend=candidate.lane.backend,
            model=candidate.offer.name,
            model_digest=candidate.offer.digest,
        )

    # ---- what went wrong ----

    def _refusal(self, error: PunchError, answer: Answer | None) -> Refusal:
        if isinstance(error, DeadlineExceeded) and answer is not None and not answer.text:
            progress = answer.progress
            if progress is not None and progress.state in ("queued", "loading"):
                return out_of_time_in_queue(error, progress.seconds)
        decisions = () if answer is None else answer.decisions
        return refusal_of(error, decisions, endpoint=self._record.endpoint)

    async def _fail(self, refusal: Refusal) -> None:
        """Say that there is no answer, or no more of it."""
        self._record.error_code = refusal.cause
        if self._is_open:
            data = b"" if self._stream is None else self._stream.failed(refusal)
        else:
            data = refusal.body(self._record.endpoint)
            await self._open(refusal.status, "application/json", len(data))
        await self._write(lambda: data, last=True)
