"""The dialer's side: `open_router()`, and the loop that decides, acts and reports."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from types import TracebackType
from typing import Any, Literal

import attrs
import trio

from ._version import __version__
from .background import open_background
from .capability import PeerId
from .exceptions import (
    ConfigurationError,
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
from .node import (
    DEFAULT_BOOTSTRAP,
    DEFAULT_NAMESPACE,
    Address,
    Call,
    KnownPeers,
    Links,
    Membership,
    Node,
    join_namespace,
    new_incarnation,
    open_node,
    parse_address,
)
from .peers import PeerRecord
from .routing import POLICIES, Attempt, Attempts, Decision, GiveUp, Policy, route_request
from .wire import (
    ChatMessage,
    Chunk,
    CommandRequest,
    CommandResponse,
    Completion,
    Progress,
    Provenance,
    Sampling,
    Started,
    check_request,
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


def new_request_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): sorts by time, and nobody else has it."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def chat_request(
    text: str,
    *,
    system: str | None = None,
    model: str | None = None,
    sampling: Sampling | None = None,
    stream: bool = True,
    strict: bool = False,
    timeout: float | None = None,
    request_id: str | None = None,
) -> CommandRequest:
    """A request with one question in it; see `CommandRequest` for the fields."""
    turns = [ChatMessage(role="user", content=text)]
    if system is not None:
        turns.insert(0, ChatMessage(role="system", content=system))
    return CommandRequest(
        request_id=new_request_id() if request_id is None else request_id,
        model=model,
        messages=tuple(turns),
        sampling=sampling or Sampling(),
        stream=stream,
        strict=strict,
        timeout=timeout,
    )


class Answer:
    """An answer on its way. Made by `Router.answer`; iterate over it for the text.

    The loop of the router runs inside `receive`, in the task of whoever wants the answer:
    there is no other task to lose, and an answer nobody reads takes nothing in.
    """

    def __init__(self, router: Router, request: CommandRequest) -> None:
        self.request = request
        self.decisions: list[Decision] = []
        """Every decision made for it, in order."""
        self._router = router
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
        router = self._router
        now = trio.current_time()
        decision = router._decide(self.request, self._attempts.tried, now)
        if decision.chosen is None and not self._attempts.tried:
            await router._settle(self._deadline)
            now = trio.current_time()
            decision = router._decide(self.request, self._attempts.tried, now)
        self.decisions.append(decision)
        step = self._attempts.next_step(decision, now=now)
        if isinstance(step, GiveUp):
            raise router._with_unreachable(step.error)
        record, _ = decision.scored[step.peer_id]
        self._asked_at = now
        self._patience_ends = now + step.patience
        self._peer = record
        self._provenance = None
        session = router._links.session(step.peer_id)
        try:
            if session is None:
                raise PeerUnreachable(f"{step.peer_id}: the connection was lost")
            remaining = attrs.evolve(self.request, timeout=self._deadline - now)
            self._call = session.ask(remaining)
            router._table.sent(step.peer_id, prompt_tokens=decision.request.prompt_tokens)
        except PeerError as error:
            self._fault(error)

    async def _next_part(self) -> Started | Chunk | CommandResponse | None:
        """What comes next from the peer; `None` if it was only a sign of life, or a fault."""
        call = self._call
        if call is None:
            return None
        try:
            with trio.move_on_at(min(self._deadline, self._patience_ends)) as scope:
                part = await call.receive()
            if scope.cancelled_caught:
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
        self._router._failed(peer_id, error)
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
        self._router._table.ended(self._peer_id)
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
        self._router._succeeded(self._peer_id, response)
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
            self._router._table.reported(peer_id, response.load)
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


class Router:
    """Asks the best listener of a namespace. Made by `open_router`."""

    def __init__(
        self, links: Links, membership: Membership, *, policy: Policy, strict: bool, rng: Random
    ) -> None:
        self.policy = policy
        self.strict = strict
        self._links = links
        self._table = links.table
        self._membership = membership
        self._rng = rng
        self._serial = 0

    @property
    def peers(self) -> tuple[PeerRecord, ...]:
        """A snapshot of the listeners that are connected."""
        return self._table.snapshot()

    @property
    def trouble(self) -> PunchError | None:
        """What keeps us out of the namespace, if something does."""
        return self._membership.trouble

    def answer(self, request: CommandRequest) -> Answer:
        """Ask, and take the answer as it is made.

        ::

            async with router.answer(chat_request("why?")) as answer:
                async for text in answer:
                    print(text, end="")

        Leaving the context early cancels the request.

        Raises:
          InvalidRequest: naming the value and the rule it breaks.

        """
        check_request(request)
        if self.strict and not request.strict:
            request = attrs.evolve(request, strict=True)
        return Answer(self, request)

    async def ask(self, question: str | CommandRequest) -> CommandResponse:
        """Ask, and wait for the whole answer. Raises as `Answer.receive` does."""
        request = chat_request(question) if isinstance(question, str) else question
        async with self.answer(request) as answer:
            while await answer.receive() is not None:
                pass
            return answer.response

    async def wait_for_peers(
        self, enough: Callable[[tuple[PeerRecord, ...]], bool] = bool
    ) -> tuple[PeerRecord, ...]:
        """Wait until `peers` is *enough* (by default: anybody), and return it."""
        while not enough(self.peers):
            await self._links.change()
        return self.peers

    # ---- what answers need ----

    def _decide(self, request: CommandRequest, tried: frozenset[PeerId], now: float) -> Decision:
        route = route_request(request, tried=tried, serial=self._serial)
        self._serial += not tried
        return self.policy.decide(route, self._table.snapshot(), now=now, rng=self._rng)

    async def _settle(self, deadline: float) -> None:
        """Wait until somebody is known to be there, and all of them were heard or failed to be."""
        limit = min(deadline, trio.current_time() + SETTLE_SECONDS)
        with trio.move_on_at(limit):
            while not (self._membership.joined.is_set() and self._links.settled()):
                if self._membership.refused.is_set():
                    break
                await self._links.change()
        if not self._membership.joined.is_set() and self._membership.trouble is not None:
            raise self._membership.trouble

    def _with_unreachable(self, error: PunchError) -> PunchError:
        """The same error, with the listeners in it that could not even be connected."""
        if type(error) is not NoPeerAvailable:
            return error
        gone = self._links.unreachable().items()
        reasons = {peer: why.removeprefix(f"{peer}: ") for peer, why in gone} | dict(error.reasons)
        if reasons.keys() == error.reasons.keys():
            return error
        complete = NoPeerAvailable("no listener could answer", reasons)
        complete.retry_after = error.retry_after
        return complete

    def _failed(self, peer_id: PeerId, error: PeerError) -> None:
        now, retry_after = trio.current_time(), error.retry_after
        if isinstance(error, PeerRefused):
            self._table.refused(peer_id, now=now, retry_after=retry_after)
        else:
            self._table.failed(peer_id, now=now, retry_after=retry_after)

    def _succeeded(self, peer_id: PeerId, response: CommandResponse) -> None:
        model = response.provenance.model if response.provenance is not None else None
        if model is None:
            return
        usage, timings = response.usage, response.timings
        self._table.succeeded(
            peer_id,
            model,
            prefill_tokens=usage.computed_tokens,
            prefill_seconds=timings.prefill,
            decode_tokens=usage.completion_tokens,
            decode_seconds=timings.decode,
        )


@asynccontextmanager
async def open_router(
    *,
    bootstrap: str | Address = DEFAULT_BOOTSTRAP,
    namespace: str = DEFAULT_NAMESPACE,
    policy: Policy | str = "completion-time",
    strict: bool = False,
    transport: Literal["tcp", "quic", "dual"] = "tcp",
    identity: str | os.PathLike[str] | None = None,
    known: KnownPeers | None = None,
    node: Node | None = None,
    incarnation: int | None = None,
    rng: Random | None = None,
) -> AsyncIterator[Router]:
    """A router, for as long as the context lasts: it joins a namespace and asks its listeners.

    Args:
      bootstrap: Where the namespace meets, as a multiaddress. Without ``/p2p/PEER_ID`` it is
        trusted on first use, see *known*.
      namespace: Which one.
      policy: How to choose: a `Policy`, or the name of one in `POLICIES`.
      strict: Take real inference only, whatever a request says.
      transport: What to dial with.
      identity: File with our key, made if it is not there; `None` for a fresh identity.
      known: Who was at the bootstrap before; by default nobody, and it is not kept.
      node: Use this node, which stays open, instead of one of our own.
      incarnation: Grows each time we start; by default the time.
      rng: Draws among equals.

    Raises:
      ConfigurationError: if an argument makes no sense; the text names it.

    """
    policy = _policy(policy)
    if isinstance(bootstrap, str):
        bootstrap = parse_address(bootstrap, setting="bootstrap")
    if bootstrap.transport == "quic" and transport == "tcp":
        raise ConfigurationError(
            f"bootstrap is {bootstrap}, an address of QUIC, and the transport is tcp: "
            "say --transport quic or dual, or give the address as /ip4/HOST/tcp/PORT"
        )
    incarnation = incarnation if incarnation is not None else new_incarnation()
    async with AsyncExitStack() as stack:
        if node is None:
            node = await stack.enter_async_context(
                open_node(identity=identity, transport=transport)
            )
        links = Links(node, namespace=namespace, incarnation=incarnation, version=__version__)
        nursery = await stack.enter_async_context(open_background())
        membership = await stack.enter_async_context(
            join_namespace(
                node,
                bootstrap if transport == "dual" else bootstrap.over(transport),
                known=known or KnownPeers(None),
                namespace=namespace,
                role="dialer",
                incarnation=incarnation,
                changed=links.listeners_changed,
            )
        )
        nursery.start_soon(links.run, membership)
        yield Router(links, membership, policy=policy, strict=strict, rng=rng or Random())


def _policy(policy: Policy | str) -> Policy:
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise ConfigurationError(f"policy is {policy!r}; there are {', '.join(POLICIES)}")
    return POLICIES[policy]
