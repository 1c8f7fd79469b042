"""One request on its way: the loop that decides, acts and reports."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import PeerError, PeerFailed, PeerRefused, PeerTimeout, PunchError, RequestError
from ..peers import PeerRecord
from ..routing import (
    MOST_PATIENCE,
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
from ..session import Call
from ..wire import (
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    Progress,
    Provenance,
    Segment,
    Started,
)
from ._asked import Asked
from ._delivered import Delivered
from ._dispatch import Dispatch
from ._notes import Notes
from ._speed import speed_of
from ._verdict import check_provenance, check_response

log = get_logger(__name__)

# Longer than any answer people wait for, short enough that nothing hangs for ever.
USUAL_TIMEOUT = 300.0

# How much earlier than we a listener may find that the time ran out, in seconds.
CLOCK_DIFFERENCE = 1.0


class Run:
    """One request, from the first decision to the response or the error.

    Nothing runs by itself: whoever wants more text calls `advance`, one task at a time. It can
    be cancelled at any await and called again.
    """

    def __init__(self, dispatch: Dispatch, request: CommandRequest) -> None:
        self.request = request
        self.decisions: list[Decision] = []
        """Every decision that led to a try, or to giving up, in order."""
        self.response: CommandResponse | None = None
        """The whole, once it is complete."""
        self.error: PunchError | None = None
        """Why there will be no more, if it failed."""
        self.progress: Progress | None = None
        """What the peer last said it waits for."""
        self._dispatch = dispatch
        self._deadline = trio.current_time() + (request.timeout or USUAL_TIMEOUT)
        self._attempts = Attempts(deadline=self._deadline, continuable=request.continuable)
        self._asked: list[Asked] = []
        self._delivered = Delivered(request)
        self._notes = Notes(dispatch.log, request, self._delivered)
        self._hedge_at = math.inf
        self._was_begun = False

    @property
    def is_over(self) -> bool:
        """True once there is a response or an error."""
        return self.response is not None or self.error is not None

    @property
    def parts(self) -> Sequence[str]:
        """The text so far."""
        return self._delivered.parts

    @property
    def tokens(self) -> int:
        """Tokens of the text so far, as those who made them count; at least one for each part."""
        return max(self._delivered.tokens, len(self.parts))

    @property
    def was_taken(self) -> bool:
        """Whether a peer has the prompt, or had it and had begun to work on it."""
        return bool(self._asked) or self._was_begun or self.response is not None

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
        return tuple(self._delivered.segments)

    @property
    def peer_id(self) -> PeerId | None:
        """Who works on it; at its end, who did last."""
        if self._asked:
            return self._asked[0].peer_id
        return None if self.response is None else self.response.executor

    @property
    def provenance(self) -> Provenance | None:
        """Where the text comes from, once there is some."""
        if self.response is not None:
            return self.response.provenance
        return self._delivered.provenance

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
            status = "success" if self.error is None else self.error.code
            self._notes.ended(status, error=self.error, response=self.response)

    def advance_nowait(self) -> None:
        """Take the next part of the text if it is there and nothing has to be decided for it.

        Without it each part would cost the time-outs of `advance`.
        """
        if len(self._asked) != 1:
            return
        asked = self._asked[0]
        if asked.seam is None and (chunk := asked.call.text_nowait()) is not None:
            try:
                self._take(asked, chunk)
            except PeerError as error:
                self._fault(asked, error)

    def extend(self, deadline: float) -> None:
        """Somebody else waits for it as well, until *deadline*."""
        self._deadline = max(self._deadline, deadline)
        self._attempts.extend(deadline)

    def stored(self) -> Run:
        """A copy of a complete one, without the prompt and the snapshots of every peer."""
        lean = copy.copy(self)
        lean.request = self.request.without_prompt()
        lean.decisions = []
        lean._delivered = self._delivered.stored(lean.request)
        lean._notes = Notes(None, lean.request, lean._delivered)
        # What failed holds the frames in which it did, and these all the rest.
        lean._attempts = Attempts(deadline=self._deadline)
        return lean

    def abandon(self) -> None:
        """Nobody wants it any more: stop whoever works on it."""
        if not self.is_over:
            self._drop_all()
            self._notes.ended("cancelled", error=None, response=None)

    # ---- asking ----

    async def _ask_next(self) -> None:
        """Decide whom to ask, and ask; raises when there is nobody."""
        dispatch, attempts = self._dispatch, self._attempts
        request = self._delivered.what_is_left()
        if request is None:
            self._complete(self._delivered.ended_by(None, "length"))
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

    def _decide(self, request: CommandRequest, but: Sequence[Asked] = ()) -> Decision:
        dispatch = self._dispatch
        tried = self._attempts.tried(dispatch.presence) | {asked.peer_id for asked in but}
        return dispatch.decide(
            request,
            tried=tried,
            now=trio.current_time(),
            chat_template=self._delivered.chat_template,
            alternative=bool(but),
        )

    def _note(self, decision: Decision, reason: Reason) -> None:
        self.decisions.append(attrs.evolve(decision, reason=reason))
        self._notes.decided(decision, reason)

    async def _ask(self, step: Try, decision: Decision, request: CommandRequest) -> None:
        dispatch, peer_id = self._dispatch, step.peer_id
        record, _ = decision.scored[peer_id]
        offer = record.capability.offer(request.model, request.model_digest)
        assert offer is not None, "it passed the filter for models"
        try:
            call = await dispatch.ask(peer_id, request, self._deadline)
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
        if self.request.stream or decode is None:
            return 0.0
        return min(PATIENCE_FACTOR * decode, MOST_PATIENCE)

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
        asked, since = self._asked, trio.current_time()
        limit = min(self._deadline, self._hedge_at, *[a.patient_until for a in asked])
        try:
            with trio.move_on_at(limit):
                if len(asked) == 1:
                    await asked[0].call.ready()
                else:
                    await _any_ready([a.call for a in asked])
                return
        finally:
            for one in asked:
                one.awaited += trio.current_time() - since
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
            request = self._delivered.what_is_left()
            other = None if request is None else self._decide(request, but=[asked])
            if other is not None and not self._attempts.has_alternative(other):
                asked.wait_on()
                return
        self._fault(asked, PeerTimeout(asked.what_is_missing(), peer_id=asked.peer_id))

    def _take(self, asked: Asked, part: Started | Progress | Chunk | CommandResponse) -> None:
        if type(part) is Chunk:
            self._deliver(asked, part.text, part.tokens)
        elif type(part) is CommandResponse:
            self._finish(asked, part)
        elif type(part) is Started:
            check_provenance(
                part.provenance, request=asked.request, peer=asked.record, before=asked.provenance
            )
            asked.started(part.provenance)
            self._was_begun = True
        elif type(part) is Progress:
            self.progress = part
            asked.waits(part)

    def _deliver(self, asked: Asked, text: str, tokens: int) -> None:
        """Take text from a peer, and give the caller what is certain to belong to the answer."""
        if len(self._asked) > 1 or self._hedge_at != math.inf:
            self._won(asked)
        self._delivered.begins()
        text, tokens = asked.heard(text, tokens)
        if text:
            self._delivered.check_length(asked.peer_id, text)
            self._append(asked, text, tokens)
        if asked.seam is not None and asked.seam.stopped:
            self._leave(asked)
            asked.call.cancel()
            self._delivered.close_segment(asked, "stop")
            self._notes.attempted(asked, "success")
            self._complete(self._delivered.ended_by(asked, "stop"))

    def _append(self, asked: Asked, text: str, tokens: int) -> None:
        delivered = self._delivered
        delivered.append(asked, text, tokens)
        self._attempts.delivered(tokens=tokens, characters=len(text), digest=delivered.digest)

    def _finish(self, asked: Asked, response: CommandResponse) -> None:
        """Take the peer's last word, and the text that comes with it."""
        if response.load is not None:
            self._dispatch.table.reported(asked.peer_id, response.load)
        try:
            if self._ran_out(asked, response):
                return
            self._check_response(asked, response)
        except PeerError:
            raise
        except RequestError as error:
            if self.parts or len(self._asked) > 1:
                # Others could, or can: it is this peer that cannot.
                raise PeerRefused(str(error), peer_id=asked.peer_id) from error
            self._lose(asked, error)
            raise
        except PunchError as error:
            self._lose(asked, error)
            raise
        self._won(asked)
        self._leave(asked)
        result = response.result or Completion()
        asked.provenance = response.provenance
        response = _with_believed_tokens(asked, response)
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
            speed=speed_of(asked, response),
        )
        self._delivered.close_segment(asked, result.finish_reason)
        self._notes.attempted(asked, "success")
        self._complete(self._delivered.whole(response, result))

    def _ran_out(self, asked: Asked, response: CommandResponse) -> bool:
        """Whether the time that the peer was given is over, and somebody has joined who has more.

        Then whoever is best is asked for the rest.
        """
        if response.status != "timeout":
            return False
        # Its clock runs as ours does, a little later: it cannot know much earlier than we.
        now = trio.current_time() + CLOCK_DIFFERENCE
        if now < asked.deadline:
            raise PeerFailed("says that the time ran out, and it did not", peer_id=asked.peer_id)
        if now >= self._deadline:
            raise self._attempts.out_of_time()
        self._leave(asked)
        self._delivered.leave_to_others(asked, "deadline")
        self._notes.attempted(asked, "deadline")
        return True

    def _check_response(self, asked: Asked, response: CommandResponse) -> None:
        """Raise what the response says went wrong, or what is wrong with it."""
        check_response(response, request=asked.request, peer=asked.record, before=asked.provenance)
        if response.result is not None:
            self._delivered.check_length(asked.peer_id, response.result.text)

    # ---- leaving a peer ----

    def _fault(self, asked: Asked, error: PeerError) -> None:
        """A peer's fault: note it, tell the table, and let the loop go on."""
        asked.call.cancel()
        self._lose(asked, error)
        self._delivered.leave_to_others(asked, error.message)

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
        # Not what a peer says of it, which may quote the prompt.
        log.info(
            "an attempt failed",
            request_id=self.request.request_id,
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
            self._notes.attempted(asked, error.code, error=error)
        else:
            self._notes.unasked(peer_id, reason, error)

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
            fault = PeerTimeout("far slower than predicted", peer_id=asked.peer_id)
            self._dispatch.failed(asked.peer_id, asked.offer.name, fault, asked_at=asked.at)
        self._delivered.leave_to_others(asked, "cancelled")
        self._dispatch.when_stopped(
            asked.call, lambda tokens: self._notes.attempted(asked, "cancelled", tokens=tokens)
        )

    def _drop_all(self) -> None:
        for asked in tuple(self._asked):
            self._drop(asked)

    # ---- the end ----

    def _complete(self, response: CommandResponse) -> None:
        """Take *response* for the whole answer's, and say how it came about."""
        self.response = attrs.evolve(
            response,
            decision=self.decisions[-1].as_dict(),
            attempts=tuple(_as_dict(attempt) for attempt in self.attempts),
        )


def _with_believed_tokens(asked: Asked, response: CommandResponse) -> CommandResponse:
    """*response* without more tokens than the answer can have."""
    usage = response.usage
    if usage.completion_tokens is None:
        return response
    most = asked.tokens + asked.believed(usage.completion_tokens)
    if usage.completion_tokens <= most:
        return response
    return attrs.evolve(response, usage=attrs.evolve(usage, completion_tokens=most))


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
