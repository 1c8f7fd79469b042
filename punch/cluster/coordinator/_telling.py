"""Says what becomes of a split: as events for whoever subscribes, and in the log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import trio

from ..._logs import get_logger
from ...events import (
    Bus,
    CoordinatorStarted,
    HeldLayers,
    LeaseEnded,
    LeaseTaken,
    Lifecycle,
    PlanChanged,
    SplitFailed,
    SplitReady,
    WorkerConnected,
    WorkerLost,
)
from ...placement import Plan
from ...processes import Supervised
from ._held import Held

log = get_logger(__name__)

# As a share: predictions that are so near are the same to people.
SAME_SPEED = 0.05


class Telling:
    """Tells of one split.

    Args:
      split: Names it in this process.
      model: Name of its model.
      events: Where it is published; `None` for nowhere.
      told: Called with each plan that is another one than before.

    """

    def __init__(
        self,
        *,
        split: str,
        model: str,
        events: Bus | None,
        told: Callable[[Plan], None] = lambda plan: None,
    ) -> None:
        self._told = told
        self.split = split
        self.model = model
        self._events = events or Bus()
        self._is_failed = False

    def publish(self, make: Callable[..., Lifecycle]) -> None:
        """Publish an event that names the split and its model."""
        self._events.publish(make(at=trio.current_time(), split=self.split, model=self.model))

    def started(self, workers: tuple[str, ...]) -> None:
        """A coordinator begins."""
        log.info("a split is begun", model=self.model, workers=list(workers))
        self._events.publish(
            CoordinatorStarted(
                at=trio.current_time(), split=self.split, model=self.model, workers=workers
            )
        )

    def planned(self, plan: Plan, *, before: Plan | None, left_out: Mapping[str, str]) -> None:
        """There is a plan; nothing is said of one that is as the one before, and as fast."""
        if before is not None and before.shares == plan.shares and _is_as_fast(plan, before):
            return
        self._told(plan)
        layers = held_layers(plan)
        log.info(
            "a split is planned", model=self.model,
            layers={one.device or "head": one.layers for one in layers},
            output_on_head=plan.output_on_head, left_out=dict(left_out),
            predicted_rate=round(plan.prediction.decode_rate, 1),
        )  # fmt: skip
        self._events.publish(
            PlanChanged(
                at=trio.current_time(),
                split=self.split,
                model=self.model,
                layers=layers,
                output_on_head=plan.output_on_head,
                decode_rate=plan.prediction.decode_rate,
                first_token=plan.prediction.first_token,
                left_out=tuple(f"{name}: {why}" for name, why in left_out.items()),
            )
        )

    def ready(self, plan: Plan, sent: Mapping[str, int], *, seconds: float, starts: int) -> None:
        """A token was made with all workers; *sent* has the bytes that each of them got."""
        log.info(
            "a split is ready", model=self.model, workers=list(plan.workers),
            seconds=round(seconds, 1), starts=starts,
        )  # fmt: skip
        now = trio.current_time()
        for worker, count in sent.items():
            self._events.publish(
                WorkerConnected(at=now, split=self.split, worker=worker, bytes=count)
            )
        self._events.publish(
            SplitReady(at=now, split=self.split, model=self.model, seconds=seconds, starts=starts)
        )

    def look(self, supervised: Supervised | None) -> None:
        """Tell if the head is down for good or for long; not again before it was well."""
        if supervised is None:
            return
        was_failed, self._is_failed = self._is_failed, supervised.state == "failed"
        if was_failed or not self._is_failed:
            return
        why, starts = supervised.trouble or "nobody says why", supervised.statistics().starts
        log.error("a split has failed", model=self.model, why=why, starts=starts)
        self._events.publish(
            SplitFailed(
                at=trio.current_time(), split=self.split, model=self.model, why=why, starts=starts
            )
        )

    def lost(self, worker: str, why: str) -> None:
        """A worker is gone."""
        log.warning("a worker is lost", model=self.model, worker=worker, why=why)
        self._events.publish(
            WorkerLost(at=trio.current_time(), split=self.split, worker=worker, why=why)
        )

    def taken(self, held: Held) -> None:
        """A worker lends."""
        memory = sum(device.memory for device in held.lendable.devices)
        self._events.publish(
            LeaseTaken(
                at=trio.current_time(),
                split=self.split,
                worker=held.lender.name,
                devices=tuple(device.id for device in held.devices),
                bytes=memory,
            )
        )

    def ended(self, worker: str, why: str) -> None:
        """A worker lends no more."""
        self._events.publish(
            LeaseEnded(at=trio.current_time(), split=self.split, worker=worker, why=why)
        )


def _is_as_fast(plan: Plan, before: Plan) -> bool:
    """Whether nothing was learned since that would change what people were told."""
    now, then = plan.prediction, before.prediction
    return math.isclose(now.token, then.token, rel_tol=SAME_SPEED) and math.isclose(
        now.first_token, then.first_token, rel_tol=SAME_SPEED
    )


def held_layers(plan: Plan) -> tuple[HeldLayers, ...]:
    """Who holds what, as an event has it."""
    traffic = {one.device: one.up_bytes + one.down_bytes for one in plan.prediction.devices}
    return tuple(
        HeldLayers(
            worker=share.holder,
            device=share.device,
            first=share.layers.start,
            layers=len(share.layers),
            bytes=share.weights + share.kv,
            token_bytes=traffic.get(share.device, 0) if share.is_remote else 0,
        )
        for share in plan.shares
    )
