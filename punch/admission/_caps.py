"""Decides what a listener does for peers that are not its owner, and for members that it limits.

1. What exceeds a cap is refused, so that the next peer is asked, and is never cut short.
2. A request that names no `max_tokens` asks for no certain length: the cap is then the longest
   answer there is here, as a model's context is, and the answer says that it ended by its length.
3. A request of priority 0 asks for no certain priority: under a cap below 0 it waits as one of the
   cap's priority does.
4. Hours are looked at when a request arrives: what was begun, or waits, is answered to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime

import attrs
import trio

from ..capability import Capability, Lane
from ..exceptions import ConfigurationError, PeerRefused
from ..routing.names import stands_for
from ..wire import LIMITS, CommandRequest
from ._hours import Hours, fault_of_hours, is_within, seconds_until, spelled

_UNLIMITED = nullcontext()

_REMEDY = "or have its owner allow more"

OFF_HOURS = "off hours"
"""State of a lane towards a peer that it answers at other hours."""


@attrs.frozen(kw_only=True)
class Caps:
    """What certain peers may ask of a listener; `None` for no cap."""

    max_output: int | None = None
    """Tokens of one answer."""

    max_seconds: float | None = None
    """Seconds that one answer may hold its slot."""

    max_priority: int | None = None
    """Priority of a request."""

    models: frozenset[str] | None = None
    """Names of the models, as they are offered; a ``*`` in one stands for any characters."""

    hours: Hours | None = None
    """From which hour of the day until before which, by the listener's clock; ``(22, 7)`` is the
    night."""

    def __attrs_post_init__(self) -> None:
        for name, value, least, most in (
            ("max_output", self.max_output, 1, LIMITS["max_tokens"].most),
            ("max_seconds", self.max_seconds, 0.001, LIMITS["timeout"].most),
            ("max_priority", self.max_priority, LIMITS["priority"].least, LIMITS["priority"].most),
        ):
            if value is not None and not least <= value <= most:
                raise ConfigurationError(
                    f"the cap {name} is {value}: it must be from {least} to {most}, or left out"
                )

        fault = None if self.hours is None else fault_of_hours(self.hours)
        if fault is not None:
            raise ConfigurationError(f"the cap hours is {self.hours}: {fault}")

    def over(self, others: Caps) -> Caps:
        """These caps, and those of *others* for what these leave open."""
        found = {
            field.name: getattr(others, field.name)
            for field in attrs.fields(Caps)
            if getattr(self, field.name) is None
        }
        return attrs.evolve(self, **found)

    def closed_for(self, now: datetime) -> float | None:
        """Seconds until anything is answered, from the local time *now*; `None` if it is now."""
        if self.hours is None or is_within(self.hours, now):
            return None
        return seconds_until(self.hours, now)

    def check_time(self, now: datetime) -> None:
        """Return if anything is answered at the local time *now*.

        Raises:
          PeerRefused: if nothing is; `retry_after` says when it will be.

        """
        closed_for = self.closed_for(now)
        if closed_for is None or self.hours is None:
            return
        raise PeerRefused(
            f"this listener answers you {spelled(self.hours)} by its own clock, and there it is "
            f"{now:%H:%M}: ask again from {self.hours[0]} o'clock on, {_REMEDY}",
            retry_after=closed_for,
        )

    def allows(self, model: str) -> bool:
        """Whether the model that is offered by this name may be asked."""
        return self.models is None or any(stands_for(each, model) for each in self.models)

    def check_model(self, name: str) -> None:
        """Return if the model that is offered by this name may be asked.

        Raises:
          PeerRefused: if it may not.

        """
        if not self.allows(name):
            raise PeerRefused(
                f"model {name!r} is not for you on this listener: ask for another, {_REMEDY}",
                param="model",
            )

    def check(self, request: CommandRequest) -> None:
        """Return if *request* asks for no more than is allowed.

        Raises:
          PeerRefused: if it does; `param` is the field.

        """
        tokens, most = request.sampling.max_tokens, self.max_output
        if most is not None and tokens is not None and tokens > most:
            raise PeerRefused(
                f"max_tokens is {tokens}; this listener makes at most {most} for you: "
                f"ask for less, {_REMEDY}",
                param="max_tokens",
            )
        limit = self.max_priority
        if limit is not None and request.priority and request.priority > limit:
            raise PeerRefused(
                f"priority is {request.priority}; this listener takes at most {limit} from you: "
                f"ask with less, {_REMEDY}",
                param="priority",
            )

    def within(self, request: CommandRequest) -> CommandRequest:
        """*request*, which was checked, with the most that it may have of what it leaves open."""
        if self.max_priority is not None and request.priority > self.max_priority:
            request = attrs.evolve(request, priority=self.max_priority)
        if self.max_output is None or request.sampling.max_tokens is not None:
            return request
        sampling = attrs.evolve(request.sampling, max_tokens=self.max_output)
        return attrs.evolve(request, sampling=sampling)

    def time_limit(self) -> AbstractContextManager[None]:
        """A context that cancels what is done in it once that has taken as long as it may.

        It raises `PeerRefused` if that happened.
        """
        return _UNLIMITED if self.max_seconds is None else _limited(self.max_seconds)

    def on(self, capability: Capability, now: datetime) -> Capability:
        """The claim as peers with these caps are told it at the local time *now*."""
        if self == NO_CAPS:
            return capability
        closed_for = self.closed_for(now)
        return attrs.evolve(
            capability,
            lanes=tuple(self._on_lane(lane, closed_for) for lane in capability.lanes),
            models=tuple(
                attrs.evolve(offer, max_output=self.max_output)
                for offer in capability.models
                if self.allows(offer.name)
            ),
        )

    def _on_lane(self, lane: Lane, closed_for: float | None) -> Lane:
        lane = attrs.evolve(lane, max_seconds=self.max_seconds, max_priority=self.max_priority)
        if closed_for is None or self.hours is None:
            return lane
        return attrs.evolve(
            lane,
            state=OFF_HOURS,
            closed_for=closed_for,
            reason=f"answers you {spelled(self.hours)} by its own clock",
        )


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    with trio.move_on_after(seconds) as time:
        yield
    if time.cancelled_caught:
        raise PeerRefused(
            f"the answer takes longer than the {seconds:g} s that this listener gives you: ask for "
            f"a shorter one, {_REMEDY}",
            param="max_tokens",
        )


NO_CAPS = Caps()
"""What the owner of a listener may ask for: everything."""
