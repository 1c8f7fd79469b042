"""One HTTP request that asks a model for something, and who is told what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from .._logs import get_logger
from ..capability import PeerId
from ..routing import Decision, FailedAttempt
from ..wire import Progress, Provenance, Segment, Usage

log = get_logger(__name__)

DISCONNECTED = "disconnected"
"""What an exchange ends with whose client went away."""

STOPPED = "stopped"
"""What an exchange ends with that the gateway's own end has cut off."""


@attrs.frozen(kw_only=True)
class Cost:
    """What is paid for."""

    prompt: int = 0
    """Tokens of prompts."""

    answer: int = 0
    """Tokens of answers."""

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt + self.answer

    def plus(self, other: Cost) -> Cost:
        """Both costs together."""
        return Cost(prompt=self.prompt + other.prompt, answer=self.answer + other.answer)


@attrs.define(kw_only=True, eq=False)
class Exchange:
    """One HTTP request that asks a model for something, from arrival to its last byte.

    Written by whoever answers it, and read by observers: they keep no copy that is older.
    """

    request_id: str
    """The caller's ``X-Request-ID`` or a fresh UUIDv7."""

    chosen_id: bool = False
    """The caller has chosen it."""

    endpoint: str
    """Template of the route: ``/v1/chat/completions``."""

    key_id: str | None = None
    """Public id of the API key; `None` if keys are off or it was not a key."""

    model: str | None = None
    """As asked for; `None` for any."""

    stream: bool = False
    """The answer is sent as it is made."""

    began_at: float = attrs.field(factory=trio.current_time)
    """When it arrived, in seconds of trio's clock."""

    first_text_at: float | None = None
    """When its first text was there."""

    ended_at: float | None = None
    """When it was over."""

    status: int | None = None
    """HTTP status that was sent; `None` if none was."""

    error_code: str | None = None
    """`PunchError.code`, `DISCONNECTED` or `STOPPED`; `None` for success."""

    peer_id: PeerId | None = None
    """Who answers now, or answered last."""

    provenance: Provenance | None = None
    """Where the answer comes from."""

    progress: Progress | None = None
    """What its peer last said it waits for."""

    decisions: tuple[Decision, ...] = ()
    """Every decision that was made for it, in order."""

    attempts: tuple[FailedAttempt, ...] = ()
    """The tries that failed."""

    segments: tuple[Segment, ...] = ()
    """Who has delivered which part, as far as that is over."""

    usage: Usage = attrs.field(factory=Usage)
    """Tokens, as they were counted; known at the end."""

    cost: Cost = attrs.field(factory=Cost)
    """What was made for it, and its key pays for; known at the end."""

    texts: int = 0
    """Parts of the text delivered so far."""

    traceparent: str | None = None
    """The caller's trace: the header of this name (W3C Trace Context)."""


class Observer(Protocol):
    """Wants to know of exchanges. Each method is quick, never raises and never awaits."""

    def began(self, exchange: Exchange) -> None:
        """It is known what is asked for, or that it cannot be."""

    def changed(self, exchange: Exchange) -> None:
        """Somebody was chosen, text began, another peer goes on, or it is known what is waited for.

        Not for every part of the text.
        """

    def ended(self, exchange: Exchange) -> None:
        """It is over. Exactly once."""


class Observers:
    """Tells all observers, and keeps the order: began once, then changes, then ended once.

    Args:
      observers: Who is told.

    """

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)
        self.under_way: set[Exchange] = set()
        """Exchanges that have begun and not ended."""

    def began(self, exchange: Exchange) -> None:
        """Say that *exchange* began, unless that was said."""
        if exchange in self.under_way or exchange.ended_at is not None:
            return
        self.under_way.add(exchange)
        self._tell("began", exchange)

    def changed(self, exchange: Exchange) -> None:
        """Say that *exchange* changed, if it has begun."""
        if exchange in self.under_way:
            self._tell("changed", exchange)

    def ended(self, exchange: Exchange) -> None:
        """Say that *exchange* is over, unless that was said."""
        if exchange.ended_at is not None:
            return
        self.began(exchange)
        self.under_way.discard(exchange)
        exchange.ended_at = trio.current_time()
        self._tell("ended", exchange)

    def refused(self, status: int) -> None:
        """Say to whoever wants to know that a request got no further than the door."""
        for observer in self._observers:
            if (told := getattr(observer, "refused", None)) is None:
                continue
            try:
                told(status)
            except Exception:
                log.exception("an observer has a bug", observer=type(observer).__name__)

    def _tell(self, what: str, exchange: Exchange) -> None:
        for observer in self._observers:
            try:
                getattr(observer, what)(exchange)
            except Exception:
                # A fault of whoever counts must not take the answer from whoever asked.
                log.exception("an observer has a bug", observer=type(observer).__name__, told=what)
