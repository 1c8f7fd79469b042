"""Decides what a setting is: the flag counts, else the variable, else the file, else the default.

Everything is an argument: what was typed, the environment, the file. The text of any layer becomes
a value by the one rule of its setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import attrs

from ..exceptions import ConfigurationError
from ._rules import expanded
from ._setting import Origin, Setting, Settings, Within, group_fields, setting_fields
from ._table import SECTIONS, SETTINGS
from .file._file import SettingsFile

S = TypeVar("S", bound=Settings)
T = TypeVar("T")

Flags = Mapping[str, tuple[str, ...]]
"""What was typed: the texts of each flag, or of each argument by its key."""

_DEFAULT = Origin(layer="default")

# What to do about a wrong value, by the layer that has it.
_REMEDIES = {
    "variable": "; unset the variable for the default",
    "file": "; `punch settings unset {name}` takes it out of the file",
}


@attrs.frozen(kw_only=True)
class Explained:
    """A setting with its value and where that came from."""

    setting: Setting[object]
    """The setting."""

    value: object = attrs.field(repr=False)
    """The value, which may be a secret."""

    origin: Origin
    """The layer and the place that the value came from."""

    text: str
    """The value as it was written, or the default as people read it; a secret is not shown."""


def load(
    kind: type[S],
    flags: Flags,
    environment: Mapping[str, str],
    file: SettingsFile | None = None,
) -> S:
    """The settings of a program.

    Args:
      kind: The class of the settings, whose fields are made by `of` and `group`.
      flags: The texts that were typed; see `parse_flags`.
      environment: The variables.
      file: The settings file, if there is one.

    Raises:
      ConfigurationError: for the first wrong value, with its place, the rule and what to do; or
        for a key of the file that is no setting, with the nearest one that is.

    """
    if file is not None:
        refuse_unknown(file)
    return _load(kind, flags, environment, file)


def _load(
    kind: type[S],
    flags: Flags,
    environment: Mapping[str, str],
    file: SettingsFile | None,
    within: Within | None = None,
) -> S:
    values: dict[str, object] = {}
    origins: dict[str, Origin] = {}
    for field, setting in setting_fields(kind, within):
        values[field], origins[field] = resolve(setting, flags, environment, file)
    for field, inner, inside in group_fields(kind):
        values[field] = _load(inner, flags, environment, file, inside)
    make = cast("Callable[..., S]", kind)
    return make(origins=origins, **values)


def explain(
    setting: Setting[object],
    flags: Flags,
    environment: Mapping[str, str],
    file: SettingsFile | None = None,
) -> Explained:
    """The value of *setting*, with its text and its origin.

    Raises:
      ConfigurationError: as `load` does, for this setting alone.

    """
    value, origin = resolve(setting, flags, environment, file)
    texts, _ = _said(setting, flags, environment, file)
    if texts is None:
        text = setting.default_text
    elif setting.is_switch:
        text = "on" if value else "off"
    else:
        text = "(secret)" if setting.secret else ", ".join(map(setting.shown, texts))
    return Explained(setting=setting, value=value, origin=origin, text=text)


def resolve(
    setting: Setting[T],
    flags: Flags,
    environment: Mapping[str, str],
    file: SettingsFile | None,
) -> tuple[T, Origin]:
    """The value of *setting*, and its origin.

    Raises:
      ConfigurationError: naming the value, who said it, the rule and what to do.

    """
    texts, origin = _said(setting, flags, environment, file)
    if texts is None:
        return cast("T", setting.default), origin
    values = tuple(_convert(setting, text, origin) for text in texts)
    return cast("T", values if setting.many else values[0]), origin


def _said(
    setting: Setting[object],
    flags: Flags,
    environment: Mapping[str, str],
    file: SettingsFile | None,
) -> tuple[Sequence[str] | None, Origin]:
    """The texts of the strongest layer that has any, or `None`; and that layer."""
    # One layer wins as a whole: the items of two layers are never joined.
    typed = flags.get(setting.flag or setting.key)
    if typed is not None:
        return typed, Origin(layer="flag", name=setting.flag or setting.metavar or setting.key)
    if setting.variable is not None:
        texts = _of_variable(setting, environment.get(setting.variable))
        if texts is not None:
            return texts, Origin(layer="variable", name=setting.variable)
    if file is not None and setting.section is not None:
        value = file.get(setting.section, setting.key)
        if value is not None:
            origin = file.origin(setting.section, setting.key)
            return _of_file(setting, value, origin, file.path), origin
    return None, _DEFAULT


def _of_variable(setting: Setting[object], text: str | None) -> Sequence[str] | None:
    """The texts in a variable. An empty one sets nothing, but turns a switch off."""
    if text is None:
        return None
    if not text.strip():
        return (text,) if setting.is_switch and setting.empty_is_no else None
    if not setting.many:
        return (text,)
    for separator in setting.separators:
        text = text.replace(separator, "\n")
    return [item for item in text.split("\n") if item.strip()] or None


def _of_file(setting: Setting[object], value: object, origin: Origin, path: Path) -> Sequence[str]:
    """The texts of a value of the file, which must be of the right sort."""
    items = value if setting.many and isinstance(value, list) else [value]
    return [_of_item(setting, item, origin, path) for item in items]


def _of_item(setting: Setting[object], item: object, origin: Origin, path: Path) -> str:
    match setting.rule.kind, item:
        case "switch", bool():
            return "1" if item else "0"
        # To Python a bool is an int; to TOML, and to people, `true` is no number.
        case "number", int() | float() if not isinstance(item, bool):
            try:
                return str(item)
            except ValueError:
                # Thousands of digits: Python does not write them.
                raise refusal(setting, "a very long number", "it must be shorter", origin) from None
        case "text" | "path" | "path or name", str():
            # Relative to the file, which then means the same wherever a program is started.
            is_path = setting.rule.is_path(item)
            return _beside(setting, item, path, origin) if is_path else item
    rule = {
        "switch": "write true or false, without quotes",
        "number": "write a number, without quotes",
    }.get(setting.rule.kind, "write a text, in quotes")
    if setting.many:
        rule = 'write a list of texts: ["...", "..."]'
    # A list, a table or a number may hold what the right kind of value would.
    shown = _short(item if setting.hides is None else setting.hides(str(item)))
    raise refusal(setting, shown, rule, origin)


def _beside(setting: Setting[object], item: str, path: Path, origin: Origin) -> str:
    try:
        return str(path.parent / expanded(item))
    except ValueError as error:
        raise refusal(setting, _short(setting.shown(item)), str(error), origin) from None


def _convert(setting: Setting[object], text: str, origin: Origin) -> object:
    try:
        return setting.rule.value(text)
    except ValueError as error:
        raise refusal(setting, _short(setting.shown(text)), str(error), origin) from None


def _short(value: object) -> str:
    """A value for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "a value that cannot be written"
    return text if len(text) <= 100 else f"{text[:100]}..."


