"""The events of a dialer: decisions, the end of each attempt, peers and how their lanes change."""

from __future__ import annotations

from typing import Any

import attrs

from ..capability import PeerId
from ..routing import Decision
from ..wire import Provenance, Segment, Timings, Usage
from ._event import Lifecycle


@attrs.frozen(kw_only=True)
class Decided(Lifecycle):
    """A peer was chosen for a request, or none could be."""

    request_id: str
    """The request."""

    reason: str
    """Why a decision was needed: ``first``, ``failover``, ``continuation``, ``hedge``, ``move``."""

    decision: Decision
    """All of it, with the snapshot of the peers."""

    def told(self) -> dict[str, Any]:
        """The decision in short: it holds what is known of every peer."""
        decision = self.decision
        chosen = None if decision.chosen is None else decision.chosen.peer_id
        return {
            "type": "decided",
            "request_id": self.request_id,
            "reason": self.reason,
            "policy": decision.policy,
            "peer_id": chosen,
            "of": len(decision.order) + len(decision.removed),
        }


@attrs.frozen(kw_only=True)
class Attempted(Lifecycle):
    """An attempt at one peer is over."""

    request_id: str
    """The request."""

    peer_id: PeerId
    """The peer."""

    lane: str | None = None
    """The id of its lane, where it has several."""

    reason: str
    """Why it was asked: see `Decided.reason`; or ``start``, if it was not asked and the request
    only waited for it to be started."""

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
class Answered(Lifecycle):
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

    key_id: str | None = None
    """Public id of the gateway's key that pays; `None` if there is none."""

    machine: PeerId | None = None
    """The machine whose grant was shown to the peers, in a closed namespace."""


@attrs.frozen(kw_only=True)
class PeerJoined(Lifecycle):
    """A listener can be asked from now on."""

    peer_id: PeerId
    """The peer."""


@attrs.frozen(kw_only=True)
class PeerLeft(Lifecycle):
    """A listener can no longer be asked."""

    peer_id: PeerId
    """The peer."""


@attrs.frozen(kw_only=True)
class PeerLaneChanged(Lifecycle):
    """A listener says of one of its lanes that it came, went, or has another state."""

    peer_id: PeerId
    """The peer."""

    lane: str
    """The lane's id, as the peer has it."""

    backend: str
    """Name of its backend, as the peer has it."""

    state: str
    """See `Lane.state`; ``removed`` for one that the peer names no more."""

    before: str | None = None
    """The state it had; `None` for one that is new."""

    reason: str | None = None
    """Why, in the peer's own words."""
