"""The events of a dialer: its decisions, the end of each attempt, peers that join and leave."""

from __future__ import annotations

import attrs

from ..capability import PeerId
from ..routing import Decision
from ..wire import Provenance, Segment, Timings, Usage
from ._event import Event


@attrs.frozen(kw_only=True)
class Decided(Event):
    """A peer was chosen for a request, or none could be."""

    request_id: str
    """The request."""

    reason: str
    """Why a decision was needed: ``first``, ``failover``, ``continuation``, ``hedge``, ``move``."""

    decision: Decision
    """All of it, with the snapshot of the peers."""


@attrs.frozen(kw_only=True)
class Attempted(Event):
    """An attempt at one peer is over."""

    request_id: str
    """The request."""

    peer_id: PeerId
    """The peer."""

    lane: str | None = None
    """The id of its lane, where it has several."""

    reason: str
    """Why it was asked: see `Decided.reason`."""

    outcome: str
    """``success``, ``cancelled``, or the code of the error."""

    error: str | None = None
    """What went wrong, without the caller's text."""

    quotes: bool = False
    """True if `error` may have a peer's own words in it, which may repeat what it was asked in
    any spelling. They are for whoever looks now, and are kept nowhere."""

    seconds: float = 0.0
    """From asking it to its last word."""

    first_text: float | None = None
    """From asking it to its first text, in seconds; `None` if there was none."""

    tokens: int = 0
    """Tokens that it delivered."""

    characters: int = 0
    """Characters that it delivered."""


@attrs.frozen(kw_only=True)
class Answered(Event):
    """A request to a router is over, with an answer or without. Holds none of the text."""

    request_id: str
    """The request."""

    status: str
    """See `CommandResponse.status`; ``error`` if there was no response."""

    error: str | None = None
    """What went wrong, without the caller's text."""

    quotes: bool = False
    """True if `error` may have a peer's own words in it, which may repeat what it was asked in
    any spelling. They are for whoever looks now, and are kept nowhere."""

    seconds: float = 0.0
    """From the question to the end."""

    first_text: float | None = None
    """From the question to the first text, in seconds; `None` if there was none."""

    executor: PeerId | None = None
    """The peer that ended the answer."""

    provenance: Provenance | None = None
    """Where the answer comes from."""

    finish_reason: str | None = None
    """See `Completion.finish_reason`."""

    usage: Usage = attrs.field(factory=Usage)
    """Tokens counted by the backend that ended it."""

    timings: Timings = attrs.field(factory=Timings)
    """Seconds taken there."""

    segments: tuple[Segment, ...] = ()
    """Which peer delivered which part."""


@attrs.frozen(kw_only=True)
class PeerJoined(Event):
    """A listener can be asked from now on."""

    peer_id: PeerId
    """The peer."""


@attrs.frozen(kw_only=True)
class PeerLeft(Event):
    """A listener can no longer be asked."""

    peer_id: PeerId
    """The peer."""
