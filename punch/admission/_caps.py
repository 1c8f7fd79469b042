"""Decides what a listener does for peers that are not its owner.

What exceeds a cap is refused, so that the next peer is asked, and is never cut short. A request
that names no `max_tokens` asks for no certain length: the cap is then the longest answer there is
here, as a model's context is, and the answer says that it ended by its length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from ..capability import Capability
from ..exceptions import ConfigurationError, PeerRefused
from ..wire import LIMITS, CommandRequest

_REMEDY = "or have its owner allow more"


@attrs.frozen(kw_only=True)
class Caps:
    """What peers of other owners may ask for; `None` for no cap."""

    max_output: int | None = None
    """Tokens of one answer."""

    max_seconds: float | None = None
    """Seconds that one answer may hold its slot."""

    max_priority: int | None = None
    """Priority of a request."""

    models: frozenset[str] | None = None
    """Names of the models, as they are offered."""

    hours: tuple[int, int] | None = None
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

        if self.hours is not None and not all(0 <= hour <= 24 for hour in self.hours):
            raise ConfigurationError(
                f"the cap hours is {self.hours}: two hours of the day from 0 to 24, as (22, 7)"
            )

    def check_time(self, hour: int) -> None:
        """Return if anything is answered in this hour of the day.

        Raises:
          PeerRefused: if nothing is.

        """
        if self.hours is None:
            return
        begin, end = self.hours
        if begin <= hour < end or (begin > end and not end <= hour < begin):
            return
        raise PeerRefused(
            f"this listener answers you from {begin} to {end} o'clock by its own time, and it is "
            f"{hour} there: ask then, {_REMEDY}"
        )

    def check_model(self, name: str) -> None:
        """Return if the model of this name may be asked.

        Raises:
          PeerRefused: if it may not.

        """
        if self.models is not None and name not in self.models:
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
                f"max_tokens is {tokens}; this listener makes at most {most} for peers of other "
                f"owners: ask for less, {_REMEDY}",
                param="max_tokens",
            )
        if self.max_priority is not None and request.priority > self.max_priority:
            raise PeerRefused(
                f"priority is {request.priority}; this listener takes at most {self.max_priority} "
                f"from peers of other owners: ask with less, {_REMEDY}",
                param="priority",
            )

    def within(self, request: CommandRequest) -> CommandRequest:
        """*request*, which was checked, with the longest answer that it may have."""
        if self.max_output is None or request.sampling.max_tokens is not None:
            return request
        sampling = attrs.evolve(request.sampling, max_tokens=self.max_output)
        return attrs.evolve(request, sampling=sampling)

    @contextmanager
    def time_limit(self) -> Iterator[None]:
        """Cancel what is done in the context once it has taken as long as it may.

        Raises:
          PeerRefused: if that happened.

        """
        with trio.move_on_after(math.inf if self.max_seconds is None else self.max_seconds) as time:
            yield
        if not time.cancelled_caught:
            return
        raise PeerRefused(
            f"the answer takes longer than the {self.max_seconds:g} s that this listener gives to "
            f"peers of other owners: ask for a shorter one, {_REMEDY}",
            param="max_tokens",
        )

    def on(self, capability: Capability) -> Capability:
        """The claim as peers of other owners are told it."""
        if self == NO_CAPS:
            return capability
        return attrs.evolve(
            capability,
            lanes=tuple(
                attrs.evolve(lane, max_seconds=self.max_seconds, max_priority=self.max_priority)
                for lane in capability.lanes
            ),
            models=tuple(
                attrs.evolve(offer, max_output=self.max_output)
                for offer in capability.models
                if self.models is None or offer.name in self.models
            ),
        )


NO_CAPS = Caps()
"""What the owner of a listener may ask for: everything."""
