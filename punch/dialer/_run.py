# The loop of one request: decide, act, report.
#
# Rule 1: whom to ask next, and when to give up, is decided in `routing`; here it is only done.
#
# Rule 2: what happened is reported to `Books`, once; no table and no log is touched from here.
#
# Rule 3: nothing runs by itself. The task that wants more text drives the loop, may be cancelled
# at any await, and another one may go on from there.
"""One request, from the first decision to its response or error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from .._alarms import Alarm
from ..capability import PeerId
from ..exceptions import DeadlineExceeded, PeerError, PunchError
from ..routing import Decision, GiveUp, Try, Wait
from ..session import FromListener
from ..wire import Chunk, CommandRequest, CommandResponse, Progress, Reasoning, Started
from ._asking import Asking
from ._attempt import Attempt
from ._books import Books
from ._dispatch import Dispatch
from ._hedging import Hedging
from ._outcome import (
    RAN_OUT,
    STOPPED,
    Outcome,
    dropped,
    finished,
    given_up,
    lost,
    ran_out,
)


class Run:
    """One request under way.

    Args:
      dispatch: What the answers of a dialer share.
      books: What is written down of it, empty yet: they know what is asked, and until when.

    """

    def __init__(self, dispatch: Dispatch, books: Books) -> None:
        self.request = request = books.request
        self.response: CommandResponse | None = None
        """The whole, once it is complete."""
        self.error: PunchError | None = None
        """Why there will be no more, if it failed."""
        self.progress: Progress | None = None
        """What the peer last said it waits for."""
        self.prompt: Progress | None = None
        """What the peer said of the tokens of the prompt before it answered."""
        self.deadline = books.deadline
        """When the last of its readers gives up, in seconds of trio's clock."""
        self.books = books
        """What is written down of it."""
        self.parts: Sequence[str] = books.delivered.parts
        """The text so far, and in its place among it what was thought."""
        self._dispatch = dispatch
        self._asking = Asking(dispatch, self.books, stream=request.stream)
        self._live: list[Attempt] = []
        self._hedging = Hedging(dispatch.hedge)
        self._was_begun = False
        self._elsewhere: tuple[Try, Decision, CommandRequest] | None = None
        self._alarm = Alarm(dispatch.alarms)

    @property
    def is_over(self) -> bool:
        """True once there is a response or an error."""
        return self.response is not None or self.error is not None

    @property
    def has_begun(self) -> bool:
        """Whether a peer has the prompt, or had it and had begun to work on it."""
        return bool(self._live) or self._was_begun or self.response is not None

    @property
    def peer_id(self) -> PeerId | None:
        """The peer that works on it; at its end, the one that did last."""
        if self._live:
            return self._live[0].peer_id
        return None if self.response is None else self.response.executor

    async def advance(self, until: float) -> None:
        """Go on until there is more text, or the end, or it is *until* by trio's clock."""
        parts = self.parts
        had, now = len(parts), trio.current_time()
        try:
            while len(parts) == had and self.response is None:
                if self._live and self._listen(now):
                    continue
                if until <= now < self.deadline:  # A reader that joined has more time than this.
                    return
                if self._live:
                    now = await self._wait(until, since=now)
                else:
                    await self._ask_next(until)
                    now = trio.current_time()
        except PunchError as error:
            self.error = error
            self._drop_all()
        if self.is_over:
            self.books.log.ended(error=self.error, response=self.response)

    def advance_nowait(self) -> None:
        """Take the next part of the text if it is there and nothing has to be decided for it.

        Without it each part would cost the time-outs of `advance`.
        """
        if len(self._live) != 1:
            return
        attempt = self._live[0]
        if attempt.stops is None and (chunk := attempt.call.text_nowait()) is not None:
            try:
                self._take(attempt, chunk, trio.current_time())
            except PeerError as error:
                self._end(attempt, lost(error))

    def extend(self, deadline: float) -> None:
        """Another reader waits for it, until *deadline*."""
        self.deadline = max(self.deadline, deadline)
        self.books.attempts.extend(deadline)

    def abandon(self) -> None:
        """No reader wants it any more: stop the peers that work on it."""
        if not self.is_over:
            self._drop_all()
            self.books.log.ended(error=None, response=None, is_abandoned=True)

    # ---- asking ----

    async def _ask_next(self, until: float) -> None:
        """Decide whom to ask, and ask, or wait *until* then at most; raises if nobody is left."""
        if self._elsewhere is not None:
            found, self._elsewhere = self._elsewhere, None
            await self._ask(*found)
            return
        dispatch, attempts = self._dispatch, self.books.attempts
        if (request := self.books.delivered.remaining_request()) is None:
            self.response = self.books.ended_by(None, "length")
            return
        decision = await self._asking.decide_next(request, deadline=self.deadline)
        step = attempts.next_step(decision, now=decision.now, budget=dispatch.retries)
        if isinstance(step, Wait):
            with trio.move_on_at(min(step.until, until)):
                await dispatch.pool.change()
            return
        if decision.starts and (waits := await self._asking.waits(step, decision, until)):
            self.progress = waits
            return
        if isinstance(step, GiveUp):
            self.books.decided(decision)
            raise dispatch.meeting.with_unreachable(step.error)
        if step.reason == "first":
            dispatch.began(decision.now)
            self._hedging.begin(step.predicted.first_text, now=decision.now)
        await self._ask(step, decision, request)

    async def _ask(self, step: Try, decision: Decision, request: CommandRequest) -> None:
        self.books.decided(decision)
        attempt = await self._asking.ask(step, decision, request, deadline=self.deadline)
        if attempt is not None:
            self._live.append(attempt)

    def _move(self, attempt: Attempt, progress: Progress) -> None:
        """Leave a queue if another peer would be done earlier, which is asked next."""
        if len(self._live) > 1:
            return
        self._elsewhere = self._asking.elsewhere(attempt, progress)
        if self._elsewhere is not None:
            self._end(attempt, dropped(attempt))

    async def _hedge(self, late: Attempt | None = None) -> None:
        """Ask a second peer, beside one that is *late* or as was wished, if it can be paid."""
        self._hedging.end()
        found = self._asking.beside(self._live, late=late, deadline=self.deadline)
        if found is not None:
            await self._ask(*found)

    # ---- listening ----

    def _listen(self, now: float) -> bool:
        """Take what comes next from the peers that were asked; false if nothing is there."""
        for attempt in self._live:
            try:
                part = attempt.call.receive_nowait()
                if part is None:
                    continue
                self._take(attempt, part, now)
            except PeerError as error:
                self._end(attempt, lost(error))
            else:
                if type(part) is Progress:
                    self._move(attempt, part)
            return True
        return False

    async def _wait(self, until: float, *, since: float) -> float:
        """Wait for the peers, as long as that makes sense; returns the time after that."""
        live = self._live
        late_at = live[0].lateness.late_at if len(live) == 1 else math.inf
        patience = [attempt.patient_until for attempt in live]
        limit = min(self.deadline, self._hedging.due_at, late_at, until, *patience)
        try:
            for attempt in live:
                attempt.call.notify(self._alarm.ring)
            await self._alarm.wait(limit)
        finally:
            now = trio.current_time()
            for attempt in live:
                attempt.awaited += now - since
        if now < limit or any(attempt.call.has_news for attempt in live):
            return now
        if now >= self.deadline:
            raise self.books.attempts.out_of_time()
        if now >= self._hedging.due_at:
            await self._hedge()
        elif now >= late_at and live[0].lateness.is_now(now):
            await self._hedge(live[0])
        for late in [attempt for attempt in live if attempt.is_overdue(now)]:
            self._overdue(late)
        return trio.current_time()

    def _overdue(self, attempt: Attempt) -> None:
        """A peer is silent for longer than is usual: give it up if another could do better."""
        if self._live == [attempt] and not self._asking.could_another(attempt, self.deadline):
            attempt.wait_on()
            return
        self._end(attempt, given_up(attempt))

    def _take(self, attempt: Attempt, part: FromListener, now: float) -> None:
        if type(part) is Chunk or type(part) is Reasoning:
            self._deliver(attempt, part, now)
        elif type(part) is CommandResponse:
            self._finish(attempt, part, now)
        elif type(part) is Started:
            attempt.started(part.provenance, now)
            self._was_begun = True
        elif type(part) is Progress:
            self.progress = part
            if part.prompt_tokens is not None and not self.parts:
                self.prompt = part
            attempt.waits(part, now)

    def _deliver(self, attempt: Attempt, part: Chunk | Reasoning, now: float) -> None:
        """Take text from a peer, and give the caller what is certain to belong to the answer."""
        self._won(attempt)
        self.books.heard(attempt, part, now)
        if attempt.stops is not None and attempt.stops.stopped:
            self._end(attempt, STOPPED)
            self.response = self.books.ended_by(attempt, "stop", attempt.stops.found)

    def _finish(self, attempt: Attempt, response: CommandResponse, now: float) -> None:
        """Take the peer's last word, and the text that comes with it."""
        outcome = finished(attempt, response, delivered=self.books.delivered)
        if outcome is RAN_OUT:
            outcome = ran_out(attempt, self.books.attempts, self.deadline)
        if outcome.response is not None:
            self._won(attempt)
            self._live.remove(attempt)
            self.response = self.books.finished(attempt, outcome, now)
            return
        self._dispatch.reported(attempt.candidate, response)
        self._end(attempt, outcome)
        if isinstance(outcome.error, DeadlineExceeded):
            raise outcome.error

    def _won(self, winner: Attempt) -> None:
        """The first to say something answers; the others stop."""
        if len(self._live) > 1 or self._hedging.due_at != math.inf:
            self._hedging.end()
            for loser in [attempt for attempt in self._live if attempt is not winner]:
                # One that has spoken has lost for its silence.
                self._end(loser, dropped(loser) if loser.is_quiet else given_up(loser))

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        self._live.remove(attempt)
        self.books.ended(attempt, outcome, trio.current_time())

    def _drop_all(self) -> None:
        self._asking.leave()
        for attempt in tuple(self._live):
            self._end(attempt, dropped(attempt))
