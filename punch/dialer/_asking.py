"""Asking one peer: the decision is made on what is known now, and becomes a live attempt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import attrs
import trio

from ..capability import PeerId
from ..exceptions import InvalidRequest, NetworkError, PeerError
from ..routing import (
    LATE_LEAVES,
    MAX_PATIENCE_SECONDS,
    PATIENCE_FACTOR,
    Decision,
    GiveUp,
    Reason,
    StopAcrossPeers,
    Try,
)
from ..routing.names import NO_WISHES, Ambiguous, Found, Meaning, wishes_of
from ..wire import NO_HINTS, CommandRequest, Progress
from ._attempt import Attempt
from ._books import Books
from ._dispatch import Dispatch
from .starting._awaited import AwaitedStart

# An answer that comes far too slowly is left for another peer only if that would be done so many
# times as early: the text so far must be read there, and predictions are what was wrong here.
LEAVE_FACTOR = 2.0

# Seconds after which an answer that nobody can continue, and that will not be done in time at its
# rate, is ended rather than waited for: its caller may ask again.
MIN_HOPELESS_SECONDS = 30.0


class Asking:
    """Decides for one request, and asks.

    Args:
      dispatch: What the answers of a dialer share.
      books: What is written down of the request.
      stream: Whether its text is wanted as it is made.

    """

    def __init__(self, dispatch: Dispatch, books: Books, *, stream: bool) -> None:
        self._dispatch = dispatch
        self._books = books
        self._stream = stream
        self._asked_real = False
        self._found: Found = None
        self._wishes = NO_WISHES
        starter = dispatch.starter
        self._start = None if starter is None else AwaitedStart(dispatch, starter, books)

    def decide(
        self,
        request: CommandRequest,
        reason: Reason,
        but: Iterable[str] = (),
        *,
        only_well: bool = True,
    ) -> Decision:
        """Whom to ask *request*, but for what was tried.

        Args:
          request: What is still to be asked.
          reason: Why a peer is asked now.
          but: Ids of candidates, and of peers, that work on it: they are left out.
          only_well: Whether only a peer that is well would be better than those.

        """
        dispatch = self._dispatch
        attempts, busy = self._books.attempts, frozenset(but)
        request = self._by_its_name(request)
        self._look_whom(request)
        return dispatch.decide(
            request,
            tried=attempts.tried(dispatch.meeting.presence) | busy,
            now=trio.current_time(),
            chat_template=self._books.delivered.chat_template,
            alternative=only_well and bool(busy),
            real_only=self._asked_real,
            alike=self._found.digest if isinstance(self._found, Meaning) else None,
            ambiguous=self._found.names if isinstance(self._found, Ambiguous) else (),
            wishes=self._wishes,
            reason=reason,
            waiter=self._books,
        )

    def _look_whom(self, request: CommandRequest) -> None:
        """Find out which peers the hints of *request* mean, of those that are there now.

        Raises:
          InvalidRequest: if one may be several, before any was asked.

        """
        if request.hints is NO_HINTS:
            return
        try:
            peers = self._dispatch.known()
            self._wishes = wishes_of(request.hints, peers, self._is_own)
        except InvalidRequest:
            # A peer that comes later ends nothing that was understood before it came.
            if self._wishes is NO_WISHES:
                raise

    def _is_own(self, peer_id: PeerId) -> bool:
        """Whether a peer has the same owner: in an open namespace, if it is on this machine."""
        pool = self._dispatch.pool
        session = pool.session(peer_id)
        return peer_id == pool.peer_id if session is None else session.is_own

    def _by_its_name(self, request: CommandRequest) -> CommandRequest:
        """*request* for the model that its name meant when that was first on offer.

        Once: a second peer is not asked for another model because the first is gone.
        """
        if request.model is None or request.hints.naming == "exact":
            return request
        if not isinstance(self._found, Meaning):
            self._found = self._dispatch.meaning(request)
        if not isinstance(self._found, Meaning) or self._found.name == request.model:
            return request
        return attrs.evolve(request, model=self._found.name)

    async def decide_next(self, request: CommandRequest, *, deadline: float) -> Decision:
        """Whom to ask next; the very first time, once the namespace has had time to be known."""
        attempts = self._books.attempts
        decision = self.decide(request, attempts.reason)
        chosen = decision.chosen
        if attempts.failed_attempts:
            return decision
        if chosen is None:
            await self._dispatch.meeting.settle(deadline)
            decision = self.decide(request, attempts.reason)
        elif decision.start_of(chosen) is not None and self._dispatch.meeting.is_new():
            # A peer that is about to be met may do better than a start.
            with suppress(NetworkError):
                await self._dispatch.meeting.settle(deadline)
            decision = self.decide(request, attempts.reason)
        return decision

    async def waits(
        self, step: Try | GiveUp, decision: Decision, deadline: float
    ) -> Progress | None:
        """Wait a while, if *step* is to start something first; what for, or `None` if it is not."""
        if self._start is None or isinstance(step, GiveUp):
            return None
        if decision.start_of(step.candidate) is None:
            return None
        return await self._start.wait(step.candidate, decision, deadline=deadline)

    def leave(self) -> None:
        """The request waits for no start any more, however that came."""
        if self._start is not None:
            self._start.leave()

    async def ask(
        self, step: Try, decision: Decision, request: CommandRequest, *, deadline: float
    ) -> Attempt | None:
        """Ask the candidate of *step*; `None` if that failed, which is booked then."""
        dispatch, candidate = self._dispatch, step.candidate
        self.leave()
        request = self._by_its_name(request)
        self._asked_real = self._asked_real or not candidate.lane.simulated
        try:
            call = await dispatch.ask(candidate, request, deadline)
        except PeerError as error:
            self._books.not_asked(candidate, step.reason, error)
            return None
        begun, stops = request.continuation, request.sampling.stop
        patience, predicted, now = step.patience, step.predicted, trio.current_time()
        if not self._stream and predicted.decode is not None:
            # Its first text is its last: the silence before it is as long as the answer.
            patience += min(PATIENCE_FACTOR * predicted.decode, MAX_PATIENCE_SECONDS)
        return Attempt(
            call,
            request=request,
            decision=decision,
            candidate=candidate,
            reason=step.reason,
            predicted=predicted,
            asked_at=now,
            deadline=deadline,
            patience=patience,
            session_number=dispatch.sent(request, decision, candidate, now=now),
            held_up=dispatch.prompts.held_up(
                candidate, seconds=predicted.prefill, tokens=decision.request.prompt_tokens
            ),
            stops=StopAcrossPeers(begun, stops) if begun and stops else None,
        )

    def elsewhere(
        self, attempt: Attempt, progress: Progress
    ) -> tuple[Try, Decision, CommandRequest] | None:
        """Where the request of *attempt*, which says that it queues, would be done earlier."""
        if progress.state != "queued" or progress.seconds is None:
            return None
        before, candidate = attempt.decision, attempt.candidate
        decision = self.decide(attempt.request, "move", but=[candidate.id])
        if before.unit != "s" or decision.chosen is None:
            return None
        # What it says of the queue replaces what was predicted of it.
        own = before.score(candidate) - (before.term(candidate, "queue") or 0.0)
        seconds, now = progress.seconds + own, trio.current_time()
        step = self._books.attempts.move(decision, seconds=seconds, now=now)
        return None if step is None else (step, decision, attempt.request)

    def beside(
        self,
        live: Sequence[Attempt],
        *,
        late: Attempt | None,
        deadline: float,
    ) -> tuple[Try, Decision, CommandRequest] | None:
        """A second peer for what is missing, if there is one and it can be paid; what to ask it.

        Args:
          live: Who works on it.
          late: Who is late, if that is why: before its first text it is paid for as a fault, and
            the second must be done by the *deadline*. Otherwise it is a hedge, which has a budget
            of its own.
          deadline: When the caller gives up.

        """
        dispatch, now = self._dispatch, trio.current_time()
        request = self._books.delivered.remaining_request()
        if request is None:
            return None
        # A request has its id once in a session: no other lane of a peer that works on it.
        but = [*(attempt.peer_id for attempt in live), *self._absent(now)]
        # Any may do better than one that is absent; one that is late may only be slow.
        decision = self.decide(request, "hedge", but, only_well=late is None or late.is_quiet)
        candidate = decision.chosen
        if candidate is None:
            is_paid = False
        elif late is None:
            is_paid = dispatch.hedges.withdraw(now)
        elif not late.is_quiet:
            # Going on with a begun answer is always allowed.
            is_paid = self._books.attempts.has_alternative(decision)
        else:
            in_time = decision.unit != "s" or now + decision.score(candidate) <= deadline
            is_paid = in_time and dispatch.retries.withdraw(now, leaving=LATE_LEAVES)
        if late is not None:
            late.lateness.asked(now, is_paid)
        if candidate is None or not is_paid:
            return None
        return Try.of(decision, candidate, "hedge"), decision, request

    def _absent(self, now: float) -> list[PeerId]:
        """Peers that say nothing at all: what struck one may have struck others, or our network."""
        pool = self._dispatch.pool
        sessions = [pool.session(peer.peer_id) for peer in self._dispatch.known()]
        return [each.peer_id for each in sessions if each and each.heartbeat.is_absent(now)]

    def could_another(self, attempt: Attempt, deadline: float) -> bool:
        """Whether another candidate could answer, or go on, in the place of *attempt*.

        One that answers, if slowly, is left only for one that would be done much earlier; and
        where nobody could go on, if it cannot be done in time itself.
        """
        attempts = self._books.attempts
        request = self._books.delivered.remaining_request()
        if request is None:
            return True
        decision = self.decide(request, attempts.reason, but=[attempt.candidate.id])
        if attempt.is_quiet:
            # Where nothing is left to pay for another try, the one under way is the best there is.
            is_paid = self._dispatch.retries.left(trio.current_time()) >= 1.0
            return is_paid and attempts.has_alternative(decision)
        seconds = attempt.seconds_left(decision.request.output_tokens)
        if not attempts.has_alternative(decision):
            is_enough = attempt.decode_awaited >= MIN_HOPELESS_SECONDS
            left = deadline - trio.current_time()
            return is_enough and seconds > left and decision.chosen is not None
        if not attempt.is_behind or decision.chosen is None or decision.unit != "s":
            return True
        return decision.score(decision.chosen) * LEAVE_FACTOR < seconds
