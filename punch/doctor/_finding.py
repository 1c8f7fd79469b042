"""What a check has found: well, worth a note, wrong with its remedy, or not known."""

from __future__ import annotations

from typing import Literal

import attrs

from ._text import NOTHING, Text

State = Literal["wrong", "note", "unknown", "well"]
"""``wrong`` needs somebody; ``note`` works, and might be better; ``unknown`` could not be told."""

CHECKS = (
    *("settings", "name", "clock", "interfaces", "ports", "disk", "GPU", "engines"),
    *("grant", "meeting points", "firewall", "hello", "minors", "models"),
    *("NAT kind", "relay", "direct upgrade"),
)
"""Every check, in the order in which their findings are shown."""


@attrs.frozen(kw_only=True)
class Finding:
    """What one check says of one thing."""

    check: str
    """Which check: one of `CHECKS`."""

    state: State
    """How bad it is."""

    said: Text
    """What was found."""

    remedy: Text = NOTHING
    """What to do about it; everything that is wrong has one."""


def well(check: str, said: Text) -> Finding:
    """There is nothing to do."""
    return Finding(check=check, state="well", said=said)


def unknown(check: str, said: Text, remedy: Text = NOTHING) -> Finding:
    """It could not be told."""
    return Finding(check=check, state="unknown", said=said, remedy=remedy)


def note(check: str, said: Text, remedy: Text = NOTHING) -> Finding:
    """It works, and a person may want to know."""
    return Finding(check=check, state="note", said=said, remedy=remedy)


def wrong(check: str, said: Text, remedy: Text) -> Finding:
    """It does not work."""
    return Finding(check=check, state="wrong", said=said, remedy=remedy)
