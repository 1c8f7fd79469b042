"""Splits that nobody runs until a request is worth their start, as a router is told of them.

A router takes `OnDemand.startable` and `OnDemand.start`, and knows nothing of workers and plans.
What it starts is a lane of this process's listener, like any other; one that nobody asks for a
while is ended, so that others have their memory back.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from ..._background import open_background
from ..._logs import get_logger
from ...backends import Backend
from ...capability import ModelOffer
from ...exceptions import PunchError
from ...listener import Listener, RunningLane
from ...placement import Plan, Refused, describe
from ...routing import StartableOffer
from ._open import Outlook

log = get_logger(__name__)

# How often it is planned anew what could be started: workers come and go, and asking them costs
# each of them a message.
PLAN_SECONDS = 30.0

# A split that nobody asked for so long gives the memory of the others back. Starting it again takes
# seconds to minutes; the owners of that memory may want it at once.
DEFAULT_IDLE_SECONDS = 900.0

# How often it is looked whether it is asked.
LOOK_SECONDS = 5.0

# A lane finishes what it has begun for ten seconds at most, and then gives back what it borrowed.
CLOSE_SECONDS = 15.0

PlanOnce = Callable[[], Awaitable[Outlook]]
"""Says what the plan would be now; borrows nothing. See `plan_once`."""


@attrs.frozen(kw_only=True)
class SplitOnDemand:
    """A model that could be run over several machines."""

    offer: ModelOffer
    """What it offers once it runs."""

    plan: PlanOnce
    """Says how it would run."""

    open: Callable[[], AbstractAsyncContextManager[Backend]]
    """Opens it: `open_split` with its arguments."""

    owner_of: Callable[[str], str] = lambda worker: worker
    """What to call the owner of a worker."""

    is_forced: bool = False
    """It is started for the next request also where that would be answered earlier without it."""


@attrs.define(kw_only=True, eq=False)
class _Model:
    """One of them, and what is known of it now."""

    split: SplitOnDemand
    offer: StartableOffer | None = None
    lane: RunningLane | None = None


class OnDemand:
    """See the module. Made by `open_on_demand`.

    Args:
      listener: Of whom a split that was started is a lane.
      splits: What could be started.
      idle_seconds: How long a split that nobody asks is kept.

    """

    def __init__(
        self, listener: Listener, splits: Sequence[SplitOnDemand], *, idle_seconds: float
    ) -> None:
        self._listener = listener
        self._idle_seconds = idle_seconds
        self._models = [_Model(split=split) for split in splits]
        self._why_not: dict[str, str] = {}

    def startable(self) -> tuple[StartableOffer, ...]:
        """What could be started, was, or cannot be now: for `open_router(startable=...)`.

        The router sees what runs, and says of what cannot be started why.
        """
        return tuple(model.offer for model in self._models if model.offer is not None)

    @property
    def why_not(self) -> Mapping[str, str]:
        """Models that cannot be run over several machines now, each with the reason."""
        return dict(self._why_not)

    async def start(self, offer: StartableOffer) -> None:
        """Start it as a lane: for `open_router(start=...)`.

        Raises:
          PunchError: if that does not work; the text says why.

        """
        model = next(
            (each for each in self._models if each.offer is not None and each.offer.id == offer.id),
            None,
        )
        if model is None:
            raise PunchError("its plan is another one by now")
        if offer.why_not is not None:
            raise PunchError(offer.why_not)
        name = f"split {offer.offer.name}"[:32]
        model.lane = await self._listener.add(model.split.open(), name=name)

    async def add(self, split: SplitOnDemand) -> None:
        """Another one that could be started, once it is planned."""
        model = _Model(split=split)
        self._models.append(model)
        await self._plan(model)

    async def close(self) -> None:
        """End all that runs, for a bounded time: what was borrowed is given back."""
        for model in self._models:
            lane, model.lane = model.lane, None
            if lane is not None and any(each is lane for each in self._listener.lanes):
                await self._listener.remove(lane)

    async def look(self) -> None:
        """Plan anew what does not run."""
        for model in tuple(self._models):
            if model.lane is None:
                await self._plan(model)

    async def _plan(self, model: _Model) -> None:
        name = model.split.offer.name
        try:
            found = await model.split.plan()
        except PunchError as error:
            self._none(model, error.message)
            return
        if isinstance(found.plan, Refused):
            self._none(model, found.plan.reason)
        elif not found.plan.is_split:
            self._none(model, "it is quickest on this machine alone")
        else:
            self._why_not.pop(name, None)
            self._put(model, found.plan, found)

    def _none(self, model: _Model, why: str) -> None:
        name = model.split.offer.name
        if self._why_not.get(name) != why:
            self._why_not[name] = why
            log.info("a model is not to be split", model=name, why=why)
        model.offer = StartableOffer(
            id=self._id_of(model, None),
            peer_id=self._listener.peer_id,
            offer=attrs.evolve(model.split.offer, split=True),
            seconds=0.0,
            why_not=why,
        )

    def _put(self, model: _Model, plan: Plan, found: Outlook) -> None:
        split, predicted = model.split, plan.prediction
        shares = [(share.device, share.holder, share.layers) for share in plan.shares]
        lines = [describe(plan, candidates=4)]
        lines += [f"not in it: {who}: {why}" for who, why in found.left_out.items()]
        model.offer = StartableOffer(
            id=self._id_of(model, shares),
            peer_id=self._listener.peer_id,
            offer=attrs.evolve(
                split.offer,
                split=True,
                own_workers=found.is_own,
                plain_rpc=found.is_plain,
                context_tokens=plan.context_tokens,
                prefill_rate=predicted.prompt_rate,
                decode_rate=predicted.decode_rate,
                slowdown=_slowdown(plan),
            ),
            seconds=predicted.load,
            slots=plan.slots,
            workers=len(plan.workers),
            owners=tuple(dict.fromkeys(map(split.owner_of, plan.workers))),
            plan="\n".join(lines),
            is_forced=split.is_forced,
        )

    def _id_of(self, model: _Model, shares: object) -> str:
        # What of two may be told apart by nothing else: their place among what could be started.
        words = (self._models.index(model), model.split.offer.name, shares)
        return f"split-{hashlib.sha256(repr(words).encode()).hexdigest()[:16]}"

    # ---- what nobody asks for ----

    async def end_idle(self) -> None:
        """End each split that nobody asks for long enough, and forget those that have ended."""
        busy: dict[str, tuple[float, float]] = {}
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = trio.current_time()
            for model in self._models:
                lane = model.lane
                if lane is None:
                    continue
                if all(each is not lane for each in self._listener.lanes):
                    model.lane = None
                    continue
                worked = lane.slots.busy_seconds(now)
                before, since = busy.get(lane.id, (worked, now))
                if worked != before or lane.slots.queued:
                    before, since = worked, now
                busy[lane.id] = (before, since)
                if now - since >= self._idle_seconds:
                    log.info("a split that nobody asks is ended", model=model.split.offer.name)
                    busy.pop(lane.id)
                    await self._listener.remove(lane)
                    model.lane = None

    async def run(self) -> None:
        """Keep the plans true, for ever."""
        while True:
            await self.look()
            await trio.sleep(PLAN_SECONDS)


@asynccontextmanager
async def open_on_demand(
    listener: Listener,
    splits: Sequence[SplitOnDemand] = (),
    *,
    idle_seconds: float = DEFAULT_IDLE_SECONDS,
) -> AsyncIterator[OnDemand]:
    """Splits that are started when a request is worth it, for as long as the context lasts.

    ::

        async with (
            open_on_demand(listener, splits) as splits,
            open_router(
                listener=listener, startable=splits.startable, start=splits.start
            ) as router,
        ):
            ...

    Args:
      listener: The listener of this process; what is started is a lane of it.
      splits: What could be started.
      idle_seconds: A split that nobody asks for so long is ended.

    """
    async with open_background() as nursery:
        on_demand = OnDemand(listener, splits, idle_seconds=idle_seconds)
        await on_demand.look()
        nursery.start_soon(on_demand.run)
        nursery.start_soon(on_demand.end_idle)
        try:
            yield on_demand
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
                await on_demand.close()


def _slowdown(plan: Plan) -> float | None:
    """How much longer a token takes for each further answer, as a share; `None` for one slot."""
    slots, predicted = plan.slots, plan.prediction
    if slots < 2 or predicted.token <= 0:
        return None
    return max(0.0, (predicted.step / predicted.token - 1.0) / (slots - 1))
