"""One answer on its way: the loop that decides, acts and reports."""

from __future__ import annotations

import math
from random import Random
from types import TracebackType
from typing import Any

import attrs
import trio

from .capability import PeerId
from .exceptions import (
    ContextTooLong,
    InvalidRequest,
    NoPeerAvailable,
    PeerError,
    PeerFailed,
    PeerRefused,
    PeerSimulated,
    PeerTimeout,
    PeerUnreachable,
    PunchError,
    RequestCancelled,
    RequestConflict,
)
from .logs import get_logger
from .node import Call, Links, Membership
from .peers import PeerRecord
from .routing import Attempt, Attempts, Decision, GiveUp, Policy, route_request
from .wire import (
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    Progress,
    Provenance,
    Started,
)

log = get_logger(__name__)

# Longer than any answer people wait for, short enough that nothing hangs for ever.
USUAL_TIMEOUT = 300.0

# How long a first request waits for the namespace to be known: a few round trips, and the
# dials of peers that are gone.
SETTLE_SECONDS = 5.0

# A listener says every five seconds that a request still waits; three in a row is silence.
PROGRESS_PATIENCE = 15.0

# How much earlier than we a listener may find that the time ran out, in seconds.
CLOCK_DIFFERENCE = 1.0

_ERRORS: dict[str, type[PunchError]] = {
    error.code: error
    for error in (
        InvalidRequest,
        ContextTooLong,
        RequestConflict,
        RequestCancelled,
        PeerRefused,
        PeerSimulated,
        PeerFailed,
    )
}


class Dispatch:
    """What answers share: whom there is to ask, and what was learned of them.

    Args:
      links: Sessions with the listeners, and the table they feed.
      membership: Our place in the namespace.
      policy: How to choose.
      rng: Draws among equals.

    """

    def __init__(
        self, links: Links, membership: Membership, *, policy: Policy, rng: Random
    ) -> None:
        self.links = links
        self.table = links.table
        self.membership = membership
        self.policy = policy
        self._rng = rng
        self._serial = 0

    def decide(self, request: CommandRequest, tried: frozenset[PeerId], now: float) -> Decision:
        """Whom to ask, but for those that were *tried*."""
        route = route_request(request, tried=tried, serial=self._serial)
        self._serial += not tried
        return self.policy.decide(route, self.table.snapshot(), now=now, rng=self._rng)

    async def settle(self, deadline: float) -> None:
        """Wait until somebody is known to be there, and all of them were heard or failed to be."""
        limit = min(deadline, trio.current_time() + SETTLE_SECONDS)
        with trio.move_on_at(limit):
            while not (self.membership.joined.is_set() and self.links.settled()):
                if self.membership.refused.is_set():
                    break
                await self.links.change()
        if not self.membership.joined.is_set() and self.membership.trouble is not None:
            raise self.membership.trouble

    def with_unreachable(self, error: PunchError) -> PunchError:
        """The same error, with the listeners in it that could not even be connected."""
        if type(error) is not NoPeerAvailable:
            return error
        gone = self.links.unreachable().items()
        reasons = {peer: why.removeprefix(f"{peer}: ") for peer, why in gone} | dict(error.reasons)
        if reasons.keys() == error.reasons.keys():
            return error
        complete = NoPeerAvailable("no listener could answer", reasons)
        complete.retry_after = error.retry_after
        return complete

    def failed(self, peer_id: PeerId, error: PeerError) -> None:
        """Learn from an attempt that failed."""
        now, retry_after = trio.current_time(), error.retry_after
        if isinstance(error, PeerRefused):
            self.table.refused(peer_id, now=now, retry_after=retry_after)
        else:
            self.table.failed(peer_id, now=now, retry_after=retry_after)

    def succeeded(self, peer_id: PeerId, response: CommandResponse) -> None:
        """Learn from an answer."""
        model = response.provenance.model if response.provenance is not None else None
        if model is None:
            return
        usage, timings = response.usage, response.timings
        self.table.succeeded(
            peer_id,
            model,
            prefill_tokens=usage.computed_tokens,
            prefill_seconds=timings.prefill,
            decode_tokens=usage.completion_tokens,
            decode_seconds=timings.decode,
        )


