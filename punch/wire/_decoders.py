"""Decoders: functions that check a value which msgpack has unpacked, and give it in our types.

Which field has which decoder stands in `_schema`. Each raises `BadValue` for what it refuses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import attrs

Decoder = Callable[[Any], Any]


class BadValue(Exception):
    """A value is not what it should be. Collects its place on the way out."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected
        self.place: list[str] = []


def shown(value: object) -> str:
    """A bad value, for an error."""
    # Never the text of a container: one that is nested deeply enough cannot be spelled out.
    if isinstance(value, list | dict):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {str(value)[:40]!r}"


def text(limit: int, *, least: int = 0) -> Decoder:
    """Text of *least* to *limit* characters."""

    def read(value: Any) -> str:
        if type(value) is not str or not least <= len(value) <= limit:
            raise BadValue(f"text of {least} to {limit} characters, got {shown(value)}")
        return value

    return read


def matching(pattern: re.Pattern[str], what: str) -> Decoder:
    """Text that matches *pattern*; *what* says so in words."""

    def read(value: Any) -> str:
        if type(value) is not str or not pattern.fullmatch(value):
            raise BadValue(f"{what}, got {shown(value)}")
        return value

    return read


def integer(least: int, most: int) -> Decoder:
    """An integer, and no boolean."""

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise BadValue(f"an integer from {least} to {most}, got {shown(value)}")
        return value

    return read


def number(least: float, most: float) -> Decoder:
    """A finite number, as a float; both limits are finite."""

    def read(value: Any) -> float:
        if (type(value) is float or type(value) is int) and least <= value <= most:
            return float(value)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise BadValue(f"a finite number, got {shown(value)}")
        raise BadValue(f"a number from {least} to {most}, got {shown(value)}")

    return read


def flag(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise BadValue(f"true or false, got {shown(value)}")
    return value


def binary(limit: int) -> Decoder:
    """At most *limit* bytes."""

    def read(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > limit:
            raise BadValue(f"at most {limit} bytes, got {shown(value)}")
        return value

    return read


def one_of(*choices: str) -> Decoder:
    """One of *choices*."""

    def read(value: Any) -> str:
        if type(value) is not str or value not in choices:
            raise BadValue(f"one of {', '.join(choices)}; got {shown(value)}")
        return value

    return read


def many(decoder: Decoder, limit: int) -> Decoder:
    """A list of at most *limit*, as a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > limit:
            raise BadValue(f"a list of at most {limit}, got {shown(value)}")
        return tuple([decoder(item) for item in value])

    return read


def set_of(decoder: Decoder, limit: int) -> Decoder:
    """A list of at most *limit*, as a set."""
    items = many(decoder, limit)
    return lambda value: frozenset(items(value))


def record(cls: type[Any], /, *needed: str, **decoders: Decoder) -> Decoder:
    """A map, as a *cls*: each field by its decoder, the rest ignored.

    Fields without a default must be there, and those that are *needed* all the same.
    """
    required = [
        field.name
        for field in attrs.fields(cls)
        if field.name in decoders and (field.default is attrs.NOTHING or field.name in needed)
    ]

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise BadValue(f"a map, got {shown(value)}")
        found = {}
        name = ""
        try:
            # What came, not what could have come: most fields have their defaults and are left out.
            for name, item in value.items():
                if name in decoders:
                    found[name] = decoders[name](item)
            for name in required:
                if name not in found:
                    raise BadValue("a value, got nothing")
        except BadValue as bad:
            bad.place.insert(0, name)
            raise
        return cls(**found)

    return read


def label(limit: int) -> Decoder:
    """Text that is shown in tables and logs: one line, and nothing a terminal would obey."""

    def read(value: Any) -> str:
        if type(value) is not str or not 1 <= len(value) <= limit or not value.isprintable():
            raise BadValue(f"1 to {limit} printable characters, got {shown(value)}")
        return value

    return read
