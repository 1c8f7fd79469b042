"""The base of all events, which has the moment of each."""

from __future__ import annotations

from typing import Any

import attrs

from ._telling import told


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened. Each subclass is one kind; any room may define kinds of its own."""

    at: float
    """When, in seconds of the publisher's monotonic clock (under trio: `trio.current_time`)."""


@attrs.frozen(kw_only=True)
class Lifecycle(Event):
    """What becomes of peers, lanes, engines and attempts: the base of what live feeds show.

    A kind that derives from it appears there with all of its fields (`told`), so it holds nothing
    that those who may look at a gateway's dashboard must not see: no text of any request.
    """

    def told(self) -> dict[str, Any]:
        """The event as plain data: its kind under ``type``, and its fields but `at`."""
        return told(self)
