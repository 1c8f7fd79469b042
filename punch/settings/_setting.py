"""Describes what a setting is, and how a program's settings are made of several.

A program's settings are a frozen class whose fields say which setting they hold::

    @attrs.frozen(kw_only=True)
    class EchoSettings(Settings):
        slots: int = of(SLOTS)
        log_level: str = of(LOG_LEVEL, default="warning")

The order of the fields is the order of the options in ``--help``. Where a value comes from is
decided by `_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, cast

import attrs

from ._rules import Rule

Layer = Literal["flag", "variable", "file", "default"]
"""The layers that may set a value, the strongest first."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S", bound="Settings")

# Between the items of a variable. No address, origin or name has these in it.
SEPARATORS = ", \t\n"

_SETTING = "punch.settings: setting"
_GROUP = "punch.settings: group"
_WITHIN = "punch.settings: within"


@attrs.frozen(kw_only=True)
class Origin:
    """The layer, and the place in it, that a value came from."""

    layer: Layer
    """The layer that sets it."""

    name: str = ""
    """The flag, the variable, or the file with the line (else the key); empty for a default."""

    def __str__(self) -> str:
        return self.name or self.layer


@attrs.frozen(kw_only=True)
class Setting(Generic[T_co]):
    """A thing that can be set. Made by `setting`, `optional`, `several` and `argument`."""

    key: str
    """Name of the setting in its section of the file: ``max_tokens``."""

    section: str | None = None
    """The table of the file that has it; `None` if it cannot stand in the file."""

    flag: str | None = None
    """The option: ``--max-tokens``; `None` if there is none."""

    variable: str | None = None
    """The environment variable; `None` if there is none."""

    rule: Rule[object]
    """How the text becomes the value; that of an item, if there may be several."""

    default: object
    """The value that no layer sets; `attrs.NOTHING` if one of them must."""

    help: str = ""
    """What the setting does, in a sentence."""

    metavar: str | None = None
    """The word for the value in the help."""

    shown_default: str | None = None
    """How the help spells the default, where the value itself does not tell."""

    many: bool = False
    """True for several values: the option repeated, the variable's items, the file's array."""

    separators: str = SEPARATORS
    """Characters between the items in the variable."""

    empty_is_no: bool = True
    """True if an empty variable turns a switch off; else it sets nothing, as all others."""

    secret: bool = False
    """True if the value is never shown: neither in a list, nor in an error."""

    hides: Callable[[str], str] | None = None
    """Makes of a text what is shown of it, where a part of it may be a secret; `None` for all."""

    def shown(self, text: str) -> str:
        """What is shown of *text*, which somebody has set."""
        if self.secret:
            return "(secret)"
        return text if self.hides is None else self.hides(text)

    @property
    def name(self) -> str:
        """The whole name: ``dialer.max_tokens``."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def is_switch(self) -> bool:
        """True if the setting is on or off."""
        return self.rule.kind == "switch"

    @property
    def default_text(self) -> str:
        """The default as people read it; empty if there is none."""
        if self.shown_default is not None:
            return self.shown_default
        if self.default in (None, (), attrs.NOTHING):
            return ""
        if self.is_switch:
            return "on" if self.default else "off"
        if isinstance(self.default, tuple):
            return ", ".join(str(item) for item in self.default)
        return str(self.default)


class Words(TypedDict, total=False):
    """What every constructor of a setting accepts beside its key, rule and default."""

    section: str | None
    flag: str
    """By default made of the key; empty for no option."""
    variable: str
    """By default made of the flag; empty for no variable."""
    help: str
    metavar: str
    shown_default: str
    separators: str
    empty_is_no: bool
    secret: bool
    hides: Callable[[str], str] | None


def setting(key: str, rule: Rule[T], default: T, **words: Unpack[Words]) -> Setting[T]:
    """A setting with a default."""
    return _make(key, rule, default, words)


def optional(key: str, rule: Rule[T], **words: Unpack[Words]) -> Setting[T | None]:
    """A setting that is `None` if no layer sets it."""
    return _make(key, rule, None, words)


def several(
    key: str, rule: Rule[T], default: tuple[T, ...] = (), **words: Unpack[Words]
) -> Setting[tuple[T, ...]]:
    """A setting with any number of values."""
    return _make(key, rule, default, words, many=True)


def argument(key: str, rule: Rule[T], *, about: str, metavar: str) -> Setting[T]:
    """An argument of a command, without a flag, that must be typed."""
    return Setting(key=key, rule=rule, default=attrs.NOTHING, help=about, metavar=metavar)


def optional_argument(key: str, rule: Rule[T], *, about: str, metavar: str) -> Setting[T | None]:
    """An argument of a command, without a flag, that may be typed."""
    return Setting(key=key, rule=rule, default=None, help=about, metavar=metavar)


def arguments(key: str, rule: Rule[T], *, about: str, metavar: str) -> Setting[tuple[T, ...]]:
    """Arguments of a command, without a flag, of which at least one must be typed."""
    return Setting(
        key=key, rule=rule, default=attrs.NOTHING, help=about, metavar=metavar, many=True
    )


def _make(
    key: str, rule: Rule[object], default: object, words: Words, *, many: bool = False
) -> Setting[Any]:
    flag = words.get("flag", f"--{key.replace('_', '-')}")
    variable = words.get("variable", f"PUNCH_{(flag or key).lstrip('-').replace('-', '_').upper()}")
    return Setting(
        key=key,
        rule=rule,
        default=default,
        many=many,
        section=words.get("section"),
        flag=flag or None,
        variable=variable or None,
        help=words.get("help", ""),
        metavar=words.get("metavar"),
        shown_default=words.get("shown_default"),
        separators=words.get("separators", SEPARATORS),
        empty_is_no=words.get("empty_is_no", True),
        secret=words.get("secret", False),
        hides=words.get("hides"),
    )


@attrs.frozen(kw_only=True)
class Within:
    """A part of a program, whose settings are called by its name: ``--split-slots``."""

    section: str
    """The table of the file that has them."""

    word: str
    """What their names begin with: ``split``."""

    def named(self, setting: Setting[T]) -> Setting[T]:
        """*setting* as it is called here; one that is in the file already stays as it is."""
        if setting.section is not None:
            return setting
        key = f"{self.word}_{setting.key}"
        return attrs.evolve(
            setting,
            key=key,
            section=self.section,
            flag=f"--{key.replace('_', '-')}",
            variable=f"PUNCH_{key.upper()}",
        )


# ---- the settings of a program ----


@attrs.frozen(kw_only=True)
class Settings:
    """The settings of a program, or a group of them. Its fields are made by `of` and `group`."""

    origins: Mapping[str, Origin] = attrs.field(factory=dict, eq=False, repr=False)
    """Where each field's value came from, by the field's name; see `origin`."""

    def origin(self, field: str) -> Origin:
        """Where the value of *field* came from; a default if it was made without `load`."""
        return self.origins.get(field, Origin(layer="default"))

    def said(self, field: str) -> str:
        """What to call *field* in an error: what set it, or what could."""
        return self.origin(field).name or _names(dict(setting_fields(type(self)))[field])


def _names(setting: Setting[object]) -> str:
    return setting.flag or setting.variable or setting.name


def of(
    setting: Setting[T],
    *,
    default: T | None = None,
    about: str | None = None,
    flag: str | None = None,
) -> T:
    """A field that holds *setting*; this program may have its own default, help and flag."""
    if default is not None:
        setting = attrs.evolve(setting, default=default, shown_default=None)
    if about is not None:
        setting = attrs.evolve(setting, help=about)
    if flag is not None:
        setting = attrs.evolve(setting, flag=flag)
    field = attrs.field(
        default=setting.default,
        metadata={_SETTING: setting},
        repr=not setting.secret and setting.hides is None,
    )
    # As `attrs.field` does: to a type checker a field is its default.
    return cast("T", field)


def group(kind: type[S], *, within: Within | None = None) -> S:
    """A field that holds a whole class of settings, such as a listener's inside a gateway's.

    Args:
      kind: The class.
      within: What its settings are called here, where they belong to a part of the program.

    """
    return attrs.field(factory=kind, metadata={_GROUP: kind, _WITHIN: within})


def setting_fields(
    kind: type[Settings], within: Within | None = None
) -> Iterator[tuple[str, Setting[object]]]:
    """The fields of *kind* that hold one setting each."""
    for field in attrs.fields(kind):
        if _SETTING in field.metadata:
            setting = field.metadata[_SETTING]
            yield field.name, setting if within is None else within.named(setting)


def group_fields(
    kind: type[Settings],
) -> Iterator[tuple[str, type[Settings], Within | None]]:
    """The fields of *kind* that hold a group each, and what its settings are called in it."""
    for field in attrs.fields(kind):
        if _GROUP in field.metadata:
            yield field.name, field.metadata[_GROUP], field.metadata[_WITHIN]


def settings_of(kind: type[Settings], within: Within | None = None) -> tuple[Setting[object], ...]:
    """Everything that a program takes, in the order of its fields, groups in their places.

    What a group shares with the program around it (the same flag, or the same variable of a
    setting without one) is taken once, as the program has it.
    """
    found: dict[str, Setting[object]] = {}
    for field in attrs.fields(kind):
        if _SETTING in field.metadata:
            setting = field.metadata[_SETTING]
            inner: tuple[Setting[object], ...] = (
                setting if within is None else within.named(setting),
            )
        elif _GROUP in field.metadata:
            inner = settings_of(field.metadata[_GROUP], field.metadata[_WITHIN])
        else:
            continue
        for setting in inner:
            found.setdefault(setting.flag or setting.name, setting)
    return tuple(found.values())