def refusal(setting: Setting[object], shown: str, rule: str, origin: Origin) -> ConfigurationError:
    """The error about a wrong value of *setting*."""
    if setting.secret:
        shown = "a secret that cannot be right"
    where = f"{origin}: {setting.name}" if origin.layer == "file" else f"{origin}"
    remedy = _REMEDIES.get(origin.layer, "").format(name=setting.name)
    return ConfigurationError(f"{where} is {shown}: {rule}{remedy}")


# ---- names ----


def find_setting(name: str) -> Setting[object]:
    """The setting called *name*: ``listener.slots``, or ``slots`` if no other section has one.

    Raises:
      ConfigurationError: if there is none, or more than one, naming the nearest.

    """
    spelled = name.strip().removeprefix("--").replace("-", "_")
    found = [each for each in SETTINGS if spelled == each.name]
    found = found or [each for each in SETTINGS if spelled == each.key]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(each.name for each in found)
        raise ConfigurationError(f"there are several settings {name!r}: say {names}")
    raise ConfigurationError(f"there is no setting {name!r}{_nearest(spelled)}")


def refuse_unknown(file: SettingsFile) -> None:
    """Raise for a key of *file* that is no setting.

    Raises:
      ConfigurationError: naming the key, its place and the nearest setting.

    """
    known = {each.name for each in SETTINGS}
    for section, keys in file.tables.items():
        if section not in SECTIONS and section:
            raise _unknown(
                file, section, "", f"{section} is no section: there are " + ", ".join(SECTIONS)
            )
        for key in keys:
            name = f"{section}.{key}" if section else key
            if name not in known:
                raise _unknown(file, section, key, f"there is no setting {name!r}{_nearest(name)}")


def _unknown(file: SettingsFile, section: str, key: str, problem: str) -> ConfigurationError:
    name = ".".join(filter(None, (section, key)))
    return ConfigurationError(
        f"{file.origin(section, key)}: {problem}; "
        f"`punch settings unset {name}` takes it out of the file"
    )


def _nearest(name: str) -> str:
    """The nearest name of a setting, as the end of a sentence."""
    # Imported here, since only a slip needs it.
    import difflib

    section, _, key = name[:100].rpartition(".")
    names = {each.name for each in SETTINGS}
    by_key = {each.key: each.name for each in reversed(SETTINGS)}
    # A key in the wrong section is a usual slip, so the keys alone are compared first.
    close = [
        f"{section}.{found}" if f"{section}.{found}" in names else by_key[found]
        for found in difflib.get_close_matches(key, by_key, n=1, cutoff=0.75)
    ]
    close = close or difflib.get_close_matches(name[:100], sorted(names), n=1)
    return f"; the nearest is {close[0]}" if close else "; `punch settings list` has all"
