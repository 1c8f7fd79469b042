"""The event that any punch process publishes: a line of its own log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ._event import Event


@attrs.frozen(kw_only=True)
class Logged(Event):
    """A line went to the process's own log."""

    line: Mapping[str, Any]
    """Plain data, bounded, without tracebacks: ``level``, ``logger``, ``event``, ``time`` and what
    else the line has."""
