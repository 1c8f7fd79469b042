"""The forms that the settings file has had, and how a file of an older one is read.

A file of form 1 says no version. Since form 2 the file says its own, so that an older punch knows
that it does not know all of it. Reading a file changes nothing; what changes it makes it one of
today's form, and keeps the old one beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path

from ...exceptions import ConfigurationError

VERSION_KEY = "version"
"""The key, outside of all sections, that says the form."""

FORM = 2
"""The form that is written."""

MOVED: Mapping[int, Mapping[str, str]] = {1: {}}
"""Of each older form the keys that have another name in the next one: ``{"old.key": "new.key"}``.
Form 1 had none of these; a form that renames a key says so here, and all old files are read."""


def form_of(path: Path, outside: Mapping[str, object]) -> int:
    """The form of a file, by the keys *outside* of its sections.

    Raises:
      ConfigurationError: if it is none that this punch knows.

    """
    said = outside.get(VERSION_KEY, 1)
    if isinstance(said, bool) or not isinstance(said, int) or said < 1:
        raise ConfigurationError(
            f"the settings file {path} says that its {VERSION_KEY} is {str(said)[:40]!r}: it must "
            f"be a whole number from 1 to {FORM}; mend that line"
        )
    if said > FORM:
        raise ConfigurationError(
            f"the settings file {path} is of {VERSION_KEY} {str(said)[:40]}, and this punch knows "
            f"those to {FORM}: a newer punch has written it; run that one, or name another file "
            "with PUNCH_SETTINGS"
        )
    return said


def names_since(form: int) -> dict[str, str]:
    """What the keys of a file of *form* are called today, by their old names: the moved ones."""
    found: dict[str, str] = {}
    for older in range(form, FORM):
        moved = MOVED.get(older, {})
        found = {old: moved.get(new, new) for old, new in found.items()}
        found.update({old: new for old, new in moved.items() if old not in found.values()})
    return found


def move(
    path: Path, tables: MutableMapping[str, MutableMapping[str, object]], form: int
) -> dict[str, str]:
    """Give the keys of *tables*, of a file of *form*, the names of today.

    Returns:
      The old name of each that was moved, by its new one.

    Raises:
      ConfigurationError: if a key is there under both of its names.

    """
    was: dict[str, str] = {}
    for old, new in names_since(form).items():
        (old_section, _, old_key), (section, _, key) = old.partition("."), new.partition(".")
        table = tables.get(old_section, {})
        if old_key not in table:
            continue
        if key in tables.get(section, {}):
            raise ConfigurationError(
                f"the settings file {path} has {old} and {new}, which is its name of today: take "
                f"{old} out of it"
            )
        tables.setdefault(section, {})[key] = table.pop(old_key)
        if not table:
            del tables[old_section]
        was[new] = old
    return was


def copy_of(path: Path, form: int, number: int) -> Path:
    """Where the file of the old *form* is kept; *number* counts those before of that form."""
    return path.with_name(f"{path.stem}.form-{form}{f'-{number}' if number else ''}{path.suffix}")
