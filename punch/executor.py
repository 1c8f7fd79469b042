"""The listener's side: takes requests from sessions, in turn, and has the backend answer them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from ._version import __version__
from .admission import Slots
from .backends import Backend
from .background import open_background
from .capability import Capability, Load, ModelOffer, PeerId
from .exceptions import (
    BackendError,
    ConfigurationError,
    PeerFailed,
    PeerRefused,
    PeerSimulated,
    PunchError,
    RequestError,
)
from .logs import get_logger
from .machine import Machine
from .node import Inquiry, Node, PeerSession, Stream
from .peers import Rates
from .wire import (
    PROTOCOL,
    Advert,
    ChatMessage,
    CommandRequest,
    CommandResponse,
    Fault,
    Hello,
    Provenance,
    Sampling,
    Session,
    Status,
    Timings,
    Usage,
    check_request,
    greeting,
)

log = get_logger(__name__)

# A change of load is pushed this much later, together with what else changed by then, and the
# whole vector at least this often.
COALESCE_SECONDS = 0.05
ADVERT_SECONDS = 1.0

# Long enough to time the prefill of a graphics card, short enough for a slow laptop.
CALIBRATION_PROMPT = "The quick brown fox jumps over the lazy dog near the river bank. " * 16
CALIBRATION_TOKENS = 24
CALIBRATION_SECONDS = 60.0

DRAIN_SECONDS = 10.0

# How long the last words to the dialers may take.
FAREWELL_SECONDS = 2.0

# Nobody waits longer for an answer, and no slot is held longer by one.
LONGEST_SECONDS = 3600.0


@attrs.frozen(kw_only=True)
class ExecutorStatistics:
    """What an executor holds at one instant, and what it has done."""

    sessions: int
    """Dialers connected."""

    busy: int
    """Requests being answered."""

    queued: int
    """Requests waiting."""

    served: int
    """Answers completed so far."""

    refused: int
    """Requests refused so far."""

    cancelled: int
    """Requests cancelled so far."""


class Executor:
    """Answers requests with one backend. Made by `open_executor`."""

    def __init__(
        self,
        node: Node,
        backend: Backend,
        *,
        namespace: str,
        incarnation: int,
        queue_limit: int,
        strict: bool,
        machine: Machine | None,
    ) -> None:
        self._node = node
        self._backend = backend
        self._namespace = namespace
        self._incarnation = incarnation
        self._strict = strict
        self._machine = machine
        self._slots = Slots(backend.slots, queue_limit)
        self._sessions: set[PeerSession] = set()
        self._rates: dict[str, Rates] = {}
        self._sequence = 0
        self._draining = False
        self._changed = trio.Event()
        self._left = trio.Event()
        self._served = self._refused = self._cancelled = 0

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        return self._node.peer_id

    # ---- what we say of ourselves ----

    def statistics(self) -> ExecutorStatistics:
        """What it holds and has done."""
        return ExecutorStatistics(
            sessions=len(self._sessions),
            busy=self._slots.busy,
            queued=self._slots.queued,
            served=self._served,
            refused=self._refused,
            cancelled=self._cancelled,
        )

    def load(self) -> Load:
        """How busy it is."""
        slots = self._slots
        return Load(
            slots=slots.slots,
            busy=slots.busy,
            queued=slots.queued,
            queue_limit=slots.queue_limit,
            queued_prompt_tokens=slots.queued_prompt_tokens,
            draining=self._draining,
        )

    def capability(self) -> Capability:
        """The vector it advertises."""
        capability = Capability(
            backend=self._backend.name,
            simulated=self._backend.simulated,
            models=tuple(self._with_rates(offer) for offer in self._backend.offers),
            load=self.load(),
            threads=self._backend.threads,
            gpus=self._backend.gpus,
        )
        if self._machine is None:
            return capability
        sample = self._machine.sample()
        return attrs.evolve(
            capability,
            cpu_count=sample.cpu_count,
            cpu_usage=sample.cpu_usage,
            memory_total_bytes=sample.memory_total_bytes,
            memory_available_bytes=sample.memory_available_bytes,
            disk_total_bytes=sample.disk_total_bytes,
            disk_available_bytes=sample.disk_available_bytes,
            # The driver knows more of its own GPUs than the backend does.
            gpus=sample.gpus or self._backend.gpus,
        )

    def _with_rates(self, offer: ModelOffer) -> ModelOffer:
        rates = self._rates.get(offer.name)
        if rates is None:
            return offer
        return attrs.evolve(offer, prefill_rate=rates.prefill, decode_rate=rates.decode)

    def _advert(self) -> Advert:
        self._sequence += 1
        return Advert(
            incarnation=self._incarnation,
            sequence=self._sequence,
            age=0.0,
            capability=self.capability(),
        )

    async def _advertise(self) -> None:
        while True:
            with trio.move_on_after(ADVERT_SECONDS):
                await self._changed.wait()
                await trio.sleep(COALESCE_SECONDS)
            self._changed = trio.Event()
            if self._sessions:
                advert = self._advert()
                for session in self._sessions:
                    session.advertise(advert)

    # ---- sessions ----

    async def _serve(self, stream: Stream) -> None:
        hello = greeting(
            namespace=self._namespace, incarnation=self._incarnation, version=__version__
        )
        session = PeerSession(stream, Session("listener", hello), self)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            self._left.set()

    def opened(self, session: PeerSession, hello: Hello) -> None:
        """Tell a new dialer what we can do."""
        self._sessions.add(session)
        session.advertise(self._advert())

    def advertised(self, session: PeerSession, advert: Advert) -> None:
        """Dialers advertise nothing."""

    def round_trip(self, session: PeerSession, seconds: float) -> None:
        """The dialer measures its own."""

    # ---- requests ----

    async def inquire(self, inquiry: Inquiry) -> None:
        """Answer one request, whatever happens."""
        request = inquiry.request
        arrived_at = trio.current_time()
        limit = min(LONGEST_SECONDS, request.timeout or LONGEST_SECONDS)
        try:
            with trio.move_on_after(limit) as scope:
                response = await self._answer(inquiry, arrived_at)
            if scope.cancelled_caught:
                fault = Fault(code="deadline", message="the time ran out on the listener")
                response = self._response(request, "timeout", error=fault)
        except trio.Cancelled:
            self._cancelled += 1
            raise
        except (PeerRefused, PeerSimulated) as error:
            self._refused += 1
            response = self._response(request, "refused", error=_fault(error, retryable=True))
        except RequestError as error:
            response = self._response(request, "error", error=_fault(error))
        except BackendError as error:
            log.warning("an answer failed", request_id=request.request_id, why=str(error))
            fault = attrs.evolve(_fault(error, retryable=True), code=PeerFailed.code)
            response = self._response(request, "error", error=fault)
        except Exception as bug:
            # A backend's bug ends its own answer, not the session with everybody else's. What it
            # says may name files of this machine, so it stays in our log.
            log.exception("a backend has a bug", request_id=request.request_id)
            message = f"a bug in the listener's backend ({type(bug).__name__})"
            fault = Fault(code=PeerFailed.code, message=message, retryable=True)
            response = self._response(request, "error", error=fault)
        inquiry.respond(response)

    async def _answer(self, inquiry: Inquiry, arrived_at: float) -> CommandResponse:
        request = inquiry.request
        check_request(request)
        if request.command == "ping":
            return self._response(request, "success")
        if request.command == "capabilities":
            return self._response(request, "success", capability=self.capability())
        if (request.strict or self._strict) and self._backend.simulated:
            raise PeerSimulated(
                f"backend {self._backend.name} simulates; strict mode takes real inference only"
            )
        if self._draining:
            raise PeerRefused("shutting down")
        offer = self._offer(request)
        provenance = Provenance(
            kind="simulated" if self._backend.simulated else "real",
            backend=self._backend.name,
            model=offer.name,
            model_digest=offer.digest,
        )
        first_text_at: float | None = None

        async def emit(text: str, tokens: int) -> None:
            nonlocal first_text_at
            if first_text_at is None:
                first_text_at = trio.current_time()
            if request.stream:
                await inquiry.send_text(text, tokens)
            else:
                inquiry.tokens += tokens

        await self._slots.take(request, lambda: self._wait(inquiry))
        self._changed.set()
        started_at = trio.current_time()
        try:
            inquiry.started(provenance)
            if request.model != offer.name:
                request = attrs.evolve(request, model=offer.name)
            generation = await self._backend.generate(request, emit)
        finally:
            self._slots.give()
            self._changed.set()
        self._served += 1
        usage, timings, completion = generation.usage, generation.timings, generation.completion
        self._learn(offer.name, usage, timings)
        return self._response(
            request,
            "success",
            # What was sent in chunks is not sent again.
            result=attrs.evolve(completion, text="") if request.stream else completion,
            provenance=provenance,
            usage=usage,
            timings=Timings(
                queue=started_at - arrived_at,
                first_token=None if first_text_at is None else first_text_at - arrived_at,
                total=trio.current_time() - arrived_at,
                prefill=timings.prefill,
                decode=timings.decode,
            ),
        )

    def _wait(self, inquiry: Inquiry) -> None:
        inquiry.progress("queued")
        self._changed.set()

    def _offer(self, request: CommandRequest) -> ModelOffer:
        offers = self._backend.offers
        for offer in offers:
            if request.model not in (None, offer.name):
                continue
            if request.model_digest not in (None, offer.digest):
                continue
            if request.command not in offer.features:
                raise PeerRefused(f"{offer.name} cannot {request.command} here")
            return offer
        names = ", ".join(offer.name for offer in offers)
        raise PeerRefused(f"no model {request.model!r} here; on offer: {names or 'none'}")

    def _learn(self, model: str, usage: Usage, timings: Timings) -> None:
        self._rates[model] = self._rates.get(model, Rates()).with_sample(
            prefill_tokens=usage.computed_tokens,
            prefill_seconds=timings.prefill,
            decode_tokens=usage.completion_tokens,
            decode_seconds=timings.decode,
        )

    def _response(self, request: CommandRequest, status: Status, **fields: Any) -> CommandResponse:
        """A response with what is the same in all of them, and the load at this moment."""
        return CommandResponse(
            request_id=request.request_id,
            status=status,
            executor=self._node.peer_id,
            load=self.load(),
            **fields,
        )

    # ---- the beginning and the end ----

    async def calibrate(self) -> None:
        """Time a short answer of every model that can chat, so that the first advert is true.

        Raises:
          BackendError: if the backend cannot even do this.

        """
        for index, offer in enumerate(self._backend.offers):
            if "chat" not in offer.features:
                continue
            request = CommandRequest(
                request_id=f"calibration-{index}",
                model=offer.name,
                messages=(ChatMessage(role="user", content=CALIBRATION_PROMPT),),
                sampling=Sampling(max_tokens=CALIBRATION_TOKENS, temperature=0.0),
            )
            with trio.move_on_after(CALIBRATION_SECONDS) as scope:
                generation = await self._backend.generate(request, _nowhere)
            if scope.cancelled_caught:
                log.warning("calibration took too long; speeds are unknown", model=offer.name)
                continue
            self._learn(offer.name, generation.usage, generation.timings)
            rates = self._rates[offer.name]
            log.info(
                "calibrated",
                model=offer.name,
                prefill_rate=rates.prefill and round(rates.prefill, 1),
                decode_rate=rates.decode and round(rates.decode, 1),
            )

    async def _leave(self) -> None:
        """Tell the dialers that we go, and see that it reaches them."""
        for session in tuple(self._sessions):
            session.close("bye", "shutting down")
        with trio.move_on_after(FAREWELL_SECONDS):
            while self._sessions:
                self._left = trio.Event()
                await self._left.wait()

    async def drain(self) -> None:
        """Take nothing new, and wait until what was taken is answered, for a bounded time."""
        self._draining = True
        self._changed.set()
        with trio.move_on_after(DRAIN_SECONDS):
            await self._slots.idle()


def _fault(error: PunchError, *, retryable: bool = False) -> Fault:
    return Fault(
        code=error.code,
        message=str(error)[:4000],
        retryable=retryable,
        retry_after=error.retry_after,
    )


async def _nowhere(text: str, tokens: int) -> None:
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_executor(
    node: Node,
    backend: Backend,
    *,
    namespace: str,
    incarnation: int,
    queue_limit: int = 16,
    strict: bool = False,
    calibrate: bool = True,
    machine: Machine | None = None,
) -> AsyncIterator[Executor]:
    """Answer the requests that come to *node*, for as long as the context lasts.

    Args:
      node: Where requests come in.
      backend: What answers them.
      namespace: Dialers of any other namespace are turned away.
      incarnation: Grows each time the listener starts.
      queue_limit: Requests that may wait for a slot.
      strict: Refuse every request if the backend simulates.
      calibrate: Time the backend first; see `Executor.calibrate`.
      machine: Measures the machine, if it should be.

    Raises:
      ConfigurationError: if a value makes no sense.
      BackendError: if calibration finds the backend unable to answer.

    """
    if queue_limit < 0:
        raise ConfigurationError(f"the queue's limit is {queue_limit}; it must be 0 or more")
    if not backend.offers:
        raise ConfigurationError(f"backend {backend.name} offers no model")
    executor = Executor(
        node,
        backend,
        namespace=namespace,
        incarnation=incarnation,
        queue_limit=queue_limit,
        strict=strict,
        machine=machine,
    )
    if calibrate:
        await executor.calibrate()
    async with open_background() as nursery:
        nursery.start_soon(executor._advertise)
        node.handle(PROTOCOL, executor._serve)
        yield executor
        await executor._leave()
