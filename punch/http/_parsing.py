"""Reads a JSON body into one of our models, and says what is wrong with it in one sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from ._errors import Refusal

# Of a value that breaks a rule, more is not repeated.
LONGEST_SHOWN = 80

# What pydantic calls the branches of a union starts with this, so that it can be left out of a
# place: nobody who writes JSON knows of them.
BRANCH = "~"

_CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
}


class Body(BaseModel):
    """A JSON object with the fields it has and no others, and no value taken for another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


def _not_a_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("true or false, not a number")
    return value


# To Python 0 is False and 1 is True, so that a plain `Literal` takes the one for the other.
Never = Annotated[Literal[False], BeforeValidator(_not_a_number)]
"""``false``, and nothing else can be had."""
Always = Annotated[Literal[True], BeforeValidator(_not_a_number)]
"""``true``, and nothing else can be had."""

B = TypeVar("B", bound=Body)


def parse(kind: type[B], data: bytes) -> B:
    """*data* as a body of this *kind*.

    Raises:
      Refusal: naming the field and the rule, or the line and column where it is no JSON.

    """
    try:
        return kind.model_validate_json(data or b" ")
    except ValidationError as raised:
        error = _worst(raised.errors(include_url=False, include_context=True))
    place = place_of(error["loc"])
    raise Refusal(
        status=400,
        message=_sentence(error, place),
        code=_CODES.get(error["type"], "invalid_value"),
        param=place or None,
    )


def place_of(location: Sequence[str | int]) -> str:
    """Where a value is: ``messages[0].content``."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not step.startswith(BRANCH):
            text += f".{step}" if text else step
    return text


def shown(value: Any) -> str:
    """*value*, short enough to be repeated."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _worst(errors: Sequence[Any]) -> Any:
    """The error to speak of: one deep inside, as the others may only be its consequences."""
    return max(errors, key=lambda error: len(error["loc"]) if len(errors) < 64 else 0)


def _sentence(error: Any, place: str) -> str:
    kind, rule = error["type"], str(error["msg"])
    if kind == "json_invalid":
        found = re.sub(r"^Invalid JSON: ", "", rule)
        return f"the body is not valid JSON: {found}"
    if kind == "extra_forbidden":
        return f"{place} is not a parameter that can be honoured here; leave it out"
    if kind == "missing":
        return f"{place} is missing"
    if kind == "value_error":
        rule = rule.removeprefix("Value error, ")
        return f"{place}: {rule}" if place else rule
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        rule = "Input should be text or a list"
    value = f"{place or 'the body'} is {shown(error['input'])}"
    must = rule.removeprefix("Input should ")
    return f"{value}; {rule[0].lower()}{rule[1:]}" if must == rule else f"{value}; it must {must}"
