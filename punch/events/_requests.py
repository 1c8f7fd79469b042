"""The events of a gateway: the life of each HTTP request that asks a model for something.

The order is one `RequestStarted`, any number of `RequestChanged`, one `RequestEnded`.
"""

from __future__ import annotations

import attrs

from ..capability import PeerId
from ..routing import Decision, FailedAttempt
from ..wire import Progress, Provenance, Segment, Usage
from ._event import Event

DISCONNECTED = "disconnected"
"""`RequestRecord.error_code` of a request whose client went away."""

STOPPED = "stopped"
"""`RequestRecord.error_code` of a request that the gateway's own end has cut off."""


@attrs.frozen(kw_only=True)
class Cost:
    """Tokens that a key pays for."""

    prompt: int = 0
    """Tokens of prompts."""

    answer: int = 0
    """Tokens of answers."""

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers together."""
        return self.prompt + self.answer

    def plus(self, other: Cost) -> Cost:
        """Both costs together."""
        return Cost(prompt=self.prompt + other.prompt, answer=self.answer + other.answer)


@attrs.define(kw_only=True, eq=False)
class RequestRecord:
    """The state of an HTTP request that asks a model, from its arrival to its last byte.

    Live until `RequestEnded`: the gateway alone writes it, and a subscriber reads the newest
    state, which may be newer than the event it came with. A copy for every event would cost more
    than all else that is done for a short request.
    """

    request_id: str
    """The caller's ``X-Request-ID`` or a fresh UUIDv7."""

    chosen_id: bool = False
    """The caller has chosen the id."""

    endpoint: str
    """Template of the route: ``/v1/chat/completions``."""

    key_id: str | None = None
    """Public id of the API key; `None` if keys are off or the key was not valid."""

    said: str | None = None
    """The model in the client's own words; `None` for any."""

    model: str | None = None
    """The model that this means, by the name it is offered under; `None` for any."""

    stream: bool = False
    """The answer is sent as it is made."""

    taken: tuple[str, ...] = ()
    """Fields of its body that were taken and change nothing, as ``messages[].name``."""

    began_at: float
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
    """The peer that answers now, or answered last."""

    provenance: Provenance | None = None
    """Where the answer comes from."""

    progress: Progress | None = None
    """The last report of what the request waits for."""

    decisions: tuple[Decision, ...] = ()
    """Every decision that was made for it, in order."""

    attempts: tuple[FailedAttempt, ...] = ()
    """The tries that failed."""

    segments: tuple[Segment, ...] = ()
    """Which peer has delivered which part, as far as that is over."""

    usage: Usage = attrs.field(factory=Usage)
    """Tokens, as they were counted; known at the end."""

    cost: Cost = attrs.field(factory=Cost)
    """What its key pays for; known at the end."""

    tokens: int = 0
    """Tokens delivered so far, as whoever makes them counts; at least one for each part."""

    traceparent: str | None = None
    """The caller's trace: the header of this name (W3C Trace Context)."""


@attrs.frozen(kw_only=True)
class RequestStarted(Event):
    """A request was understood, or refused by its endpoint."""

    request: RequestRecord
    """The request."""


@attrs.frozen(kw_only=True)
class RequestChanged(Event):
    """A peer was chosen, text began, another peer continues, or the wait has another reason.

    Not published for every part of the text: see `RequestRecord.tokens`.
    """

    request: RequestRecord
    """The request."""


@attrs.frozen(kw_only=True)
class RequestEnded(Event):
    """The request is over, and its record complete. Published exactly once for each."""

    request: RequestRecord
    """The request."""


@attrs.frozen(kw_only=True)
class RequestRefused(Event):
    """A request was refused before its endpoint: no key, no such path, an unreadable body."""

    status: int
    """HTTP status that was sent."""


@attrs.frozen(kw_only=True)
class PromptRead(Event):
    """The words of a request. Made only if a subscriber asks for this kind: they are private."""

    request: RequestRecord
    """The request."""

    text: str
    """Its last message, its prompt or its first text."""
