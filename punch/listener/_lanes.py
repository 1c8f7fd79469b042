"""Adds and removes the lanes of a listener, and decides which of them answers a request.

* A request that names an offer is answered with that offer, or refused: never answered with
  another, which the dialer did not choose.
* Any other request goes to the first lane that has what it asks for, in the order in which they
  were added; of these to one that is ready, if any is, before one that starts or rests.
* A simulated lane is not asked in place of a real one: where the request names no model and there
  is a real lane, or a real lane has the model that it names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
import trio

from .._logs import get_logger
from ..admission import NO_CAPS, Caps
from ..backends import Adopted, Backend
from ..capability import ModelOffer
from ..exceptions import ConfigurationError, OfferUnavailable, PeerError, PeerRefused
from ..peers import Rates
from ..wire import CommandRequest
from ._adverts import Adverts
from ._following import follow
from ._lane import LaneStatistics, RunningLane, find_offer
from ._outcomes import Outcomes
from ._reports import Reports
from ._speeds import calibrate as time_backend

log = get_logger(__name__)

# What a capability has room for, by the rules of the wire.
MAX_LANES = 64

# The id of an offer, of 64 characters at most, is this name, a number, and the name of a model.
MAX_NAME_CHARACTERS = 32


Openable = Backend | AbstractAsyncContextManager[Backend]
"""A backend that is open, or what an ``open_*()`` has returned."""

OneOrMore = Openable | Iterable[Openable]

Chosen = tuple[RunningLane, ModelOffer]
"""A lane, and the offer of it that a request is answered with."""


def each_of(backends: OneOrMore) -> tuple[Openable, ...]:
    """The backends of an argument that takes one or several."""
    if isinstance(backends, AbstractAsyncContextManager) or not isinstance(backends, Iterable):
        return (backends,)
    return tuple(backends)


@attrs.define(eq=False)
class _Held:
    """A backend that was opened here."""

    is_over: trio.Event = attrs.field(factory=trio.Event)
    """Set when it is to be closed."""

    is_closed: trio.Event = attrs.field(factory=trio.Event)
    """Set once it is."""


class Lanes:
    """The lanes of one listener, in the order in which they were added.

    Args:
      adverts: Gets the lanes after every change.
      outcomes: Makes the responses.
      reports: Publishes what happens to them.
      nursery: Where the backends live that are opened here.

    """

    def __init__(
        self, adverts: Adverts, outcomes: Outcomes, reports: Reports, nursery: trio.Nursery
    ) -> None:
        self.served_before = 0
        """Answers that lanes completed which were removed since."""
        self._nursery = nursery
        self._held: dict[RunningLane, _Held] = {}
        self._followed: dict[RunningLane, trio.CancelScope] = {}
        self._adverts = adverts
        self._outcomes = outcomes
        self._reports = reports
        self._lanes: list[RunningLane] = []
        self._numbers: dict[str, int] = {}

    def __iter__(self) -> Iterator[RunningLane]:
        return iter(tuple(self._lanes))

    def __len__(self) -> int:
        return len(self._lanes)

    def statistics(self) -> tuple[LaneStatistics, ...]:
        """The statistics of each lane."""
        return tuple(lane.statistics() for lane in self._lanes)

    async def add(
        self,
        backend: Openable,
        *,
        name: str | None = None,
        queue_limit: int = 16,
        strict: bool = False,
        calibrate: bool = True,
    ) -> RunningLane:
        """Answer with *backend* too, from now on.

        Args:
          backend: An open backend, which stays the caller's to close, or what an ``open_*()`` has
            returned, which is opened here and closed with the lane.
          name: What the lane is called; by default as the backend is.
          queue_limit: Requests that may wait for a slot.
          strict: Refuse every request if the backend simulates.
          calibrate: Time the backend first if it is real, while the other lanes answer; one whose
            engine is not ours, in the background.

        Raises:
          ConfigurationError: if a value makes no sense.
          BackendError: if the backend cannot be opened, or cannot answer while it is timed.

        """
        if queue_limit < 0:
            raise ConfigurationError(f"the queue's limit is {queue_limit}; it must be 0 or more")
        if len(self._lanes) >= MAX_LANES:
            raise ConfigurationError(f"there are {MAX_LANES} lanes, and no listener has more")
        if name is not None:
            self._check_name(name)
        add = partial(
            self._add, name=name, queue_limit=queue_limit, strict=strict, calibrate=calibrate
        )
        if not isinstance(backend, AbstractAsyncContextManager):
            return await add(backend)
        lane: RunningLane = await self._nursery.start(self._hold, backend, add)
        return lane

    async def _add(
        self,
        backend: Backend,
        *,
        name: str | None,
        queue_limit: int,
        strict: bool,
        calibrate: bool,
    ) -> RunningLane:
        is_adopted = isinstance(backend, Adopted)
        lane = RunningLane(
            backend,
            lane_id=self._new_id(name or backend.name),
            name=name or backend.name,
            queue_limit=queue_limit,
            strict=strict,
            outcomes=self._outcomes,
            changed=self._adverts.change,
        )
        if not is_adopted:
            lane.offered.check()
        # A simulated backend is as fast as it claims: there is nothing to measure.
        calibrate = calibrate and not backend.simulated
        timed = partial(self._reports.calibrated, lane)
        if calibrate and not is_adopted:
            await time_backend(backend, lane.speeds, timed=timed)
        self._lanes.append(lane)
        self._tell()
        if is_adopted:
            scope = self._followed[lane] = trio.CancelScope()
            self._nursery.start_soon(self._follow, lane, scope, calibrate, timed)
        return lane

    async def _follow(
        self,
        lane: RunningLane,
        scope: trio.CancelScope,
        calibrate: bool,
        timed: Callable[[str, Rates], None],
    ) -> None:
        with scope:
            await follow(lane, calibrate=calibrate, changed=self._look, timed=timed)

    async def _hold(
        self,
        opener: AbstractAsyncContextManager[Backend],
        add: Callable[[Backend], Awaitable[RunningLane]],
        task_status: trio.TaskStatus[RunningLane],
    ) -> None:
        """Open a backend, add it, and close it once its lane is removed.

        In a task of its own: of two backends the one that was opened first may be closed first.
        """
        lane, held = None, _Held()
        try:
            async with opener as backend:
                lane = await add(backend)
                self._held[lane] = held
                task_status.started(lane)
                await held.is_over.wait()
        except Exception:
            if lane is None:
                raise
            # One backend's failure must not end the others.
            log.exception("a lane's backend came to a bad end", lane=lane.id)
            self._drop(lane)
        finally:
            held.is_closed.set()

    def _check_name(self, name: str) -> None:
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
            raise ConfigurationError(
                f"the lane's name is {name[:100]!r}: it must be 1 to {MAX_NAME_CHARACTERS} "
                "printable characters"
            )
        if any(lane.name == name for lane in self._lanes):
            raise ConfigurationError(f"there is a lane {name!r} already: remove it first")

    def _new_id(self, name: str) -> str:
        """An id that no lane had before: a request for an earlier lane is not this one's."""
        # A name may be what another one's number makes of it: both count on.
        base, number = _numbered(name[:MAX_NAME_CHARACTERS])
        number = max(number, self._numbers.get(base, 0) + 1)
        self._numbers[base] = number
        return base if number == 1 else f"{base}-{number}"

    async def remove(self, lane: RunningLane) -> None:
        """Drain *lane*, for a bounded time, and remove it; the others continue.

        A backend that was opened here is closed; the caller may close any other now.
        """
        await lane.drain()
        lane.cancel()
        self._drop(lane)
        held = self._held.pop(lane, None)
        if held is not None:
            held.is_over.set()
            await held.is_closed.wait()

    def _drop(self, lane: RunningLane) -> None:
        if lane in self._followed:
            self._followed.pop(lane).cancel()
        if lane in self._lanes:
            self._lanes.remove(lane)
            self.served_before += lane.statistics().served
            self._reports.removed(lane)
            self._tell()

    def _tell(self) -> None:
        # A dialer that asks for any model, and chooses no offer, takes the first.
        self._adverts.lanes = sorted(self._lanes, key=lambda lane: lane.backend.simulated)
        self._look()

    def _look(self) -> None:
        self._reports.look(self._lanes)
        self._adverts.change()

    def choose(self, request: CommandRequest, caps: Caps = NO_CAPS) -> Chosen:
        """The lane that *request* goes to, and the offer it is answered with, within *caps*.

        Raises:
          OfferUnavailable: if it names an offer that is not to be had.
          PeerError: if no lane can answer it: why the first one cannot that has the model.

        """
        if request.offer is not None:
            return self._named(request, caps)
        why: PeerError | None = None
        for lane, offer in self._candidates(request, caps):
            try:
                lane.check(request, offer)
            except PeerError as error:
                why = why or error
            else:
                return lane, offer
        if why is not None:
            raise why
        if request.model is not None:
            # The same words whether there is such a model here or not.
            caps.check_model(request.model)
        offers = [offer.name for lane in self._lanes for offer in lane.backend.offers]
        names = ", ".join(filter(caps.allows, offers))
        raise PeerRefused(f"no model {request.model!r} here; on offer: {names or 'none'}")

    def _named(self, request: CommandRequest, caps: Caps) -> Chosen:
        """The very offer that *request* names, of its lane."""
        for lane in self._lanes:
            for name, offer in lane.offered.named:
                if (
                    name == request.offer
                    and request.model in (None, offer.name)
                    and request.model_digest in (None, offer.digest)
                ):
                    caps.check_model(offer.name)
                    lane.check(request, offer)
                    return lane, offer
        raise OfferUnavailable(f"no offer {request.offer!r} here for this request")

    def _candidates(self, request: CommandRequest, caps: Caps) -> list[Chosen]:
        """The lanes that have the model, the preferred ones first."""
        lanes = self._lanes
        if len(lanes) == 1:
            offer = find_offer(lanes[0].backend, request, caps)
            return [] if offer is None else [(lanes[0], offer)]
        names_none = request.model is None and request.model_digest is None
        if names_none and any(not lane.backend.simulated for lane in lanes):
            lanes = [lane for lane in lanes if not lane.backend.simulated]
        found = [
            (lane, offer)
            for lane in lanes
            if (offer := find_offer(lane.backend, request, caps)) is not None
        ]
        if any(not lane.backend.simulated for lane, _ in found):
            found = [pair for pair in found if not pair[0].backend.simulated]
        return sorted(found, key=lambda pair: pair[0].state != "ready")


def _numbered(name: str) -> tuple[str, int]:
    """*name* without the number at its end, and that number; 1 if it has none."""
    base, _, end = name.rpartition("-")
    is_number = base and end.isdecimal() and end.isascii() and not end.startswith("0")
    return (base, int(end)) if is_number and end != "1" else (name, 1)
