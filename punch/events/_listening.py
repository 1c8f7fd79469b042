"""The events of a listener: answers it gave, and changes of its lanes and engines."""

from __future__ import annotations

import attrs

from ..capability import PeerId
from ._event import Lifecycle


@attrs.frozen(kw_only=True)
class AttemptServed(Lifecycle):
    """A dialer's request is over here, with whatever outcome: the listener's side of an attempt."""

    request_id: str
    """The request."""

    peer_id: PeerId
    """The dialer that asked."""

    machine: PeerId | None = None
    """The key of its machine, in a closed namespace."""

    lane: str
    """Id of the lane that had it; empty if it reached none."""

    model: str | None
    """Name of the model that answered, or else was asked for."""

    outcome: str
    """``success``, ``cancelled``, or the code of the error."""

    seconds: float
    """From the request's arrival to its last word."""

    queued: float = 0.0
    """Seconds of these in the queue."""

    prompt_tokens: int | None = None
    """Tokens of the prompt, as the backend counted them."""

    tokens: int = 0
    """Tokens that were sent."""


@attrs.frozen(kw_only=True)
class Calibrated(Lifecycle):
    """A lane measured how fast a model is here."""

    lane: str
    """Id of the lane."""

    model: str
    """Name of the model."""

    prefill_rate: float | None
    """Prompt tokens per second of one request; `None` if that could not be measured."""

    decode_rate: float | None
    """Answer tokens per second of one request; `None` if that could not be measured."""


@attrs.frozen(kw_only=True)
class LoadProgress(Lifecycle):
    """An engine is loading a model."""

    lane: str
    """Id of the lane."""

    model: str
    """Name of the model."""

    share: float | None
    """How much is loaded, 0 to 1; `None` if the engine does not say."""

    seconds: float | None = None
    """Expected seconds until it is loaded; `None` if not known."""


@attrs.frozen(kw_only=True)
class LaneChanged(Lifecycle):
    """A lane came, went, or has another state."""

    lane: str
    """Id of the lane."""

    backend: str
    """Name of its backend."""

    state: str
    """See `Lane.state`; ``removed`` once it is gone."""

    before: str | None = None
    """The state it had; `None` for one that is new."""

    reason: str | None = None
    """Why, in a sentence, if there is more to say than the state."""


@attrs.frozen(kw_only=True)
class BackendRestarted(Lifecycle):
    """The engine of a lane was started again after it had ended or hung."""

    lane: str
    """Id of the lane."""

    backend: str
    """Name of the backend."""

    reason: str
    """Why, in a sentence."""

    restarts: int
    """How often that has happened to this lane, this time included."""
