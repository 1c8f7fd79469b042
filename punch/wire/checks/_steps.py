"""Counts the steps that comparing a value with a JSON schema may take, before it is done.

Alternatives within alternatives multiply: sixty lines of schema can make more steps than there
are seconds. Whoever compares follows each way anew; to count them, each pair of a schema and a
value is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

# Pairs that are looked at. An answer of ten thousand values has some ten thousand.
MAX_PAIRS = 100_000

# Levels of schemas and values, one within the other: below what Python's stack takes.
MAX_LEVELS = 300

# Keywords whose schemas judge the very value, and those whose schemas judge what is in it.
_LISTS = ("allOf", "anyOf", "oneOf")
_ONES = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas", "dependencies")
_ITEMS = ("items", "additionalItems", "unevaluatedItems", "contains")
_EXTRA = ("additionalProperties", "unevaluatedProperties")


class _Uncountable(Exception):
    """There are too many pairs, or a reference leads somewhere unknown."""


def steps(schema: Any, value: Any) -> int | None:
    """How many steps it takes at most to compare *value* with *schema*; `None` if too many."""
    try:
        return _Count(schema).steps(schema, value, 0)
    except _Uncountable:
        return None


class _Count:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[tuple[int, int], int] = {}
        self._anchors: dict[str, Any] | None = None

    def steps(self, schema: Any, value: Any, level: int) -> int:
        if not isinstance(schema, dict):
            return 1
        # Small values are one object wherever they are, and take what they take anywhere.
        pair = (id(schema), id(value))
        known = self._known.get(pair)
        if known is not None:
            return known
        if level > MAX_LEVELS or len(self._known) >= MAX_PAIRS:
            raise _Uncountable
        # A schema that refers to itself for the same value is followed once.
        self._known[pair] = 1
        count = len(schema)
        for part in self._same(schema):
            count += self.steps(part, value, level + 1)
        for part, inner in _within(schema, value):
            count += self.steps(part, inner, level + 1)
        self._known[pair] = count
        return count

    def _same(self, schema: dict[str, Any]) -> Iterator[Any]:
        """The schemas that judge the same value."""
        for name in _LISTS:
            parts = schema.get(name)
            yield from parts if isinstance(parts, list) else ()
        for name in _ONES:
            yield schema.get(name)
        for name in _MAPS:
            parts = schema.get(name)
            yield from parts.values() if isinstance(parts, dict) else ()
        for name in ("$ref", "$dynamicRef", "$recursiveRef"):
            if name in schema:
                yield self._target(schema[name])

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str):
            raise _Uncountable
        name = self._root.get("$id", self._root.get("id")) if isinstance(self._root, dict) else None
        if isinstance(name, str) and not reference.startswith("#"):
            # By its own name, a schema is the same.
            reference = reference.removeprefix(name.rstrip("#")) or "#"
        if not reference.startswith("#"):
            raise _Uncountable
        if not reference.startswith("#/"):
            return self._anchored(reference[1:])
        found = self._root
        for step in unquote(reference[2:]).split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise _Uncountable
        return found

    def _anchored(self, name: str) -> Any:
        if not name:
            return self._root
        if self._anchors is None:
            self._anchors = dict(_anchors(self._root))
        if name not in self._anchors:
            raise _Uncountable
        return self._anchors[name]


def _within(schema: dict[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
    """Each schema with a value in *value* that it judges, rather too many of them."""
    if isinstance(value, list):
        first = schema.get("prefixItems", schema.get("items"))
        if isinstance(first, list):
            yield from zip(first, value, strict=False)
        for name in _ITEMS:
            if isinstance(part := schema.get(name), dict):
                for inner in value:
                    yield part, inner
    elif isinstance(value, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            for name, inner in value.items():
                yield properties.get(name), inner
        patterns = schema.get("patternProperties")
        parts = [*patterns.values()] if isinstance(patterns, dict) else []
        parts += [schema.get(name) for name in _EXTRA]
        for part in parts:
            if isinstance(part, dict):
                for inner in value.values():
                    yield part, inner
        if isinstance(part := schema.get("propertyNames"), dict):
            for name in value:
                yield part, name


def _anchors(root: Any) -> Iterator[tuple[str, Any]]:
    left = [root]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := part.get(name), str):
                    yield anchor, part
            left += part.values()
        elif isinstance(part, list):
            left += part
