"""The listener's side: takes requests from sessions, in turn, and has the backend answer them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from traceback import format_tb
from typing import Any

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from .._version import __version__
from ..admission import Slots
from ..backends import Backend, plausible
from ..capability import Capability, Load, ModelOffer, PeerId
from ..decision_log import scrubbed
from ..exceptions import (
    BackendError,
    ConfigurationError,
    PeerFailed,
    PeerRefused,
    PeerSimulated,
    PunchError,
    RequestError,
)
from ..machine import Machine, MachineSample
from ..network import Node, Stream
from ..peers import Rates
from ..session import Inquiry, PeerSession
from ..wire import (
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
    fingerprint,
    greeting,
)
from ._recording import LONGEST_SECONDS, Recording, Recordings, RecordingStatistics
from ._workload import Workload

log = get_logger(__name__)

# A change of load is pushed this much later, together with what else changed by then, and the
# whole vector at least this often.
COALESCE_SECONDS = 0.05
ADVERT_SECONDS = 1.0

# The machine itself is measured no more often: each of its GPUs takes a millisecond.
SAMPLE_SECONDS = 1.0

# Long enough to time the prefill of a graphics card, short enough for a slow laptop.
CALIBRATION_PROMPT = "The quick brown fox jumps over the lazy dog near the river bank. " * 16
CALIBRATION_TOKENS = 24
CALIBRATION_SECONDS = 60.0

DRAIN_SECONDS = 10.0

# How long the last words to the dialers may take.
FAREWELL_SECONDS = 2.0


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

    recordings: RecordingStatistics
    """Answers being made, and those that are kept for who asks again."""


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
        self._sample: MachineSample | None = None
        self._sampled_at = -math.inf
        self._slots = Slots(backend.slots, queue_limit)
        self._sessions: set[PeerSession] = set()
        self._rates: dict[str, Rates] = {}
        self._sequence = 0
        self._draining = False
        self._changed = trio.Event()
        self._left = trio.Event()
        self._served = self._refused = self._cancelled = 0
        self._recordings = Recordings()
        self._workload = Workload()
        self._nursery: trio.Nursery | None = None
        self._inquiries = 0
        self._quiet = trio.Event()

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
            recordings=self._recordings.statistics(),
        )

    def load(self) -> Load:
        """How busy it is."""
        slots, workload = self._slots, self._workload
        return Load(
            slots=slots.slots,
            busy=slots.busy,
            queued=slots.queued,
            queue_limit=slots.queue_limit,
            queued_prompt_tokens=slots.line.prompt_tokens + workload.prompt_tokens_left,
            output_tokens_left=slots.line.output_tokens + workload.output_tokens_left,
            draining=self._draining,
        )

    def capability(self) -> Capability:
        """The vector it advertises."""
        capability = Capability.of_one_lane(
            backend=self._backend.name,
            simulated=self._backend.simulated,
            models=tuple(self._with_rates(offer) for offer in self._backend.offers),
            load=self.load(),
            threads=self._backend.threads,
            gpus=self._backend.gpus,
        )
        if self._machine is None:
            return capability
        now = trio.current_time()
        sample = self._sample
        if sample is None or now - self._sampled_at >= SAMPLE_SECONDS:
            sample = self._sample = self._machine.sample()
            self._sampled_at = now
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
        return attrs.evolve(
            offer,
            prefill_rate=rates.prefill,
            decode_rate=rates.decode,
            slowdown=rates.slowdown,
            usual_tokens=self._workload.usual_tokens(offer),
        )

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
        self._inquiries += 1
        try:
            response = await self._settle(inquiry)
            inquiry.respond(attrs.evolve(response, load=self.load()))
        except trio.Cancelled:
            self._cancelled += 1
            raise
        finally:
            self._inquiries -= 1
            self._quiet.set()

    async def _settle(self, inquiry: Inquiry) -> CommandResponse:
        """How the request of *inquiry* ends."""
        request = inquiry.request
        limit = min(LONGEST_SECONDS, request.timeout or LONGEST_SECONDS)
        try:
            with trio.move_on_after(limit) as scope:
                return await self._respond(inquiry, scope)
        except PunchError as error:
            return self._failure(request, error)
        fault = Fault(code="deadline", message="the time ran out on the listener")
        return self._response(request, "timeout", error=fault)

    async def _respond(self, inquiry: Inquiry, scope: trio.CancelScope) -> CommandResponse:
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
        response = await self._read(inquiry, self._recording(inquiry, scope), scope)
        if response.result is None or not request.stream:
            return response
        # What was sent in chunks is not sent again.
        return attrs.evolve(response, result=attrs.evolve(response.result, text=""))

    def _recording(self, inquiry: Inquiry, scope: trio.CancelScope) -> Recording:
        """What *inquiry* reads: the answer that is there already, or a new one."""
        request = inquiry.request
        now = trio.current_time()
        mark = fingerprint(request)
        recording = self._recordings.find(inquiry.dialer, request, mark, now=now)
        if recording is None:
            if self._draining:
                raise PeerRefused("shutting down")
            offer = self._offer(request)
            recording = self._recordings.open(inquiry.dialer, request, mark)
            assert self._nursery is not None
            self._nursery.start_soon(self._make, recording, request, offer, now, scope.deadline)
        return recording

    async def _read(
        self, inquiry: Inquiry, recording: Recording, scope: trio.CancelScope
    ) -> CommandResponse:
        reader = recording.join(inquiry)
        comes_back = False
        try:
            return await recording.follow(reader)
        except trio.Cancelled:
            inquiry.tokens = max(inquiry.tokens, recording.tokens)
            # Neither a cancel nor the deadline: its session broke.
            comes_back = not inquiry.unwanted and not scope.cancel_called
            raise
        finally:
            recording.leave(reader, comes_back=comes_back)

    async def _make(
        self,
        recording: Recording,
        request: CommandRequest,
        offer: ModelOffer,
        arrived_at: float,
        deadline: float,
    ) -> None:
        """Make the answer, in a task of its own: whoever asked first may leave before it ends."""
        try:
            with recording.scope:
                try:
                    response = await self._generate(recording, request, offer, arrived_at, deadline)
                except Exception as error:  # noqa: BLE001 - becomes the response
                    response = self._failure(request, error, recording.text)
                recording.end(response)
            if recording.scope.cancelled_caught and recording.readers:
                # Its time is up, and one who joined it late still waits for it.
                recording.end(self._failure(request, BackendError("the answer takes too long")))
        finally:
            self._recordings.ended(recording, now=trio.current_time())

    def _failure(
        self, request: CommandRequest, error: Exception, answer: str = ""
    ) -> CommandResponse:
        """Our word for what went wrong. What it quotes of the prompt or *answer* is not logged."""
        request_id = request.request_id
        if isinstance(error, PeerRefused | PeerSimulated):
            self._refused += 1
            return self._response(request, "refused", error=_fault(error, retryable=True))
        if isinstance(error, RequestError):
            return self._response(request, "error", error=_fault(error))
        if isinstance(error, BackendError):
            why = scrubbed(str(error), request, answer)
            log.warning("an answer failed", request_id=request_id, why=why)
            fault = attrs.evolve(_fault(error, retryable=True), code=PeerFailed.code)
            return self._response(request, "error", error=fault)
        # A backend's bug ends its own answer, not the session with everybody else's. What it
        # says may name files of this machine, so it stays in our log.
        name = type(error).__name__
        why = f"{name}: {scrubbed(str(error), request, answer)}"
        where = "".join(format_tb(error.__traceback__))
        log.error("a backend has a bug", request_id=request_id, why=why, where=where)
        message = f"a bug in the listener's backend ({name})"
        fault = Fault(code=PeerFailed.code, message=message, retryable=True)
        return self._response(request, "error", error=fault)

    async def _generate(
        self,
        recording: Recording,
        request: CommandRequest,
        offer: ModelOffer,
        arrived_at: float,
        deadline: float,
    ) -> CommandResponse:
        backend, slots = self._backend, self._slots
        provenance = Provenance(
            kind="simulated" if backend.simulated else "real",
            backend=backend.name,
            model=offer.name,
            model_digest=offer.digest,
        )
        work = self._workload.plan(recording, request, offer)
        if request.model != offer.name:
            request = attrs.evolve(request, model=offer.name)
        await slots.take(
            work.ticket,
            partial(self._queued, recording),
            limit=deadline - trio.current_time(),
            own_seconds=self._prefill_seconds(offer.name, work.ticket.prompt_tokens),
        )
        self._changed.set()
        finished = False
        try:
            with self._workload.doing(work):
                await backend.ready(partial(self._loading, recording))
                started_at = trio.current_time()
                busy = slots.busy_seconds(started_at)
                recording.begin(provenance)
                generation = await backend.generate(request, recording.add)
                finished = True
        finally:
            slots.give(work.ticket, output_tokens=recording.tokens, finished=finished)
            self._changed.set()
        ended_at = trio.current_time()
        took = ended_at - started_at
        batch = (slots.busy_seconds(ended_at) - busy) / took if took > 0 else None
        self._served += 1
        generation = plausible(generation, request, offer)
        usage, timings = generation.usage, generation.timings
        if generation.completion.finish_reason != "length":
            # One that its limit has cut says nothing of how long answers are.
            self._workload.learn(offer.name, usage.completion_tokens)
        self._learn(offer.name, usage, timings, batch=batch)
        first_text_at = recording.first_text_at
        return self._response(
            request,
            "success",
            result=generation.completion,
            provenance=provenance,
            usage=usage,
            timings=Timings(
                queue=started_at - arrived_at,
                first_token=None if first_text_at is None else first_text_at - arrived_at,
                total=ended_at - arrived_at,
                prefill=timings.prefill,
                decode=timings.decode,
                batch=batch,
            ),
        )

    def _queued(self, recording: Recording, ahead: int, seconds: float | None) -> None:
        recording.say(lambda one: one.progress("queued", ahead=ahead, seconds=seconds))
        self._changed.set()

    def _loading(self, recording: Recording, seconds: float) -> None:
        recording.say(lambda one: one.progress("loading", seconds=seconds))
        self._changed.set()

    def _prefill_seconds(self, model: str, prompt_tokens: int) -> float:
        """How long reading a prompt takes, as far as was measured."""
        rates = self._rates.get(model)
        return prompt_tokens / rates.prefill if rates and rates.prefill else 0.0

    def _offer(self, request: CommandRequest) -> ModelOffer:
        offers = self._backend.offers
        for offer in offers:
            if request.model not in (None, offer.name):
                continue
            if request.model_digest not in (None, offer.digest):
                continue
            if lacks := ({request.command} | request.needs) - offer.features:
                raise PeerRefused(f"{offer.name} cannot {', '.join(sorted(lacks))} here")
            return offer
        names = ", ".join(offer.name for offer in offers)
        raise PeerRefused(f"no model {request.model!r} here; on offer: {names or 'none'}")

    def _learn(self, model: str, usage: Usage, timings: Timings, *, batch: float | None) -> None:
        self._rates[model] = self._rates.get(model, Rates()).with_sample(
            prefill_tokens=usage.computed_tokens,
            prefill_seconds=timings.prefill,
            decode_tokens=usage.completion_tokens,
            decode_seconds=timings.decode,
            batch=batch,
        )

    def _response(self, request: CommandRequest, status: Status, **fields: Any) -> CommandResponse:
        """A response with what is the same in all of them; whoever sends it adds the load."""
        return CommandResponse(
            request_id=request.request_id, status=status, executor=self._node.peer_id, **fields
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
                await self._backend.ready(lambda seconds: None)
                generation = await self._backend.generate(request, _nowhere)
            if scope.cancelled_caught:
                log.warning("calibration took too long; speeds are unknown", model=offer.name)
                continue
            self._learn(offer.name, generation.usage, generation.timings, batch=1.0)
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
            # What was made is still to be passed on.
            while self._inquiries:
                self._quiet = trio.Event()
                await self._quiet.wait()


def _fault(error: PunchError, *, retryable: bool = False) -> Fault:
    return Fault(
        code=error.code,
        message=str(error)[:4000],
        retryable=retryable,
        retry_after=error.retry_after,
        param=error.param if isinstance(error, RequestError) else None,
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
        executor._nursery = nursery
        nursery.start_soon(executor._advertise)
        node.handle(PROTOCOL, executor._serve)
        yield executor
        await executor._leave()
