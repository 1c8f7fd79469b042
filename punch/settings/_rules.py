"""Rules: functions that make the text of a setting its value, or refuse it in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Literal, TypeVar

import attrs

from ..wire import LIMITS

Kind = Literal["text", "path", "path or name", "number", "switch"]
"""What a value looks like in the file: a string (of a path, too), a number, or true and false."""

C = TypeVar("C", bound=str)
V_co = TypeVar("V_co", covariant=True)

YES = frozenset({"1", "true", "yes", "on"})
NO = frozenset({"0", "false", "no", "off", ""})


@attrs.frozen
class Rule(Generic[V_co]):
    """How a text becomes a value. All layers use it: a file's values pass through it as text."""

    convert: Callable[[str], V_co]
    """Text to value; raises `ValueError` with the rule as a sentence's end."""

    kind: Kind = "text"
    """How the value is written in the file."""

    def value(self, text: str) -> V_co:
        """What *text* is; raises `ValueError` with the rule as a sentence's end."""
        if self.is_path(text):
            expanded(text)
        return self.convert(text)

    def is_path(self, text: str) -> bool:
        """True if *text* is the path of a file, and neither a name nor ``none``."""
        if self.kind == "path or name":
            return text.startswith("~") or bool({"/", "\\"} & set(text))
        return self.kind == "path" and text.strip().lower() != "none"


def boolean(text: str) -> bool:
    """True or false, as people write it; an empty text is false."""
    word = text.strip().lower()
    if word not in YES | NO:
        raise ValueError("write 1 or 0")
    return word in YES


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("it must be a number") from None
    if not math.isfinite(value):
        raise ValueError("it must be a finite number")
    return value


def _positive(text: str) -> float:
    value = _float(text)
    if value <= 0:
        raise ValueError("it must be above 0")
    return value


def expanded(text: str) -> Path:
    """The path *text*, in which ``~`` and ``~NAME`` are home folders.

    Raises:
      ValueError: if it can be none.

    """
    if "\0" in text:
        raise ValueError("a path has no NUL in it")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        name = Path(text).parts[0]
        raise ValueError(
            f"{name} is nobody's home folder here; write ./{name} if it is a folder"
        ) from None


TEXT: Rule[str] = Rule(str)
"""Any text, as it is."""

WORD: Rule[str] = Rule(str.strip)
"""Any text, without blanks around it."""

PATH: Rule[Path] = Rule(expanded, kind="path")
"""A file; ``~`` is the home folder. In the settings file it is relative to that file's folder."""

PATH_OR_NAME: Rule[str] = Rule(str.strip, kind="path or name")
"""A file, or the name of something that punch knows, which has no slash in it."""

SWITCH: Rule[bool] = Rule(boolean, kind="switch")
"""On or off."""

POSITIVE: Rule[float] = Rule(_positive, kind="number")
"""A number above 0."""


def number(least: float, most: float, *, above: bool = False) -> Rule[float]:
    """A number from *least* to *most*; *above* says that *least* itself is too little."""

    def convert(text: str) -> float:
        value = _float(text)
        if above and not least < value <= most:
            raise ValueError(f"it must be above {least} and at most {most:,.0f}")
        if not least <= value <= most:
            raise ValueError(f"it must be from {least} to {most}")
        return value

    return Rule(convert, kind="number")


# What goes into no number of a program is a slip of the keyboard, and no wish.
MAX_COUNT = (1 << 63) - 1


def count(least: int, *, most: int = MAX_COUNT, scale: int = 1) -> Rule[int]:
    """An integer from *least* to *most*; its value is *scale* times what is written."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("it must be a whole number") from None
        if value < least:
            raise ValueError(f"it must be {least} or more")
        if value > most:
            raise ValueError(f"it must be {most} or less")
        return value * scale

    return Rule(convert, kind="number")


def one_of(*choices: C) -> Rule[C]:
    """The rule of a word that must be one of *choices*."""

    def convert(text: str) -> C:
        for choice in choices:
            if choice == text:
                return choice
        raise ValueError(f"it must be one of {', '.join(choices)}")

    return Rule(convert)


def count_within(name: str) -> Rule[int]:
    """Whole numbers within the limits that the field *name* of a request has."""
    return count(int(LIMITS[name].least), most=int(LIMITS[name].most))


def number_within(name: str) -> Rule[float]:
    """Numbers within the limits that the field *name* of a request has."""
    limit = LIMITS[name]
    return number(limit.least, limit.most, above=limit.above)
