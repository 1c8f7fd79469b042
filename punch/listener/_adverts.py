"""Decides when dialers are told of a listener, and makes its capability vector.

Which of vector and load is sent to which dialer is left to `_news`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import trio

from ..admission import CapsByPeer
from ..capability import Capability, Gpu, Load
from ..machine import Machine, MachineSample
from ..session import PeerSession
from ..wire import MAX_OFFERS
from ._lane import RunningLane
from ._news import News
from ._reports import Reports

# A change is pushed this much later, together with what else changed by then: with a busy lane
# everything changes many times a second, and a dialer decides no better for each.
DEFAULT_REPORT_DELAY_SECONDS = 0.05

# Something is pushed at least this often: a dialer asks no peer that was silent lately.
ADVERT_SECONDS = 1.0

# The machine itself is measured no more often: each of its GPUs takes a millisecond.
SAMPLE_SECONDS = 1.0


class Adverts:
    """Tells the dialers of one listener what it can do.

    Args:
      incarnation: Grows each time the listener starts.
      machine: Measures the machine, if it should be.
      reports: Publishes how the lanes are, which is looked at here.
      delay: Seconds between a change and its report.
      caps: What each dialer is told that it may ask for.
      name: The machine's name for people.

    """

    def __init__(
        self,
        *,
        incarnation: int,
        machine: Machine | None,
        reports: Reports,
        delay: float,
        caps: CapsByPeer,
        name: str | None = None,
    ) -> None:
        self.lanes: Sequence[RunningLane] = ()
        """The lanes in the vector, real before simulated."""
        self.sessions: set[PeerSession] = set()
        """The sessions with all dialers."""
        self._news = News(incarnation, caps)
        self._machine = machine
        self._name = name
        self._reports = reports
        self._delay = delay
        self._sample: MachineSample | None = None
        self._sampled_at = -math.inf
        self._changed = trio.Event()

    def change(self) -> None:
        """Have the dialers told soon, because something in the vector has changed."""
        self._changed.set()

    def load(self) -> Load:
        """How busy all lanes are together."""
        if len(self.lanes) == 1:
            return self.lanes[0].load()
        return Capability(lanes=tuple(lane.claim() for lane in self.lanes)).load

    def capability(self) -> Capability:
        """The vector of this instant."""
        capability = Capability(
            lanes=tuple(lane.claim() for lane in self.lanes),
            # What peers accept of all lanes together: the rest can be asked for by its name.
            models=tuple(offer for lane in self.lanes for offer in lane.offers())[:MAX_OFFERS],
            gpus=self._listed_gpus(),
            machine_name=self._name,
        )
        sample = self._measured()
        if sample is None:
            return capability
        return attrs.evolve(
            capability,
            cpu_count=sample.cpu_count,
            cpu_usage=sample.cpu_usage,
            memory_total_bytes=sample.memory_total_bytes,
            memory_available_bytes=sample.memory_available_bytes,
            disk_total_bytes=sample.disk_total_bytes,
            disk_available_bytes=sample.disk_available_bytes,
            # The driver knows more of its own GPUs than a backend does.
            gpus=sample.gpus or capability.gpus,
        )

    def _listed_gpus(self) -> tuple[Gpu, ...]:
        """The longest list that a backend has: two lanes on one machine list the same GPUs."""
        return max((lane.backend.gpus for lane in self.lanes), key=len, default=())

    def _measured(self) -> MachineSample | None:
        if self._machine is None:
            return None
        now = trio.current_time()
        if self._sample is None or now - self._sampled_at >= SAMPLE_SECONDS:
            self._sample = self._machine.sample()
            self._sampled_at = now
        return self._sample

    def greet(self, session: PeerSession) -> None:
        """Tell a new dialer now, and from now on with all others."""
        self.sessions.add(session)
        self._news.greet(session, self.capability())

    def forget(self, session: PeerSession) -> None:
        """Forget a dialer that has left."""
        self.sessions.discard(session)
        self._news.forget(session)

    async def run(self) -> None:
        """Tell all dialers of every change, until cancelled."""
        while True:
            with trio.move_on_after(max(ADVERT_SECONDS, self._delay)):
                await self._changed.wait()
                await trio.sleep(self._delay)
            self._changed = trio.Event()
            self._reports.look(self.lanes)
            if self.sessions:
                self._news.push(self.sessions, self.capability(), now=trio.current_time())
