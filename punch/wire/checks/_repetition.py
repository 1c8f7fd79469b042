"""Decides whether a JSON schema repeats more than an engine can hold an answer to.

An engine turns a schema into a grammar and follows every way to read what it has written so
far. A schema of a hundred bytes can make that billions of ways, and the engine then computes
for hours, long after its caller gave up. So it is counted here, before any engine sees it:

* The places, the ways and the skips of every pattern, see `_pattern_size`.
* Alternatives that an engine compares at the same place: the values of an ``enum``, the branches of
  an ``anyOf``, the properties that may be left out.
* Nested ``maxItems``, ``maxLength`` and their kin: the product along the way from the root.
  JSON's own commas and quotes tell the rounds apart, so the bound is a wide one.
* ``minItems`` and ``minLength``: the shortest text that fits must fit an answer.

What an engine makes of the rest of a schema is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._pattern_size import CEILING, pattern_size

# llama.cpp compares every way with every other, for every character that a token may bring:
# 10,000 ways take minutes a token, 500 some seconds at worst.
MAX_WAYS = 500

# Measured with llama.cpp: 16 take it a second a token, 20 half a minute.
MAX_SKIPS = 16

# Measured with llama.cpp: 2,000 take it two seconds a token, 30,000 fifty.
MAX_ALTERNATIVES = 2_000

# Properties of one object that may be left out. Measured with llama.cpp, whose time grows with the
# third power of their number: 800 take it a second, 3,200 minutes; no cancel is heard meanwhile.
MAX_OPTIONAL = 1_000
MAX_OPTIONAL_WORK = 4 * MAX_OPTIONAL**3

# Patterns that people write have some hundred places; a UUID has 36, a text of `{0,4000}` 4,000.
MAX_PLACES = 100_000

# 1,000 items with ten texts of 2,000 characters each are 20 million, and nothing to an engine.
MAX_NESTED = 100_000_000

# Characters of an answer: what one frame holds.
MAX_LEAST = 8 << 20

# Schemas within schemas, with references followed: below what Python's stack takes.
MAX_FOLLOWED = 400

# Schemas within the schemas of one request. The biggest that people write have some thousand.
MAX_SCHEMAS = 20_000

# Characters of a pattern that are quoted in an error.
_MAX_QUOTE = 80

# "No limit", as generators of schemas write it.
_NO_LIMIT = frozenset({2**31 - 1, 2**32 - 1, 2**53 - 1, 2**63 - 1})


class RepetitionCheck:
    """Judges the schemas of one request; how long all of that takes is bounded, too."""

    def __init__(self) -> None:
        self._schemas = MAX_SCHEMAS
        self._characters = MAX_PLACES
        self._optional_work = MAX_OPTIONAL_WORK

    def fault(self, schema: dict[str, Any]) -> str | None:
        """What is wrong with the repetitions in *schema*, and a remedy; `None` if nothing is.

        The text goes behind the name of the field that *schema* is the value of.
        """
        try:
            walk = _Walk(schema, self)
            walk.size(schema, 0)
            walk.alternatives(schema)
        except _TooMuch as fault:
            return fault.rule
        return None

    def enter(self) -> None:
        """Count a schema within a schema."""
        self._schemas -= 1
        if self._schemas < 0:
            raise _TooMuch(
                f"brings this request to more than {MAX_SCHEMAS} schemas within schemas: "
                "leave out what is not needed"
            )

    def optional(self, count: int) -> None:
        """Count the properties of an object that may be left out."""
        self._optional_work -= count**3
        if count > MAX_OPTIONAL or self._optional_work < 0:
            raise _TooMuch(
                f"has an object with {count} properties that may be left out; at most "
                f"{MAX_OPTIONAL} are allowed, and fewer in each of several objects: name some of "
                "them in `required`"
            )

    def places(self, pattern: str) -> int:
        """The places of *pattern*, if they are not too many."""
        shown = pattern if len(pattern) <= _MAX_QUOTE else f"{pattern[:_MAX_QUOTE]}..."
        self._characters -= len(pattern)
        if self._characters < 0:
            raise _TooMuch(
                f"has the pattern {shown!r}, with which the patterns of this request have more "
                f"than {MAX_PLACES} characters: shorten them"
            )
        size = pattern_size(pattern)
        if size.places > MAX_PLACES:
            raise _TooMuch(
                f"has the pattern {shown!r}, whose repetitions multiply to {_shown(size.places)} "
                f"places; at most {MAX_PLACES} are allowed: repeat less, or use * and +"
            )
        if size.ways > MAX_WAYS:
            raise _TooMuch(
                f"has the pattern {shown!r}, whose repetitions multiply to {_shown(size.ways)} "
                f"ways to read the same text; at most {MAX_WAYS} are allowed: repeat less, or let "
                "each round of the outer repetition end in a character that is nowhere else in it"
            )
        if size.skips > MAX_SKIPS:
            raise _TooMuch(
                f"has the pattern {shown!r}, in which {_shown(size.skips)} repetitions that may "
                f"match nothing follow each other; at most {MAX_SKIPS} are allowed: let each round "
                "match at least one character"
            )
        return size.places


class _TooMuch(Exception):
    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


# Keywords of JSON Schema whose value is a schema, a list of them, or a map of them.
_ONE = ("not", "if", "then", "else", "propertyNames", "contentSchema")
_REPEATED = ("items", "additionalItems", "unevaluatedItems", "contains")
_EXTRA = ("additionalProperties", "unevaluatedProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions", "dependentSchemas")


class _Walk:
    """Goes through one schema, each part of it once."""

    def __init__(self, root: dict[str, Any], check: RepetitionCheck) -> None:
        self._root = root
        self._check = check
        self._sizes: dict[int, tuple[int, int]] = {}
        self._alternatives: dict[int, int] = {}

    def size(self, schema: Any, depth: int) -> tuple[int, int]:
        """The least characters of what fits *schema*, and its nested repetitions multiplied."""
        if not isinstance(schema, dict) or not schema:
            return 0, 1
        known = self._sizes.get(id(schema))
        if known is not None:
            return known
        self._check.enter()
        if depth > MAX_FOLLOWED:
            raise _TooMuch(
                f"is nested deeper than {MAX_FOLLOWED} levels, its references followed: "
                "make it flatter"
            )
        # What refers to itself is a loop, and takes one round.
        self._sizes[id(schema)] = (0, 1)
        least, most = self._text(schema)
        for part in self._parts(schema):
            most = max(most, self.size(part, depth + 1)[1])
        required = schema.get("required")
        properties = schema.get("properties")
        if isinstance(properties, dict) and isinstance(required, list):
            needed = [properties.get(name) for name in required if isinstance(name, str)]
            least = max(least, sum(self.size(part, depth + 1)[0] for part in needed))
        least = max(least, self.size(self._target(schema.get("$ref")), depth + 1)[0])
        for low, high, names in (
            ("minItems", "maxItems", _REPEATED),
            ("minProperties", "maxProperties", _EXTRA),
        ):
            for name in names:
                for part in _schemas(schema.get(name)):
                    inner = self.size(part, depth + 1)
                    rounds = _limit(schema, low) or 0
                    if name in ("items", "additionalProperties"):
                        least = max(least, self._least(low, rounds, inner[0]))
                    rounds = _limit(schema, high) or rounds or 1
                    most = max(most, self._most(high, rounds, inner[1]))
        self._sizes[id(schema)] = (least, most)
        return least, most

    def alternatives(self, schema: Any) -> int:
        """How many values an engine compares where *schema* begins; for after `size`."""
        if not isinstance(schema, dict) or not schema:
            return 1
        known = self._alternatives.get(id(schema))
        if known is not None:
            return known
        # What refers to itself adds nothing to itself.
        self._alternatives[id(schema)] = 1
        for part in self._parts(schema):
            self.alternatives(part)
        for name in (*_REPEATED, *_EXTRA):
            for part in _schemas(schema.get(name)):
                self.alternatives(part)
        found = max(self._optional(schema), str(schema.get("pattern")).count("|") + 1)
        if isinstance(values := schema.get("enum"), list):
            found = max(found, len(values))
        for name in ("anyOf", "oneOf"):
            found = max(found, sum(map(self.alternatives, _schemas(schema.get(name)))))
        # A text, object or array begins with a mark of its own: what it begins with comes next.
        for part in (self._target(schema.get("$ref")), schema.get("items")):
            found = max(found, self.alternatives(part))
        if found > MAX_ALTERNATIVES:
            raise _TooMuch(
                f"has a place where any of {found} values may follow, enums and alternatives "
                f"counted together; at most {MAX_ALTERNATIVES} are allowed: offer fewer, or leave "
                "the choice to the prompt"
            )
        self._alternatives[id(schema)] = found
        return found

    def _optional(self, schema: dict[str, Any]) -> int:
        """How many properties of *schema* may be left out."""
        properties, required = schema.get("properties"), schema.get("required")
        if not isinstance(properties, dict):
            return 1
        needed = required if isinstance(required, list) else []
        count = len(properties.keys() - {name for name in needed if isinstance(name, str)})
        self._check.optional(count)
        return max(count, 1)

    def _text(self, schema: dict[str, Any]) -> tuple[int, int]:
        """Least and most characters of a text that fits *schema*; checks its patterns."""
        named = schema.get("patternProperties")
        for pattern in named if isinstance(named, dict) else ():
            self._check.places(pattern)
        pattern = schema.get("pattern")
        most = self._check.places(pattern) if isinstance(pattern, str) else 1
        least = self._least("minLength", _limit(schema, "minLength") or 0, 1)
        return least, max(most, _limit(schema, "maxLength") or least or 1)

    def _parts(self, schema: dict[str, Any]) -> Iterator[Any]:
        """The schemas in *schema* that are not repeated."""
        yield from (schema.get(name) for name in _ONE)
        for name in _LISTS:
            yield from _schemas(schema.get(name))
        for name in (*_MAPS, "patternProperties"):
            value = schema.get(name)
            yield from value.values() if isinstance(value, dict) else ()
        yield self._target(schema.get("$ref"))

    def _target(self, reference: Any) -> Any:
        """The schema that *reference* points to within the root; `None` if it does not."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        found: Any = self._root
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and len(name) < 7:
                found = found[int(name)] if int(name) < len(found) else None
        return found

    def _least(self, keyword: str, rounds: int, inner: int) -> int:
        least = rounds * max(inner, 1)
        if least > MAX_LEAST:
            raise _TooMuch(
                f"has {keyword} {rounds}, with which a text that fits has at least "
                f"{_shown(least)} characters; an answer has at most {MAX_LEAST}: demand less"
            )
        return least

    def _most(self, keyword: str, rounds: int, inner: int) -> int:
        most = min(rounds * inner, CEILING)
        if rounds > 1 and inner > 1 and most > MAX_NESTED:
            raise _TooMuch(
                f"has {keyword} {rounds} around other repetitions, and they multiply to "
                f"{_shown(most)}; at most {MAX_NESTED} are allowed: set smaller limits, or none, "
                "in one of them"
            )
        return most


def _schemas(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _limit(schema: dict[str, Any], name: str) -> int | None:
    """The number under *name*, if it is one and means a limit."""
    value = schema.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 0 or value in _NO_LIMIT:
        return None
    return min(value, CEILING)


def _shown(count: int) -> str:
    return str(count) if count < CEILING else f"{CEILING} or more"
