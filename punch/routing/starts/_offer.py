"""What could be started, as a router is given it, and as it is at one moment."""

from __future__ import annotations

import attrs

from ...capability import ModelOffer, PeerId

# Characters of a plan's explanation that are kept: a screen.
MAX_PLAN_CHARACTERS = 2000


@attrs.frozen(kw_only=True)
class StartableOffer:
    """A model that nobody runs and that could be started, such as a split over several machines."""

    id: str
    """Names it among those of one router, 1 to 64 characters; the same for as long as it is the
    same plan. A request that names it as its `offer` has it started."""

    peer_id: PeerId
    """The peer that offers the model once it runs; for a split, the one that runs its head."""

    offer: ModelOffer
    """What it will offer, with the rates that are predicted: `None` for one that is unknown.
    `ModelOffer.split` and `ModelOffer.own_workers` say who will read what is asked."""

    seconds: float
    """Predicted seconds from the start until it can answer."""

    backend: str = "llama_cpp"
    """Name of the backend that will run it."""

    simulated: bool = False
    """True if that makes its answers up."""

    slots: int = 1
    """Requests that it will serve side by side."""

    queue_limit: int = 64
    """Requests that may wait for it beyond these, before and after it has started."""

    workers: int = 0
    """Other machines that will hold a part of it."""

    owners: tuple[str, ...] = ()
    """The owners of its machines, in the words in which they are to be shown."""

    plan: str = ""
    """Why it would run in this way, in words: the explanation of its plan, at most
    `MAX_PLAN_CHARACTERS`; the rest is cut."""

    is_forced: bool = False
    """It is started for the next request that it can serve, also where that would be answered
    earlier without it."""

    why_not: str | None = None
    """Why it cannot be started as things are, in a sentence with its numbers; `None` if it can. One
    that cannot is no model on offer: it is told so that it can be said why."""


@attrs.frozen(kw_only=True)
class Startable:
    """A startable offer at one moment, as `Starts.look` finds it."""

    offer: StartableOffer
    """What could be started."""

    seconds: float
    """Seconds from now until it can answer; of one whose start waits for another start, with
    these."""

    is_under_way: bool = False
    """Its start has begun."""

    rtt: float = 0.0
    """Round trip to its peer, in seconds."""

    waiting: int = 0
    """Requests of ours that wait for it, of those that do so already only the ones before."""

    prompt_tokens: int = 0
    """Their prompt tokens (estimated)."""

    output_tokens: int = 0
    """The tokens of their answers (expected)."""

    why_not: str | None = None
    """Why it is not started now, in a sentence; `None` if it may be."""

    retry_after: float | None = None
    """Seconds after which it may be, where it may not be now."""
