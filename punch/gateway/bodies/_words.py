"""Says what is wrong with a body, in JSON's words: text, list, object, true, null."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

# A value that breaks a rule is quoted up to this length, and so is the name of a field.
MAX_SHOWN_CHARACTERS = 80

# Pydantic puts the tag of a union's branch into the place of a fault. Our tags start with this, so
# that they can be left out: a client has never heard of them.
BRANCH = "~"

# Pydantic's types of faults whose words are Python's, to ours.
_MUST = {
    "bool_type": "be true or false",
    "string_type": "be text",
    "int_type": "be a whole number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "list_type": "be a list",
    "dict_type": "be an object",
    "model_type": "be an object",
    "model_attributes_type": "be an object",
    "none_required": "be null, or left out",
    "union_tag_invalid": "be text or a list",
    "union_tag_not_found": "be text or a list",
    "greater_than": "be more than {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be less than {lt}",
    "less_than_equal": "be at most {le}",
    "too_long": "have at most {max_length} entries",
    "too_short": "have at least {min_length} entries",
    "string_too_long": "have at most {max_length} characters",
    "string_too_short": "have at least {min_length} characters",
}


def place_of(location: Sequence[str | int]) -> str:
    """Where a value is: ``messages[0].content``."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not step.startswith(BRANCH):
            name = step[:MAX_SHOWN_CHARACTERS]
            text += f".{name}" if text else name
    return text


def shown(value: Any) -> str:
    """*value* as JSON, short enough to be repeated."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > MAX_SHOWN_CHARACTERS:
            return f"{text[:MAX_SHOWN_CHARACTERS]}..."
    return text


def _pieces(value: Any) -> Iterator[str]:
    """The JSON of *value* piece by piece, so that no more of it is written than is shown."""
    if isinstance(value, str):
        yield json.dumps(value[: MAX_SHOWN_CHARACTERS + 1], ensure_ascii=False)
    elif isinstance(value, dict):
        yield "{"
        for place, (name, item) in enumerate(value.items()):
            yield ", " if place else ""
            yield from _pieces(str(name))
            yield ": "
            yield from _pieces(item)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for place, item in enumerate(value):
            yield ", " if place else ""
            yield from _pieces(item)
        yield "]"
    elif isinstance(value, int) and abs(value) >= 1 << 256:
        # Python refuses to write numbers of more than 4300 digits.
        yield "a very long number"
    else:
        yield json.dumps(value, default=lambda odd: type(odd).__name__)


def sentence(error: Any, place: str) -> str:
    """One of pydantic's errors, about the value at *place*."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"{place} is missing"
    if kind == "value_error":
        rule = str(context["error"])
        return f"{place}: {rule}" if place else rule
    if kind == "literal_error":
        must = "be " + str(context["expected"]).replace("'", '"')
    elif kind in _MUST:
        must = _MUST[kind].format_map(context)
    else:
        rule = str(error["msg"])
        must = rule.removeprefix("Input should ")
        if must == rule:
            return f"{place or 'the body'} is {shown(error['input'])}; {rule[0].lower()}{rule[1:]}"
    return f"{place or 'the body'} is {shown(error['input'])}; it must {must}"
