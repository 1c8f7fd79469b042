"""The base of all events, which has the moment of each."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened. Each subclass is one kind; any room may define kinds of its own."""

    at: float
    """When, in seconds of the publisher's monotonic clock (under trio: `trio.current_time`)."""
