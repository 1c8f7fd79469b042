"""Reads the settings of a running program again, and says what has become different.

What was typed and what stands in a variable of the program cannot change while it runs; the
settings file can. A file with a fault changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

import attrs

from ...settings import (
    Setting,
    Settings,
    Within,
    group_fields,
    load,
    open_settings,
    setting_fields,
)

S = TypeVar("S", bound=Settings)

# Of a value, in the line that says what has changed.
MAX_SHOWN_CHARACTERS = 80


@attrs.frozen(kw_only=True)
class Change:
    """A setting that has another value in the file than in the running program."""

    name: str
    """Of the setting: ``general.log_level``."""

    before: str
    """As people read it."""

    after: str
    """As people read it."""


def read_again(settings: S, environment: Mapping[str, str]) -> S:
    """*settings* as the file has them now, but for what flags have said.

    Raises:
      ConfigurationError: if the file or a value in it is wrong, with its line and what to do.

    """
    return _with_typed(settings, load(type(settings), {}, environment, open_settings(environment)))


def changes(before: Settings, after: Settings) -> tuple[Change, ...]:
    """What is different between two values of the settings of one program; each setting once."""
    found: dict[str, Change] = {}
    for change in _changes(before, after, None):
        found.setdefault(change.name, change)
    return tuple(found.values())


def with_changed(before: S, after: S, names: Collection[str], within: Within | None = None) -> S:
    """*before*, with the values of *after* for the settings that are called one of *names*."""
    kind = type(before)
    values: dict[str, object] = {}
    origins = dict(before.origins)
    for name, setting in setting_fields(kind, within):
        if setting.name in names:
            values[name], origins[name] = getattr(after, name), after.origin(name)
    for name, _, inside in group_fields(kind):
        values[name] = with_changed(getattr(before, name), getattr(after, name), names, inside)
    return attrs.evolve(before, **values, origins=origins)


def _with_typed(before: S, after: S) -> S:
    """*after*, with the values of *before* where a flag set them."""
    kind = type(before)
    kept = [name for name, _ in setting_fields(kind) if before.origin(name).layer == "flag"]
    inner = {
        name: _with_typed(getattr(before, name), getattr(after, name))
        for name, _, _ in group_fields(kind)
    }
    origins = {**after.origins, **{name: before.origin(name) for name in kept}}
    values = {name: getattr(before, name) for name in kept}
    return attrs.evolve(after, **values, **inner, origins=origins)


def _changes(before: Settings, after: Settings, within: Within | None) -> Iterator[Change]:
    kind = type(before)
    for name, setting in setting_fields(kind, within):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield Change(name=setting.name, before=_shown(setting, old), after=_shown(setting, new))
    for name, _, inside in group_fields(kind):
        yield from _changes(getattr(before, name), getattr(after, name), inside)


def _shown(setting: Setting[object], value: object) -> str:
    if value is None or value == ():
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    items = value if isinstance(value, tuple) else (value,)
    text = ", ".join(setting.shown(str(item)) for item in items)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 3]}..."
