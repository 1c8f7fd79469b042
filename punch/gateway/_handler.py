"""Answers one HTTP request: asks the router once, or several times side by side.

Decides in which order answers are asked for, passed on, charged and ended, and what a failure of
one of them means for the request. The bytes and the watch over the client are `Client`'s, what
subscribers and headers say is `RequestAccount`'s, and how an answer is spelled is the shape's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import attrs
import trio

from .._logs import get_logger
from ..dialer import Answer, Router
from ..events import DISCONNECTED, STOPPED, RequestRecord
from ..exceptions import DeadlineExceeded, PunchError
from ..wire import CommandRequest, Thought
from ._client import Client, Receive, Send
from ._errors import Refusal, internal, out_of_time_in_queue, refusal_of, without_traceback
from ._json import as_json
from ._live import LiveRequests, RequestAccount
from ._shape import StreamShape, WholeShape
from .keys._charging import believed
from .keys._quotas import Admission
from .server import RequestCycle

log = get_logger(__name__)

# Text that one write may carry, in characters, if more is there at once: a packet or two.
MAX_WRITE_CHARACTERS = 4096


@attrs.frozen(kw_only=True)
class ParsedRequest:
    """An HTTP request as its endpoint has understood it."""

    requests: tuple[CommandRequest, ...]
    """The commands to ask, side by side."""

    whole: WholeShape
    """How to spell the answer in one piece."""

    stream: StreamShape | None = None
    """How to spell it as it is made; `None` if the client wants it whole."""

    taken: tuple[str, ...] = ()
    """Fields that turned out to change nothing for this request, besides those of its body."""


class RequestHandler:
    """Answers an HTTP request.

    Args:
      router: Asked for the answers.
      parsed: What to ask.
      record: What subscribers see of the request.
      live: Publishes its changes.
      receive: Receives the client's messages, as ASGI has it.
      send: Sends messages to the client, as ASGI has it.
      admit: `Quotas.admit` for its key and model.
      watch: What our own server knows of the client; `None` behind another one.

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
        admit: Callable[..., Admission],
        watch: RequestCycle | None = None,
    ) -> None:
        self._router = router
        self._parsed = parsed
        self._stream = parsed.stream
        self._record = record
        self._admit = admit
        self._account = RequestAccount(record, live, answers=len(parsed.requests))
        self._client = Client(
            receive=receive,
            send=send,
            account=self._account,
            stream=parsed.stream,
            watch=watch,
        )
        self._failure: Refusal | None = None

    async def run(self) -> None:
        """Answer, from the first question to the last byte."""
        record, client = self._record, self._client
        # A cancellation from outside runs no line of ours but `finally`, so its code is set first.
        record.error_code = STOPPED
        try:
            await client.while_there(self._answer_or_say_why_not)
        finally:
            if client.is_gone:
                record.error_code = DISCONNECTED
            self._account.close()

    async def _answer_or_say_why_not(self) -> None:
        try:
            await self._answer()
            self._record.error_code = None
        except Exception:
            # One request's bug is not the next one's.
            log.exception("a request met a bug", request_id=self._record.request_id)
            self._failure = internal()
        if self._failure is not None:
            await self._client.send_failure(self._failure)

    async def _answer(self) -> None:
        """Wait for admission, collect all answers, and send the end."""
        parsed = self._parsed
        try:
            async with self._admit(waiting=self._account.queued) as grant:
                try:
                    await self._collect_all(parsed.requests)
                finally:
                    # Also for a client that hung up: its key pays for what was made until then.
                    grant.charge(self._record.cost.tokens)
        except PunchError as error:
            self._failure = self._failure or refusal_of(error, endpoint=self._record.endpoint)
        if self._failure is not None:
            return
        responses = self._account.in_order()
        if self._stream is not None:
            await self._client.write(partial(self._stream.ended, responses), last=True)
            return
        try:
            whole = parsed.whole.whole(responses)
        except Refusal as refusal:
            self._failure = refusal
            return
        await self._client.send_whole(as_json(whole).encode(errors="replace"))

    async def _collect_all(self, requests: Sequence[CommandRequest]) -> None:
        if len(requests) == 1:
            # By far the most requests ask for one answer, which needs no nursery.
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
        account, record = self._account, self._record
        # The same id joins an answer under way or stored: only of the same endpoint, and only for
        # as many answers.
        scope = f"{record.endpoint} {len(self._parsed.requests)}"
        try:
            opened = self._router.answer(
                request, keep=record.chosen_id, scope=scope, key_id=record.key_id
            )
            async with opened as answer:
                account.answers[index] = answer
                try:
                    await self._pass_on(index, answer)
                    account.responses[index] = believed(answer.response, answer)
                finally:
                    # Before the answer is left to its other readers: then they are billed for it.
                    account.charge(index)
            self._client.name_model()
            if self._stream is not None:
                spell = partial(self._stream.finished, index, account.responses[index])
                await self._client.write(spell)
        except PunchError as error:
            self._failure = self._failure or self._refusal(error, answer)
            without_traceback(error)

    async def _pass_on(self, index: int, answer: Answer) -> None:
        client, stream = self._client, self._stream
        while (text := await answer.receive_part()) is not None:
            parts, size = [text], len(text)
            # What is there is taken; nothing is waited for while a part is in hand.
            while size < MAX_WRITE_CHARACTERS and (text := answer.part_there()) is not None:
                parts.append(text)
                size += len(text)
            client.quiet_since = trio.current_time()
            self._account.received(answer)
            client.name_model()
            if stream is None:
                continue
            for kind, run in itertools.groupby(parts, key=type):
                spell = stream.reasoning if kind is Thought else stream.text
                await client.write(partial(spell, index, list(run)))

    def _refusal(self, error: PunchError, answer: Answer | None) -> Refusal:
        if isinstance(error, DeadlineExceeded) and answer is not None and not answer.text:
            progress = answer.progress
            if progress is not None and progress.state in ("queued", "loading"):
                return out_of_time_in_queue(error, progress.seconds)
        decisions = () if answer is None else answer.decisions
        return refusal_of(error, decisions, endpoint=self._record.endpoint)