class Answer:
    """An answer on its way. Made by `Router.answer`; iterate over it for the text.

    The loop of the router runs inside `receive`, in the task of whoever wants the answer:
    there is no other task to lose, and an answer nobody reads takes nothing in.
    """

    def __init__(self, dispatch: Dispatch, request: CommandRequest) -> None:
        self.request = request
        self.decisions: list[Decision] = []
        """Every decision made for it, in order."""
        self._dispatch = dispatch
        self._began = trio.current_time()
        self._deadline = self._began + (request.timeout or USUAL_TIMEOUT)
        self._attempts = Attempts(deadline=self._deadline)
        self._call: Call | None = None
        self._peer: PeerRecord | None = None
        self._asked_at = 0.0
        self._patience_ends = math.inf
        self._provenance: Provenance | None = None
        self._parts: list[str] = []
        self._response: CommandResponse | None = None
        self._entered = False
        self._ended: PunchError | None = None

    @property
    def response(self) -> CommandResponse:
        """The whole of it, once `receive` has returned `None`."""
        if self._response is None:
            raise RuntimeError("the answer is not complete; receive() it to its end first")
        return self._response

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The tries that failed, in order."""
        return self._attempts.failed_attempts

    @property
    def text(self) -> str:
        """What was received so far."""
        return "".join(self._parts)

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> str:
        text = await self.receive()
        if text is None:
            raise StopAsyncIteration
        return text

    async def receive(self) -> str | None:
        """The next part of the text; `None` when the answer is complete.

        Only inside ``async with``: leaving that is what cancels an answer nobody wants.

        Raises:
          NetworkError: if nobody was ever met in the namespace, and why.
          RequestError: if the request itself is at fault.
          NoPeerAvailable: if nobody could answer; it has every peer with its reason.
          DeadlineExceeded: if the time ran out.
          PeerError: if the peer failed when part of its answer was delivered already.

        """
        if not self._entered:
            raise RuntimeError("an answer is received inside `async with router.answer(...)`")
        if self._ended is not None:
            raise self._ended
        try:
            return await self._receive()
        except PunchError as error:
            self._ended = error
            raise

    async def _receive(self) -> str | None:
        while self._response is None:
            if self._call is None:
                await self._ask_next()
            part = await self._next_part()
            if type(part) is Chunk:
                self._attempts.delivered()
                self._patience_ends = math.inf
                self._parts.append(part.text)
                return part.text
            if type(part) is CommandResponse:
                text = self._end(part)
                if text:
                    return text
        return None

    async def _ask_next(self) -> None:
        """Decide whom to ask, and ask; raises when there is nobody."""
        dispatch = self._dispatch
        now = trio.current_time()
        decision = dispatch.decide(self.request, self._attempts.tried, now)
        if decision.chosen is None and not self._attempts.tried:
            await dispatch.settle(self._deadline)
            now = trio.current_time()
            decision = dispatch.decide(self.request, self._attempts.tried, now)
        self.decisions.append(decision)
        step = self._attempts.next_step(decision, now=now)
        if isinstance(step, GiveUp):
            raise dispatch.with_unreachable(step.error)
        record, _ = decision.scored[step.peer_id]
        self._asked_at = now
        self._patience_ends = now + step.patience
        self._peer = record
        self._provenance = None
        session = dispatch.links.session(step.peer_id)
        try:
            if session is None:
                raise PeerUnreachable(f"{step.peer_id}: the connection was lost")
            remaining = attrs.evolve(self.request, timeout=self._deadline - now)
            self._call = session.ask(remaining)
            dispatch.table.sent(step.peer_id, prompt_tokens=decision.request.prompt_tokens)
        except PeerError as error:
            self._fault(error)

    async def _next_part(self) -> Started | Chunk | CommandResponse | None:
        """What comes next from the peer; `None` if it was only a sign of life, or a fault."""
        call = self._call
        if call is None:
            return None
        try:
            part = call.receive_nowait()
            if part is None:
                with trio.move_on_at(min(self._deadline, self._patience_ends)):
                    part = await call.receive()
            if part is None:
                self._too_slow(call)
                return None
            if type(part) is Progress:
                # It waits and says so; while it does, it will say so again.
                self._patience_ends = trio.current_time() + PROGRESS_PATIENCE
                return None
            if type(part) is Started:
                self._check_provenance(part.provenance)
                self._provenance = part.provenance
                self._patience_ends = trio.current_time() + self._patience()
                return None
        except PeerError as error:
            self._fault(error)
            return None
        return part  # type: ignore[return-value]  # a Progress was dealt with above

    def _patience(self) -> float:
        decision = self.decisions[-1]
        assert self._peer is not None
        return self._attempts.patience(decision, self._peer.peer_id)

    def _too_slow(self, call: Call) -> None:
        call.cancel()
        if trio.current_time() >= self._deadline:
            self._leave()
            raise self._attempts.out_of_time()
        waited = trio.current_time() - self._asked_at
        self._fault(PeerTimeout(f"{self._peer_id}: no token within {waited:.1f} s"))

    @property
    def _peer_id(self) -> PeerId:
        assert self._peer is not None
        return self._peer.peer_id

    def _check_provenance(self, provenance: Provenance) -> None:
        """Refuse an answer that is not what the caller asked for, or not what it claims."""
        assert self._peer is not None
        peer = self._peer_id
        simulates = self._peer.capability.simulated
        if provenance.kind == "real" and (simulates or provenance.backend == "mock"):
            raise PeerSimulated(f"{peer}: calls the answer of a mock real")
        if self.request.strict and provenance.kind != "real":
            raise PeerSimulated(f"{peer}: answers with simulated inference")
        offer = self._peer.capability.offer(provenance.model)
        if offer is None or self.request.model not in (None, provenance.model):
            raise PeerFailed(f"{peer}: answers with {provenance.model}, which was not agreed on")
        if offer.digest != provenance.model_digest:
            raise PeerFailed(f"{peer}: answers with another file than the {offer.name} it offers")
        wanted = self.request.model_digest
        if wanted is not None and provenance.model_digest != wanted:
            raise PeerFailed(f"{peer}: answers with model {provenance.model_digest}, not {wanted}")
        if self._provenance is not None and provenance != self._provenance:
            raise PeerFailed(f"{peer}: changed where its answer comes from")

    def _fault(self, error: PeerError) -> None:
        """A peer's fault: note it, tell the table, and let the loop go on."""
        peer_id = self._peer_id
        if self._call is not None:
            self._call.cancel()
            self._leave()
        seconds = trio.current_time() - self._asked_at
        self._dispatch.failed(peer_id, error)
        log.info(
            "an attempt failed",
            request_id=self.request.request_id,
            peer=peer_id,
            why=str(error),
            seconds=round(seconds, 3),
        )
        verdict = self._attempts.failed(peer_id, error, seconds=seconds)
        if verdict is not None or self._parts:
            raise error

    def _leave(self) -> None:
        self._dispatch.table.ended(self._peer_id)
        self._call = None

    def _end(self, response: CommandResponse) -> str | None:
        """Take the peer's last word; the text that comes with it, if any."""
        try:
            self._check_response(response)
        except PeerError as error:
            self._fault(error)
            return None
        except PunchError as error:
            self._leave()
            self._attempts.failed(
                self._peer_id, error, seconds=trio.current_time() - self._asked_at
            )
            raise
        self._leave()
        self._dispatch.succeeded(self._peer_id, response)
        result = response.result or Completion()
        text = result.text
        if text:
            self._parts.append(text)
        self._response = attrs.evolve(
            response,
            result=attrs.evolve(result, text="".join(self._parts)),
            decision=self.decisions[-1].as_dict(),
            attempts=self._attempts_as_dicts(),
        )
        return text or None

    def _check_response(self, response: CommandResponse) -> None:
        """Raise what the response says went wrong, or what is wrong with it."""
        peer_id = self._peer_id
        if response.load is not None:
            self._dispatch.table.reported(peer_id, response.load)
        if response.executor != peer_id:
            raise PeerFailed(f"{peer_id}: answers in the name of {response.executor}")
        if response.status == "success":
            if self.request.command in ("chat", "complete", "embed"):
                if response.provenance is None:
                    raise PeerFailed(f"{peer_id}: does not say where its answer comes from")
                self._check_provenance(response.provenance)
            return
        if response.status == "timeout":
            # Its clock runs as ours does, a little later: it cannot know much earlier than we.
            if trio.current_time() < self._deadline - CLOCK_DIFFERENCE:
                raise PeerFailed(f"{peer_id}: says that the time ran out, and it did not")
            raise self._attempts.out_of_time()
        if response.status == "cancelled":
            raise PeerFailed(f"{peer_id}: stopped on its own")
        fault = response.error
        if fault is None:
            raise PeerFailed(f"{peer_id}: ended with {response.status} and no reason")
        kind = _ERRORS.get(fault.code, PeerFailed if fault.retryable else InvalidRequest)
        if issubclass(kind, PeerError) != fault.retryable:
            kind = PeerFailed if fault.retryable else InvalidRequest
        error = kind(f"{peer_id}: {fault.message}" if fault.retryable else fault.message)
        error.retry_after = fault.retry_after
        raise error

    def _attempts_as_dicts(self) -> tuple[dict[str, Any], ...]:
        return tuple(
            {
                "peer_id": attempt.peer_id,
                "error": attempt.error.code,
                "reason": str(attempt.error),
                "seconds": attempt.seconds,
            }
            for attempt in self._attempts.failed_attempts
        )

    async def __aenter__(self) -> Answer:
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered = False
        if self._call is not None:
            self._call.cancel()
            self._leave()
