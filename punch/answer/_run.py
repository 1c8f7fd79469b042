"""One request on its way: the loop that decides, acts and reports."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from ..capability import PeerId
from ..decision_log import scrubbed
from ..exceptions import (
    PeerError,
    PeerFailed,
    PeerRefused,
    PeerTimeout,
    PeerUnreachable,
    PunchError,
    RequestError,
)
from ..logs import get_logger
from ..node import Call
from ..peers import PeerRecord
from ..routing import (
    PATIENCE_FACTOR,
    Attempt,
    Attempts,
    Decision,
    GiveUp,
    Presence,
    Reason,
    Seam,
    Try,
    Wait,
)
from ..wire import (
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    Progress,
    Provenance,
    Segment,
    Started,
    Usage,
)
from ._asked import Asked
from ._dispatch import Dispatch
from ._verdict import check_provenance, error_in

log = get_logger(__name__)

# Longer than any answer people wait for, short enough that nothing hangs for ever.
USUAL_TIMEOUT = 300.0

# How much earlier than we a listener may find that the time ran out, in seconds.
CLOCK_DIFFERENCE = 1.0

# How long the same id waits for an earlier call of its own to be over: a listener has 100 ms to
# stop, and the word has to travel.
CANCEL_SECONDS = 2.0

# The longest answer there can be: a million tokens of four characters. Where the caller set a
# limit, so many characters for each token, which is far more than any tokenizer has.
MOST_CHARACTERS = 4 << 20
LONGEST_TOKEN = 64
SPARE_CHARACTERS = 4096

# Searching a peer's words for what it was asked takes a fifth of a second for a megabyte.
MOST_SEARCHED = 128 << 10


class Run:
    """One request, from the first decision to the response or the error.

    Nothing runs by itself: whoever wants more text calls `advance`, one task at a time. It can
    be cancelled at any await and called again.
    """

    def __init__(self, dispatch: Dispatch, request: CommandRequest) -> None:
        self.request = request
        self.decisions: list[Decision] = []
        """Every decision that led to a try, or to giving up, in order."""
        self.parts: list[str] = []
        """The text so far."""
        self.response: CommandResponse | None = None
        """The whole, once it is complete."""
        self.error: PunchError | None = None
        """Why there will be no more, if it failed."""
        self.progress: Progress | None = None
        """What the peer last said it waits for."""
        self._dispatch = dispatch
        self._began = trio.current_time()
        self._deadline = self._began + (request.timeout or USUAL_TIMEOUT)
        self._attempts = Attempts(deadline=self._deadline, continuable=request.continuable)
        self._asked: list[Asked] = []
        self._segments: list[Segment] = []
        self._tokens_before = 0
        self._provenance: Provenance | None = None
        self._chat_template: str | None = None
        self._first_text_at: float | None = None
        self._hedge_at = math.inf

    @property
    def is_over(self) -> bool:
        """True once there is a response or an error."""
        return self.response is not None or self.error is not None

    @property
    def deadline(self) -> float:
        """When the last of those who wait for it gives up, in seconds of trio's clock."""
        return self._deadline

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The tries that failed, in order."""
        return self._attempts.failed_attempts

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Who has delivered which part, as far as that is over."""
        return tuple(self._segments)

    async def advance(self) -> None:
        """Go on until there is more text, or the end."""
        had = len(self.parts)
        try:
            while len(self.parts) == had and self.response is None:
                if self._asked:
                    await self._listen()
                else:
                    await self._ask_next()
        except PunchError as error:
            self.error = error
            self._drop_all()
        if self.is_over:
            self._log_end()

    def extend(self, deadline: float) -> None:
        """Somebody else waits for it as well, until *deadline*."""
        self._deadline = max(self._deadline, deadline)
        self._attempts.extend(deadline)

    def stored(self) -> Run:
        """A copy of a complete one, without the prompt and the snapshots of every peer."""
        lean = copy.copy(self)
        lean.request = attrs.evolve(self.request, messages=(), prompt=None, inputs=())
        lean.decisions = []
        # What failed holds the frames in which it did, and these all the rest.
        lean._attempts = Attempts(deadline=self._deadline)
        return lean

    def abandon(self) -> None:
        """Nobody wants it any more: stop whoever works on it."""
        if not self.is_over:
            self._drop_all()
            self._log_end(status="cancelled")

    # ---- asking ----

    async def _ask_next(self) -> None:
        """Decide whom to ask, and ask; raises when there is nobody."""
        dispatch, attempts = self._dispatch, self._attempts
        request = self._what_is_left()
        if request is None:
            self._complete("length")
            return
        decision = self._decide(request)
        if decision.chosen is None and not attempts.failed_attempts:
            await dispatch.settle(self._deadline)
            decision = self._decide(request)
        now = trio.current_time()
        step = attempts.next_step(decision, now=now, budget=dispatch.retries)
        if isinstance(step, Wait):
            with trio.move_on_at(step.until):
                await dispatch.links.change()
            return
        self._note(decision, attempts.reason)
        if isinstance(step, GiveUp):
            raise dispatch.with_unreachable(step.error)
        if step.reason == "first":
            dispatch.began(now)
            self._hedge_at = now + self._lateness(decision, step.peer_id)
        await self._ask(step, decision, request)

    def _what_is_left(self) -> CommandRequest | None:
        """What the next peer is to be asked; `None` if the answer has all its tokens."""
        request, so_far = self.request, "".join(self.parts)
        if not so_far:
            return request
        assert self._provenance is not None, "text is taken from a peer that said where it is from"
        sampling = request.sampling
        if sampling.max_tokens is not None:
            left = sampling.max_tokens - self._attempts.tokens
            if left <= 0:
                return None
            sampling = attrs.evolve(sampling, max_tokens=left)
        return attrs.evolve(
            request,
            sampling=sampling,
            continuation=(request.continuation or "") + so_far,
            model_digest=self._provenance.model_digest or request.model_digest,
        )

    def _decide(self, request: CommandRequest, but: Sequence[Asked] = ()) -> Decision:
        dispatch = self._dispatch
        tried = self._attempts.tried(dispatch.presence) | {asked.peer_id for asked in but}
        return dispatch.decide(
            request,
            tried=tried,
            now=trio.current_time(),
            chat_template=self._chat_template,
            alternative=bool(but),
        )

    def _note(self, decision: Decision, reason: Reason) -> None:
        self.decisions.append(decision)
        if self._dispatch.log is not None:
            self._dispatch.log.decided(self.request.request_id, decision, reason=reason)

    async def _ask(self, step: Try, decision: Decision, request: CommandRequest) -> None:
        dispatch, peer_id = self._dispatch, step.peer_id
        record, _ = decision.scored[peer_id]
        offer = record.capability.offer(request.model, request.model_digest)
        assert offer is not None, "it passed the filter for models"
        try:
            call = await self._call(peer_id, request)
        except PeerError as error:
            self._failed(record, offer.name, step.reason, error)
            return
        asked = Asked(
            call,
            request=request,
            decision=decision,
            record=record,
            offer=offer,
            reason=step.reason,
            patience=step.patience + self._whole_patience(decision, peer_id),
            stay=dispatch.sent(request, decision, peer_id, offer.name),
            seam=Seam(request.continuation, request.sampling.stop)
            if request.continuation and request.sampling.stop
            else None,
        )
        self._asked.append(asked)

    def _whole_patience(self, decision: Decision, peer_id: PeerId) -> float:
        """How much longer a peer may be silent that was asked for the whole answer at once."""
        decode = decision.term(peer_id, "decode")
        return 0.0 if self.request.stream or decode is None else PATIENCE_FACTOR * decode

    async def _call(self, peer_id: PeerId, request: CommandRequest) -> Call:
        session = self._dispatch.links.session(peer_id)
        if session is None:
            raise PeerUnreachable(f"{peer_id}: the connection was lost")
        if (before := session.cancelling(request.request_id)) is not None:
            with trio.move_on_after(CANCEL_SECONDS):
                await before.confirmed()
            if session.cancelling(request.request_id) is not None:
                raise PeerTimeout(f"{peer_id}: has not stopped an earlier request with this id")
        timeout = max(self._deadline - trio.current_time(), 1e-3)
        return session.ask(attrs.evolve(request, timeout=timeout))

    async def _move(self, asked: Asked, progress: Progress) -> None:
        """Leave a queue if another peer would be done earlier."""
        if progress.state != "queued" or progress.seconds is None or len(self._asked) > 1:
            return
        before = asked.decision
        decision = self._decide(asked.request, but=[asked])
        if before.unit != "s" or decision.chosen is None:
            return
        own = before.score(asked.peer_id) - (before.term(asked.peer_id, "queue") or 0.0)
        now = trio.current_time()
        step = self._attempts.move(decision, seconds=progress.seconds + own, now=now)
        if step is not None:
            self._drop(asked)
            self._note(decision, step.reason)
            await self._ask(step, decision, asked.request)

    # ---- hedging ----

    def _lateness(self, decision: Decision, peer_id: PeerId) -> float:
        """Seconds after which a second peer is asked."""
        hedge = self._dispatch.hedge
        if hedge is None:
            return math.inf
        first = decision.seconds_to_first_text(peer_id)
        return hedge.least if first is None else max(hedge.least, hedge.factor * first)

    async def _hedge(self) -> None:
        """Ask a second peer beside the first, if there is one and the budget allows it."""
        self._hedge_at = math.inf
        decision = self._decide(self.request, but=self._asked)
        if decision.chosen is None or not self._dispatch.may_hedge(trio.current_time()):
            return
        self._note(decision, "hedge")
        patience = self._attempts.patience(decision, decision.chosen)
        step = Try(peer_id=decision.chosen, patience=patience, reason="hedge")
        await self._ask(step, decision, self.request)

    def _won(self, winner: Asked) -> None:
        """The first to say something answers; the others stop."""
        self._hedge_at = math.inf
        for loser in [asked for asked in self._asked if asked is not winner]:
            self._drop(loser)

    # ---- listening ----

    async def _listen(self) -> None:
        """Take what comes next from whoever was asked."""
        for asked in self._asked:
            try:
                part = asked.call.receive_nowait()
                if part is not None:
                    self._take(asked, part)
                    if type(part) is Progress:
                        await self._move(asked, part)
                    return
            except PeerError as error:
                self._fault(asked, error)
                return
        await self._wait()

    async def _wait(self) -> None:
        asked = self._asked
        limit = min(self._deadline, self._hedge_at, *[a.patient_until for a in asked])
        with trio.move_on_at(limit):
            if len(asked) == 1:
                await asked[0].call.ready()
            else:
                await _any_ready([a.call for a in asked])
            return
        now = trio.current_time()
        if now >= self._deadline:
            raise self._attempts.out_of_time()
        if now >= self._hedge_at:
            await self._hedge()
        for late in [a for a in asked if now >= a.patient_until]:
            self._overdue(late)

    def _overdue(self, asked: Asked) -> None:
        """A peer is silent for longer than is usual: give it up if another could do better."""
        if self._asked == [asked]:
            request = self._what_is_left()
            other = None if request is None else self._decide(request, but=[asked])
            if other is not None and not self._attempts.can_continue(other):
                asked.wait_on()
                return
        self._fault(asked, PeerTimeout(f"{asked.peer_id}: {asked.what_is_missing()}"))

    def _take(self, asked: Asked, part: Started | Progress | Chunk | CommandResponse) -> None:
        if type(part) is Chunk:
            self._deliver(asked, part.text, part.tokens)
        elif type(part) is CommandResponse:
            self._finish(asked, part)
        elif type(part) is Started:
            self._check_provenance(asked, part.provenance)
            asked.started(part.provenance)
        elif type(part) is Progress:
            self.progress = part
            asked.waits(part)

    def _check_provenance(self, asked: Asked, provenance: Provenance) -> None:
        check_provenance(
            provenance, request=asked.request, peer=asked.record, before=asked.provenance
        )

    def _deliver(self, asked: Asked, text: str, tokens: int) -> None:
        """Take text from a peer, and give the caller what is certain to belong to the answer."""
        if len(self._asked) > 1 or self._hedge_at != math.inf:
            self._won(asked)
        if self._first_text_at is None:
            self._first_text_at = trio.current_time()
        text, tokens = asked.heard(text, tokens)
        if text:
            self._check_length(asked, text)
            self._append(asked, text, tokens)
        if asked.seam is not None and asked.seam.stopped:
            self._leave(asked)
            asked.call.cancel()
            self._close_segment(asked, "stop")
            self._log_attempt(asked, "success")
            self._complete("stop", asked)

    def _check_length(self, asked: Asked, text: str) -> None:
        """Refuse more text than the answer can have."""
        limit, most = self.request.sampling.max_tokens, MOST_CHARACTERS
        if limit is not None:
            most = min(most, SPARE_CHARACTERS + LONGEST_TOKEN * limit)
        if self._attempts.characters + len(text) > most:
            raise PeerFailed(f"{asked.peer_id}: sent more than the {most} characters there can be")

    def _append(self, asked: Asked, text: str, tokens: int) -> None:
        self.parts.append(text)
        asked.delivered(text, tokens)
        provenance = self._provenance = asked.provenance
        self._chat_template = asked.chat_template
        digest = provenance.model_digest if provenance is not None else None
        if self.request.command == "chat" and self._chat_template is None:
            digest = None
        self._attempts.delivered(tokens=tokens, characters=len(text), digest=digest)

    def _finish(self, asked: Asked, response: CommandResponse) -> None:
        """Take the peer's last word, and the text that comes with it."""
        try:
            self._check_response(asked, response)
        except PeerError:
            raise
        except RequestError as error:
            if self.parts or len(self._asked) > 1:
                # Others could, or can: it is this peer that cannot.
                raise PeerRefused(f"{asked.peer_id}: {error}") from error
            self._lose(asked, error)
            raise
        except PunchError as error:
            self._lose(asked, error)
            raise
        self._won(asked)
        self._leave(asked)
        result = response.result or Completion()
        asked.provenance = response.provenance
        text, tokens = asked.last_heard(result.text, response.usage.completion_tokens)
        if text:
            self._append(asked, text, tokens)
        else:
            asked.delivered("", tokens)
        self._dispatch.succeeded(
            asked.request,
            asked.peer_id,
            response,
            text=asked.text,
            prefill_seen=asked.prefill_seen,
            decode_seen=asked.decode_seen,
        )
        self._close_segment(asked, result.finish_reason)
        self._log_attempt(asked, "success")
        self.response = self._whole(response, result, asked)

    def _check_response(self, asked: Asked, response: CommandResponse) -> None:
        """Raise what the response says went wrong, or what is wrong with it."""
        peer_id = asked.peer_id
        if response.load is not None:
            self._dispatch.table.reported(peer_id, response.load)
        if response.executor != peer_id:
            raise PeerFailed(f"{peer_id}: answers in the name of {response.executor}")
        if response.status == "timeout":
            # Its clock runs as ours does, a little later: it cannot know much earlier than we.
            if trio.current_time() < self._deadline - CLOCK_DIFFERENCE:
                raise PeerFailed(f"{peer_id}: says that the time ran out, and it did not")
            raise self._attempts.out_of_time()
        if response.status != "success":
            raise error_in(response, peer_id)
        if self.request.command in ("chat", "complete", "embed"):
            if response.provenance is None:
                raise PeerFailed(f"{peer_id}: does not say where its answer comes from")
            self._check_provenance(asked, response.provenance)

    # ---- leaving a peer ----

    def _fault(self, asked: Asked, error: PeerError) -> None:
        """A peer's fault: note it, tell the table, and let the loop go on."""
        asked.call.cancel()
        self._lose(asked, error)
        self._tokens_before += asked.tokens
        self._close_segment(asked, str(error).removeprefix(f"{asked.peer_id}: "))

    def _lose(self, asked: Asked, error: PunchError) -> None:
        self._leave(asked)
        self._failed(asked.record, asked.offer.name, asked.reason, error, asked)

    def _failed(
        self,
        record: PeerRecord,
        model: str,
        reason: Reason,
        error: PunchError,
        asked: Asked | None = None,
    ) -> None:
        peer_id, seconds = record.peer_id, 0.0 if asked is None else asked.seconds
        request_id = self.request.request_id
        # Not what a peer says of it, which may quote the prompt.
        log.info(
            "an attempt failed",
            request_id=request_id,
            peer=peer_id,
            why=error.code,
            seconds=round(seconds, 3),
        )
        session = None if asked is None else asked.call.session
        presence = Presence(incarnation=record.incarnation, session=session)
        self._attempts.failed(peer_id, error, seconds=seconds, presence=presence)
        if isinstance(error, PeerError):
            at = trio.current_time() - seconds
            self._dispatch.failed(peer_id, model, error, asked_at=at)
        if asked is not None:
            self._log_attempt(asked, error.code, error=error)
        elif self._dispatch.log is not None:
            self._dispatch.log.attempted(
                request_id, peer_id=peer_id, reason=reason, outcome=error.code,
                error=self._scrubbed(str(error)),
                seconds=0.0, first_text=None, tokens=0, characters=0,
            )  # fmt: skip

    def _leave(self, asked: Asked) -> None:
        self._asked.remove(asked)
        self._dispatch.table.ended(asked.peer_id, model=asked.offer.name, stay=asked.stay)

    def _drop(self, asked: Asked) -> None:
        """Stop a peer, and log what it had done once it has stopped.

        That is its fault only if it took far longer than it should have: whoever promises much
        and runs each request into its deadline would be asked first for ever.
        """
        self._leave(asked)
        asked.call.cancel()
        if asked.is_overdue:
            fault = PeerTimeout(f"{asked.peer_id}: far slower than predicted")
            self._dispatch.failed(asked.peer_id, asked.offer.name, fault, asked_at=asked.at)
        self._tokens_before += asked.tokens
        self._close_segment(asked, "cancelled")
        self._dispatch.when_stopped(
            asked.call, lambda tokens: self._log_attempt(asked, "cancelled", tokens=tokens)
        )

    def _drop_all(self) -> None:
        for asked in tuple(self._asked):
            self._drop(asked)

    def _close_segment(self, asked: Asked, reason: str) -> None:
        if asked.characters:
            self._segments.append(
                Segment(
                    peer_id=asked.peer_id,
                    tokens=asked.tokens,
                    characters=asked.characters,
                    seconds=asked.seconds,
                    reason=reason,
                )
            )

    # ---- the end ----

    def _complete(self, finish_reason: str, last: Asked | None = None) -> None:
        """End an answer that nobody has to be asked about any more."""
        peer_id = last.peer_id if last is not None else self._segments[-1].peer_id
        response = CommandResponse(
            request_id=self.request.request_id,
            status="success",
            executor=peer_id,
            provenance=self._provenance or (last.provenance if last is not None else None),
            usage=Usage(completion_tokens=0 if last is None else last.tokens),
        )
        self.response = self._whole(response, Completion(finish_reason=finish_reason), last)

    def _whole(
        self, response: CommandResponse, result: Completion, last: Asked | None
    ) -> CommandResponse:
        """The last peer's response, made that of the whole answer."""
        usage = response.usage
        if self._tokens_before:
            # What others had delivered was part of the prompt for the last one.
            usage = _of_the_whole(usage, self._tokens_before)
        return attrs.evolve(
            response,
            result=attrs.evolve(result, text="".join(self.parts)),
            usage=usage,
            decision=self.decisions[-1].as_dict(),
            attempts=tuple(_as_dict(attempt) for attempt in self.attempts),
            segments=self.segments,
        )

    # ---- the decision log ----

    def _scrubbed(self, words: str) -> str:
        """Words of a peer, without the caller's text: a backend may quote what it was asked."""
        request = self.request
        size = sum(len(message.content) for message in request.messages)
        size += len(request.prompt or "") + sum(map(len, request.inputs))
        if size + self._attempts.characters > MOST_SEARCHED:
            return "its words are left out: the prompt is too long to be searched for in them"
        return scrubbed(words, request, "".join(self.parts))

    def _log_attempt(
        self,
        asked: Asked,
        outcome: str,
        *,
        error: PunchError | None = None,
        tokens: int | None = None,
    ) -> None:
        if self._dispatch.log is None:
            return
        first = asked.first_text_at
        self._dispatch.log.attempted(
            self.request.request_id,
            peer_id=asked.peer_id,
            reason=asked.reason,
            outcome=outcome,
            error=None if error is None else self._scrubbed(str(error)),
            seconds=asked.seconds,
            first_text=None if first is None else first - asked.at,
            tokens=asked.tokens if tokens is None else tokens,
            characters=asked.characters,
        )

    def _log_end(self, status: str | None = None) -> None:
        if self._dispatch.log is None:
            return
        error, first = self.error, self._first_text_at
        self._dispatch.log.ended(
            self.request.request_id,
            status=status or (error.code if error is not None else "success"),
            error=None if error is None else self._scrubbed(str(error)),
            seconds=trio.current_time() - self._began,
            first_text=None if first is None else first - self._began,
            response=self.response,
            segments=[
                attrs.evolve(segment, reason=self._scrubbed(segment.reason))
                for segment in self._segments
            ],
        )


def _of_the_whole(usage: Usage, earlier: int) -> Usage:
    """What the last peer counted, when others had delivered so many tokens before it."""
    prompt, answer, cached = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens
    own = None if prompt is None else max(0, prompt - earlier)
    return Usage(
        prompt_tokens=own,
        completion_tokens=None if answer is None else answer + earlier,
        cached_tokens=cached if cached is None or own is None else min(cached, own),
    )


async def _any_ready(calls: Sequence[Call]) -> None:
    """Wait until one of *calls* has something to say."""
    async with trio.open_nursery() as nursery:

        async def watch(call: Call) -> None:
            await call.ready()
            nursery.cancel_scope.cancel()

        for call in calls:
            nursery.start_soon(watch, call)


def _as_dict(attempt: Attempt) -> dict[str, Any]:
    return {
        "peer_id": attempt.peer_id,
        "error": attempt.error.code,
        "reason": str(attempt.error),
        "seconds": attempt.seconds,
    }
