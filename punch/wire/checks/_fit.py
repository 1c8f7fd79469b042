"""Decides whether an answer fits the JSON schema that it was asked to fit.

An engine makes a grammar of a schema and holds the model to it, and leaves out without a word
what a grammar cannot say: most formats, ranges of floating-point numbers, ``multipleOf``,
``if``, ``uniqueItems``, half of all patterns. So an answer is compared with its schema once
more at its end, and a schema that cannot be compared with is refused before it is sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypedDict

from jsonschema_rs import (
    Draft4Validator,
    Draft7Validator,
    Draft202012Validator,
    FancyRegexOptions,
    ValidationError,
    ValidationErrorKind,
    Validator,
    validator_for,
)

from ._steps import steps

# What is kept of the schemas of late: one program asks with the same one again and again.
_KEPT = 32

# Steps back in one pattern over one text: a millisecond or so. What has neither look-around nor
# back references takes none.
_MAX_STEPS_BACK = 20_000

# Drafts that people write without saying so, in the order in which they are tried: the current
# one, then those whose lists in `items` and booleans in `exclusiveMinimum` it no longer has.
_DRAFTS = (Draft202012Validator, Draft7Validator, Draft4Validator)

# Steps of a comparison: millions a second, and a thousandth of that where each is explained.
_MAX_STEPS = 2_000_000
_MAX_EXPLAINED = 5_000

# Patterns that are too big to compare with, which one schema may have; they are left out.
_MAX_LEFT_OUT = 32

# How often something repeats in a pattern.
_COUNTS = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")

# Characters of a schema's own words that are quoted in an error.
_MAX_QUOTE = 80


def unusable(schema: str) -> str | None:
    """Why no answer can be compared with *schema*, and a remedy; `None` if one can.

    The text goes behind the name of the field that *schema* is the value of.
    """
    try:
        _compiled(schema)
    except ValidationError as error:
        place = _place(error.instance_path)
        if isinstance(error.kind, ValidationErrorKind.Referencing):
            return (
                "refers to what is not in it, or names a draft that nobody knows; "
                "put what it refers to under $defs"
            )
        value = _quoted(error.instance)
        if isinstance(error.kind, ValidationErrorKind.Format):
            return (
                f"has {value} at {place}, which is no pattern that an answer could be compared "
                "with; patterns are ECMA-262's, and repeat no more than some thousand times"
            )
        return f"is no JSON Schema: {value} at {place} is nothing that may stand there"
    return None


def broken_rule(schema: str, text: str) -> str | None:
    """Which rule of *schema* the answer *text* breaks, and where; `None` if it fits.

    The answer is not quoted. ``{}`` asks for any object, as clients say it with `json_object`.
    What cannot be compared within some tenths of a second fits; where it matters that nothing
    can be compared with a schema at all, `unusable` has refused it.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return "it is not JSON"
    try:
        validator = _compiled(schema)
    except ValidationError:
        return None
    parsed = json.loads(schema)
    if not parsed and not isinstance(value, dict):
        return "it is no JSON object"
    count = steps(parsed, value)
    if count is None or count > _MAX_STEPS:
        return None
    if validator.is_valid(value):
        return None
    if count > _MAX_EXPLAINED:
        return "a rule in it is broken"
    error = next(iter(validator.iter_errors(value)))
    return f"{_place(error.instance_path)} breaks the rule {error.kind.name}"


@lru_cache(maxsize=_KEPT)
def _compiled(schema: str) -> Validator:
    """What compares with *schema*.

    Raises:
      ValidationError: as the current draft says it, if no draft takes it.

    """
    value = json.loads(schema)
    for _ in range(_MAX_LEFT_OUT):
        try:
            return _of_some_draft(value)
        except ValidationError as error:
            if not _is_too_big(error):
                raise
            _remove(value, error.instance_path)
    return _of_some_draft(value)


def _of_some_draft(schema: dict[str, Any]) -> Validator:
    # Nothing is ever fetched: a schema is a stranger's, and this machine no errand boy.
    options = _Options(
        validate_formats=True,
        offline=True,
        pattern_options=FancyRegexOptions(backtrack_limit=_MAX_STEPS_BACK),
    )
    try:
        return validator_for(schema, **options)
    except ValidationError:
        bare = {name: part for name, part in schema.items() if name != "$schema"}
        for draft in _DRAFTS:
            with suppress(ValidationError):
                return draft(bare, **options)
        raise


class _Options(TypedDict):
    validate_formats: bool
    offline: bool
    pattern_options: FancyRegexOptions


def _is_too_big(error: ValidationError) -> bool:
    """Whether it is a good pattern, and only too much for an automaton.

    `_repetition` has bounded it, and an engine that could not follow it would say so.
    """
    if not isinstance(error.kind, ValidationErrorKind.Format):
        return False
    if error.instance_path[-1:] != ["pattern"] or not isinstance(error.instance, str):
        return False
    # What is no pattern is none with fewer repetitions either.
    smaller = _COUNTS.sub("{0,1}", error.instance)
    try:
        Draft202012Validator({"pattern": smaller}, pattern_options=FancyRegexOptions())
    except ValidationError:
        return False
    return smaller != error.instance


def _remove(value: Any, path: Sequence[str | int]) -> None:
    *way, last = path
    for step in way:
        value = value[step]
    del value[last]


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _place(path: Sequence[str | int]) -> str:
    """*path* as people write one: ``$.people[0].name``; no longer than a line."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return _short("$" + "".join(steps))


def _quoted(value: object) -> str:
    return _short(json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_QUOTE else f"{text[:_MAX_QUOTE]}..."
