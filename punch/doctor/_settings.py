"""Judges what is set. Reading it is left to the command."""

from __future__ import annotations

import attrs

from ._finding import Finding, well, wrong
from ._text import Private, text


@attrs.frozen(kw_only=True)
class SettingFault:
    """A setting with a wrong value, or a settings file that cannot be read."""

    name: str | None
    """The setting, such as ``listener.slots``; `None` for the whole file."""

    words: str
    """What is wrong, with its place; it may have the value."""

    variable: str | None = None
    """The variable that has the value; `None` if the settings file has it."""


def judge_settings(faults: tuple[SettingFault, ...]) -> list[Finding]:
    """Whether every value is one."""
    found = []
    for each in faults:
        words = Private("words", each.words)
        if each.name is None:
            remedy = text("mend it at the place that is named; `punch settings path` has the file")
            found.append(wrong("settings", text("{}", words), remedy))
        else:
            remedy = text(f"`punch settings set {each.name} VALUE`, or unset it there")
            if each.variable is not None:
                remedy = text(f"give the variable {each.variable} another value, or unset it")
            found.append(wrong("settings", text(f"{each.name}: {{}}", words), remedy))
    return found or [well("settings", text("every value is one"))]
