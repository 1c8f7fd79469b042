"""Makes plain data of an event whose kind is not known, within bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

# Bounds of what is told of one event: an offer has dozens of fields, a reason is a sentence.
MAX_CHARACTERS = 300
MAX_ITEMS = 32
MAX_DEPTH = 4

_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def told(event: Any) -> dict[str, Any]:
    """*event* as plain data: its kind under ``type``, spelled ``lane_changed``, and its fields."""
    kind = _WORD_BEGINS.sub("_", type(event).__name__).lower()
    fields = {
        field.name: plain(getattr(event, field.name))
        for field in attrs.fields(type(event))[: MAX_ITEMS + 1]
        if field.name != "at"
    }
    return {"type": kind, **fields}


def plain(value: Any, depth: int = MAX_DEPTH) -> Any:
    """*value* as JSON has it; what is too long is cut, what is too deep is left out."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # JSON knows neither infinity nor NaN.
        return round(value, 6) if abs(value) < float("inf") else None
    if isinstance(value, str):
        return value if len(value) <= MAX_CHARACTERS else value[: MAX_CHARACTERS - 3] + "..."
    if depth == 0:
        return None
    if attrs.has(type(value)):
        value = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        pairs = list(value.items())[:MAX_ITEMS]
        return {str(name)[:MAX_CHARACTERS]: plain(each, depth - 1) for name, each in pairs}
    if isinstance(value, tuple | list | frozenset | set):
        return [plain(each, depth - 1) for each in list(value)[:MAX_ITEMS]]
    return type(value).__name__
