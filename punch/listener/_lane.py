"""A lane, one backend of a listener, with its slots, queue, measured speeds and state.

A lane answers what it is given and says whether it can; which lane a request goes to is the
business of the executor. What happens to one lane's backend changes nothing for another lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import attrs
import trio

from ..admission import NO_CAPS, Caps, NoRoom, Slots
from ..backends import Adopted, Backend, Explained, plausible
from ..capability import Lane, Load, ModelOffer
from ..exceptions import BackendCrashed, BackendError, OfferUnavailable, PeerRefused, PeerSimulated
from ..wire import CommandRequest, CommandResponse, Provenance, Timings
from ._offered import Offered
from ._outcomes import Outcomes
from ._rest import Rest
from ._speeds import Speeds
from ._workload import Workload
from .recordings import Recording

DRAIN_SECONDS = 10.0

TOO_LONG = "the answer takes too long"


def provenance_of(backend: Backend, offer: ModelOffer) -> Provenance:
    """Where an answer of *backend* with *offer* comes from."""
    return Provenance(
        kind="simulated" if backend.simulated else "real",
        backend=backend.name,
        model=offer.name,
        model_digest=offer.digest,
    )


@attrs.frozen(kw_only=True)
class LaneStatistics:
    """Counts of a lane at one instant, and totals since it was added."""

    id: str
    """Names the lane within its listener."""

    backend: str
    """Name of the backend."""

    state: str
    """See `RunningLane.state`."""

    busy: int
    """Requests being answered."""

    queued: int
    """Requests waiting."""

    served: int
    """Answers completed so far."""

    failed: int
    """Answers that the backend did not complete, so far."""


def find_offer(
    backend: Backend, request: CommandRequest, caps: Caps = NO_CAPS
) -> ModelOffer | None:
    """The offer of *backend* with the model of *request*, within *caps*.

    One that can do what is asked, if there is one.
    """
    found = [
        offer
        for offer in backend.offers
        if request.model in (None, offer.name)
        and request.model_digest in (None, offer.digest)
        and (caps.models is None or caps.allows(offer.name))
    ]
    needs = {request.command} | request.needs
    return next((offer for offer in found if needs <= offer.features), found[0] if found else None)


def reason_of(backend: Backend) -> str | None:
    """Why *backend* is not ready, in words that every peer may read, where that is known."""
    return backend.reason if isinstance(backend, Explained) else None


def state_of(backend: Backend, offers: Sequence[ModelOffer]) -> str:
    """How the engine of *backend* is, of which *offers* can be told."""
    if isinstance(backend, Adopted) and (backend.state != "ready" or offers):
        # A model that its server will load when it is asked keeps nobody from asking.
        return backend.state
    if not offers:
        return "failed"
    return "starting" if all(offer.load_seconds > 0 for offer in offers) else "ready"


def check_own(backend: Backend, offer: ModelOffer) -> None:
    """Return unless *offer* was chosen for whose its machines are, and that has changed.

    Raises:
      OfferUnavailable: if it has.

    """
    if not offer.own_workers:
        return
    if not any(one.own_workers for one in backend.offers if one.name == offer.name):
        raise OfferUnavailable(f"{offer.name} lies on machines of other owners, too, by now")


def _seconds_to(moment: float | None, begin: float) -> float | None:
    return None if moment is None else moment - begin


class RunningLane:
    """A lane of a running listener. Made by `Listener.add`, or by `open_listener`.

    Args:
      backend: Makes the answers.
      lane_id: Names the lane within its listener; no two lanes ever share one.
      name: What people call it.
      queue_limit: Requests that may wait for a slot.
      strict: Refuse every request if the backend simulates.
      outcomes: Makes the responses.
      changed: Called after every change of what the lane says of itself.

    """

    def __init__(
        self,
        backend: Backend,
        *,
        lane_id: str,
        name: str,
        queue_limit: int,
        strict: bool,
        outcomes: Outcomes,
        changed: Callable[[], None],
    ) -> None:
        self.backend = backend
        self.id = lane_id
        self.name = name
        self.strict = strict
        self.is_draining = False
        self.speeds = Speeds()
        """The measured rates of the backend."""
        self.slots = Slots(backend.slots, queue_limit)
        """The slots, and the queue for them."""
        self.offered = Offered(backend, lane_id)
        """Its offers."""
        self._is_adopted = isinstance(backend, Adopted)
        self._outcomes = outcomes
        self._changed = changed
        self._workload, self._rest = Workload(), Rest()
        self._under_way: set[Recording] = set()
        self._ended = trio.Event()
        self._served = self._failed = 0

    # ---- what is advertised ----

    @property
    def state(self) -> str:
        """How the engine is.

        ``ready``; ``starting`` while it loads; ``resting`` for a while after a crash, or while a
        server that is not ours is away; ``failed`` once it is down for good.
        """
        state = state_of(self.backend, self.offered.offers)
        rests = state == "ready" and self._rest.is_on(trio.current_time())
        return "resting" if rests else state

    def statistics(self) -> LaneStatistics:
        """Counts of requests, and the state."""
        return LaneStatistics(
            id=self.id,
            backend=self.backend.name,
            state=self.state,
            busy=self.slots.busy,
            queued=self.slots.queued,
            served=self._served,
            failed=self._failed,
        )

    def load(self) -> Load:
        """How busy the lane is."""
        return self._workload.load(self.slots, is_draining=self.is_draining)

    def claim(self) -> Lane:
        """The lane as the capability vector has it."""
        return Lane(
            id=self.id,
            backend=self.backend.name,
            simulated=self.backend.simulated,
            load=self.load(),
            state=self.state,
            threads=self.backend.threads,
            reason=reason_of(self.backend),
        )

    def offers(self) -> tuple[ModelOffer, ...]:
        """The offers as the capability vector has them: named, and with what was measured."""
        return self.offered.told(
            lambda offer: self.speeds.claims(offer.name, self._workload.usual_tokens(offer))
        )

    # ---- acceptance ----

    def check(self, request: CommandRequest, offer: ModelOffer) -> None:
        """Return if *request* may be answered with *offer* now.

        Raises:
          PeerSimulated: if it must be real and the backend simulates.
          PeerRefused: if the offer cannot do all that is asked.
          OfferUnavailable: if the lane takes nothing new.

        """
        if (request.strict or self.strict) and self.backend.simulated:
            raise PeerSimulated(
                f"backend {self.backend.name} simulates; strict mode takes real inference only"
            )
        if lacks := ({request.command} | request.needs) - offer.features:
            raise PeerRefused(f"{offer.name} cannot {', '.join(sorted(lacks))} here")
        if self.is_draining:
            raise OfferUnavailable(f"lane {self.id} is shutting down")

    # ---- answering ----

    async def make(
        self,
        recording: Recording,
        request: CommandRequest,
        offer: ModelOffer,
        *,
        arrived_at: float,
    ) -> None:
        """Make the answer into *recording*, which always has an end after this, if it is read.

        Args:
          recording: What the readers of the answer follow; its scope ends the work.
          request: What to answer.
          offer: What to answer with.
          arrived_at: When the request came, in seconds.

        """
        self._under_way.add(recording)
        try:
            with recording.scope:
                try:
                    response = await self._generate(recording, request, offer, arrived_at)
                except Exception as error:  # noqa: BLE001 - becomes the response
                    self._note(error)
                    failure = self._outcomes.failure(request, error, recording.text)
                    response = attrs.evolve(failure, lane=self.id)
                recording.end(response)
            if recording.scope.cancelled_caught:
                recording.end(self._cut_off(recording, request))
        finally:
            self._under_way.discard(recording)
            if not self._under_way:
                self._ended.set()

    def _cut_off(self, recording: Recording, request: CommandRequest) -> CommandResponse:
        if recording.is_time_up(trio.current_time()):
            return self._outcomes.timeout(request)
        why = f"lane {self.id} was removed" if self.is_draining else TOO_LONG
        return self._outcomes.failure(request, BackendError(why))

    async def _generate(
        self,
        recording: Recording,
        request: CommandRequest,
        offer: ModelOffer,
        arrived_at: float,
    ) -> CommandResponse:
        backend, slots = self.backend, self.slots
        work = self._workload.plan(recording, request, offer)
        if request.model != offer.name and (self._is_adopted or len(backend.offers) > 1):
            request = attrs.evolve(request, model=offer.name)
        try:
            await slots.acquire(
                work.ticket,
                partial(self._queued, recording),
                limit=recording.scope.deadline - arrived_at,
                own_seconds=self.speeds.prefill_seconds(offer.name, work.ticket.prompt_tokens),
            )
        except NoRoom as full:
            raise PeerRefused(full.why, retry_after=full.retry_after) from None
        self._changed()
        finished = False
        try:
            self._workload.begin(work)
            await backend.ready(partial(self._loading, recording))
            check_own(backend, offer)
            started_at = trio.current_time()
            busy = slots.busy_seconds(started_at)
            provenance = provenance_of(backend, offer)
            recording.begin(provenance, started_at)
            with recording.asker.caps.time_limit():
                generation = await backend.generate(request, recording.add)
            finished = True
        finally:
            self._workload.end(work)
            slots.release(work.ticket, output_tokens=recording.tokens, finished=finished)
            self._changed()
        ended_at = trio.current_time()
        took = ended_at - started_at
        batch = (slots.busy_seconds(ended_at) - busy) / took if took > 0 else None
        self._served += 1
        self._rest.served()
        generation = plausible(generation, request, offer)
        usage, timings = generation.usage, generation.timings
        if generation.completion.finish_reason != "length":
            # An answer that its limit has cut says nothing about the usual length.
            self._workload.learn(offer.name, usage.completion_tokens)
        self.speeds.learn(offer.name, usage, timings, batch=batch)
        return self._outcomes.response(
            request,
            "success",
            lane=self.id,
            result=generation.completion,
            provenance=provenance,
            usage=usage,
            timings=Timings(
                queue=started_at - arrived_at,
                first_token=_seconds_to(recording.first_text_at, arrived_at),
                total=ended_at - arrived_at,
                prefill=timings.prefill,
                decode=timings.decode,
                batch=batch,
            ),
        )

    def _queued(self, recording: Recording, ahead: int, seconds: float | None) -> None:
        recording.say(lambda one: one.progress("queued", ahead=ahead, seconds=seconds))
        self._changed()

    def _loading(self, recording: Recording, seconds: float) -> None:
        recording.say(lambda one: one.progress("loading", seconds=seconds))
        self._changed()

    def _note(self, error: Exception) -> None:
        """Count a failed answer; a cancelled one says nothing about the backend."""
        if isinstance(error, BackendError):
            self._failed += 1
        if isinstance(error, BackendCrashed):
            self._rest.crashed(trio.current_time())
            self._changed()

    # ---- the end ----

    async def drain(self) -> None:
        """Refuse new requests, and wait for a bounded time until all answers are made."""
        self.is_draining = True
        self._changed()
        with trio.move_on_after(DRAIN_SECONDS):
            while self._under_way:
                if self._ended.is_set():
                    self._ended = trio.Event()
                await self._ended.wait()

    def cancel(self) -> None:
        """Cancel the answers under way; their readers get an error that the lane was removed."""
        for recording in self._under_way:
            recording.scope.cancel()
