"""Publishes a listener's events: answers it gave, and changes of its lanes and engines."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import trio

from ..backends import Supervisable
from ..capability import PeerId
from ..events import (
    AttemptServed,
    BackendRestarted,
    Bus,
    Calibrated,
    LaneChanged,
    LoadProgress,
)
from ..peers import Rates
from ..session import ServerCall
from ..wire import CommandResponse
from ._lane import RunningLane, reason_of
from .members import UsageByMember

REMOVED = "removed"
"""`LaneChanged.state` of a lane that was removed."""


@attrs.define(eq=False)
class _Seen:
    """The state of a lane that was published last."""

    state: str
    restarts: int


class Reports:
    """Publishes the events of one listener, as far as there are subscribers.

    Args:
      events: Where it is published; `None` for nowhere.
      usage: Where it is counted who has asked.

    """

    def __init__(self, events: Bus | None, usage: UsageByMember | None = None) -> None:
        self._events = events or Bus()
        self._usage = usage or UsageByMember()
        self._seen: dict[RunningLane, _Seen] = {}

    def served(
        self,
        call: ServerCall,
        machine: PeerId | None,
        arrived_at: float,
        response: CommandResponse | None,
    ) -> None:
        """Count and publish that a request is over.

        Args:
          call: The request.
          machine: Of its dialer, in a closed namespace.
          arrived_at: When it came, in seconds of trio's clock.
          response: How it ended; `None` if it was cancelled.

        """
        if call.request.command not in ("ping", "capabilities"):
            self._usage.note(machine, response, call.tokens)
        if not self._events.wants(AttemptServed):
            return
        now, request = trio.current_time(), call.request
        outcome, lane, model, queued, prompt_tokens = "cancelled", None, request.model, 0.0, None
        if response is not None:
            outcome = response.status if response.error is None else response.error.code
            lane, queued = response.lane, response.timings.queue or 0.0
            prompt_tokens = response.usage.prompt_tokens
            if response.provenance is not None:
                model = response.provenance.model
        self._events.publish(
            AttemptServed(
                at=now,
                request_id=request.request_id,
                peer_id=call.dialer,
                machine=machine,
                lane=lane or "",
                model=model,
                outcome=outcome,
                seconds=now - arrived_at,
                queued=queued,
                prompt_tokens=prompt_tokens,
                tokens=call.tokens,
            )
        )

    def calibrated(self, lane: RunningLane, model: str, rates: Rates) -> None:
        """Publish the rates of a model's first, timed answer."""
        self._events.publish(
            Calibrated(
                at=trio.current_time(),
                lane=lane.id,
                model=model,
                prefill_rate=rates.prefill,
                decode_rate=rates.decode,
            )
        )

    def look(self, lanes: Iterable[RunningLane]) -> None:
        """Publish the changes of *lanes* since the last look, and log who has asked."""
        self._usage.say(trio.current_time())
        # Backends tell of no change by themselves, so states are compared at each advert.
        for lane in lanes:
            state, restarts = lane.state, _restarts(lane)
            seen = self._seen.get(lane)
            if seen is None:
                self._lane(lane, state, before=None)
            else:
                if seen.state != state:
                    self._lane(lane, state, before=seen.state)
                if seen.restarts < restarts:
                    self._restarted(lane, restarts)
            self._seen[lane] = _Seen(state, restarts)
            if state == "starting":
                self._loading(lane)

    def removed(self, lane: RunningLane) -> None:
        """Publish that a lane was removed."""
        seen = self._seen.pop(lane, None)
        if seen is not None:
            self._lane(lane, REMOVED, before=seen.state)

    def _lane(self, lane: RunningLane, state: str, *, before: str | None) -> None:
        self._events.publish(
            LaneChanged(
                at=trio.current_time(),
                lane=lane.id,
                backend=lane.backend.name,
                state=state,
                before=before,
                reason=(_reason(lane) if state in ("starting", "failed") and before else None)
                or reason_of(lane.backend),
            )
        )

    def _restarted(self, lane: RunningLane, restarts: int) -> None:
        self._events.publish(
            BackendRestarted(
                at=trio.current_time(),
                lane=lane.id,
                backend=lane.backend.name,
                reason=_reason(lane) or "not known",
                restarts=restarts,
            )
        )

    def _loading(self, lane: RunningLane) -> None:
        for offer in lane.backend.offers:
            self._events.publish(
                LoadProgress(
                    at=trio.current_time(),
                    lane=lane.id,
                    model=offer.name,
                    share=None,
                    seconds=offer.load_seconds,
                )
            )


def _restarts(lane: RunningLane) -> int:
    backend = lane.backend
    return backend.restarts if isinstance(backend, Supervisable) else 0


def _reason(lane: RunningLane) -> str | None:
    backend = lane.backend
    return backend.why_restarted if isinstance(backend, Supervisable) else None
