"""What the gateway's own process and its fronts say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ...events import Event, RequestRecord
from ..keys import Left


@attrs.frozen(kw_only=True)
class Hello:
    """A front is there; its first word."""

    number: int
    """Its number, from 0."""


@attrs.frozen(kw_only=True)
class Start:
    """The answer to `Hello`: what a front needs. Its descriptors are the sockets to accept at."""

    settings: Any
    """The settings of the gateway, of a class of the command line's."""

    count: int
    """How many fronts there are."""

    peers: int
    """How many listeners the gateway knows: a front that knows fewer is not ready."""


@attrs.frozen(kw_only=True)
class Ready:
    """A front accepts connections, or does so no longer."""

    accepts: bool = True
    """Whether it does."""


@attrs.frozen(kw_only=True)
class Connection:
    """A connection for another process, which is its descriptor."""

    home: int
    """The number of the process that is to answer."""

    ahead: bytes
    """What was read of it: the head of a request, and whatever came with it."""


@attrs.frozen(kw_only=True)
class Told:
    """Events of a front, in their order; each that is about a request has its state of now."""

    events: tuple[Event, ...]
    """The events."""

    keys: tuple[int | None, ...]
    """Of each event, which record of the front it is about; `None` if about none."""

    lost: int = 0
    """Events that the front had and could not send."""


@attrs.frozen(kw_only=True)
class Line:
    """A line of the front's own log."""

    logger: str
    """Name of the logger."""

    level: int
    """As `logging` has them."""

    created: float
    """When, in seconds since 1970."""

    fields: Mapping[str, Any]
    """What it says: its ``event`` and what else it has, by name, as plain values."""

    kind: str | None = None
    """The class of the fault that it is about."""

    trace: str | None = None
    """Where that came from."""


@attrs.frozen(kw_only=True)
class Lines:
    """The front's own log."""

    lines: tuple[Line, ...]
    """Its next lines."""


@attrs.frozen(kw_only=True)
class Report:
    """How busy a front is, said every second."""

    connections: int = 0
    """Clients that are connected."""

    running: int = 0
    """Requests that have a place."""

    waiting: int = 0
    """Requests that wait for one."""

    limit: int = 0
    """Places that it has."""

    queue_limit: int = 0
    """Requests that may wait."""

    left: Mapping[str, Left] = attrs.field(factory=dict)
    """What the keys have left whose quotas are counted there, by their ids."""


def slim(record: RequestRecord) -> RequestRecord:
    """A copy of *record* as it is now, whose decisions hold the chosen peer and no others.

    Its failed attempts are without the session in which they failed, which lives in a front alone.

    A decision holds all that was known of a thousand peers; what is shown of it at the gateway is
    counted, and the rest is in the decision log, which a front writes itself.
    """
    decisions = tuple(
        attrs.evolve(each, order=each.order[:1], terms=each.terms[:1], removed=(), starts={})
        for each in record.decisions
    )
    attempts = tuple(attrs.evolve(each, presence=None) for each in record.attempts)
    return attrs.evolve(record, decisions=decisions, attempts=attempts)
