"""Reads a JSON body into one of our models, and says what is wrong with it in one sentence.

The fields that the bodies of every dialect have stand here, too.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import trio
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    Tag,
    ValidationError,
)

from ..wire import LIMITS
from ._errors import Refusal

# A value that breaks a rule is quoted up to this length.
MAX_SHOWN_CHARACTERS = 80

# Values in one body, counted as the commas between them. Parsing makes an object of each: some
# hundred bytes of memory from two of the body. A conversation of 4096 messages has about 20,000.
MAX_VALUES = 1 << 16

# Faults of one body that are looked at: pydantic takes longer to describe faults than to find them.
MAX_FAULTS = 64

# Bytes that are parsed in trio's thread, where all other requests wait for some milliseconds.
AT_ONCE = 256 << 10

# Bytes of a string that one match looks through: the match holds the interpreter's lock.
SLICE = 1 << 20

_IN_A_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)

# Pydantic puts the tag of a union's branch into the place of a fault. Our tags start with this, so
# that they can be left out: a client has never heard of them.
BRANCH = "~"

_CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
}


class Body(BaseModel):
    """A JSON object of known fields only, whose values are never converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


def _not_a_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("true or false, not a number")
    return value


# To Python 0 equals False and 1 equals True, so a plain `Literal` would accept the number.
Never = Annotated[Literal[False], BeforeValidator(_not_a_number)]
"""A field that may say ``false`` and nothing else."""
Always = Annotated[Literal[True], BeforeValidator(_not_a_number)]
"""A field that may say ``true`` and nothing else."""


def within(name: str, **other: Any) -> Any:
    """The limits of a body's field: those of *name*, a field of a request between peers.

    Args:
      name: As in `punch.wire.LIMITS`.
      **other: Limits of the dialect itself, in pydantic's words, in place of ours.

    """
    limit = LIMITS[name]
    if limit.type in (int, float):
        found: dict[str, Any] = {"gt" if limit.above else "ge": limit.least, "le": limit.most}
    else:
        found = {"max_length": int(limit.most)}
        if limit.least:
            found["min_length"] = int(limit.least)
        if limit.type is tuple:
            # A list is checked up to the first item that breaks a rule: a body of a million
            # wrong ones is one fault.
            found["fail_fast"] = True
    return Field(**(found | other))


# Parts of one message, which are one text to a peer.
MAX_PARTS = 256

# JSON's integers are signed 64-bit ones to many clients, and so they are in OpenAI's own schema.
MAX_SEED = (1 << 63) - 1

Text = Annotated[StrictStr, Tag("~text")]


def printable(value: str) -> str:
    """*value*, the name of a model; raises `ValueError` if it cannot be shown."""
    if not value.isprintable():
        limit = LIMITS["model"]
        raise ValueError(f"it must be {limit.span} {limit.unit}")
    return value


ModelName = Annotated[str, within("model"), AfterValidator(printable)]
"""The name of a model, which goes into logs, headers and labels."""


class PunchOptions(Body):
    """Punch's own options, under ``punch``."""

    priority: Annotated[int, within("priority")] = Field(
        default=0, description="Higher goes first in a queue."
    )
    strict: bool | None = Field(default=None, description="Real inference only, never simulated.")
    timeout: Annotated[float | None, within("timeout")] = Field(
        default=None, description="Seconds until the whole answer must be there."
    )
    continuation: bool = Field(
        default=True, description="If its peer fails in the middle, another one may continue."
    )


class Function(Body):
    """A function that the model may ask for."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    # llama.cpp writes the arguments of every call under a grammar of their schema.
    strict: bool | None = None


B = TypeVar("B", bound=Body)


def parse(kind: type[B], data: bytes) -> B:
    """*data* as a body of this *kind*.

    Raises:
      Refusal: naming the field and the rule, or the line and column where it is no JSON.

    """
    if data.count(b",") > MAX_VALUES and _values(data) > MAX_VALUES:
        raise _no(f"the body has more than {MAX_VALUES} values in it: send less at a time")
    try:
        return kind.model_validate_json(data or b" ")
    except ValidationError as raised:
        faults = raised.error_count()
        if faults > MAX_FAULTS:
            raise _no(f"{faults} values in the body break rules; /openapi.json has them") from None
        error = _worst(raised.errors(include_url=False, include_context=True))
    place = place_of(error["loc"])
    raise Refusal(
        status=400,
        message=_sentence(error, place),
        code=_CODES.get(error["type"], "invalid_value"),
        param=place or None,
    )


async def parse_aside(kind: type[B], data: bytes, limiter: trio.CapacityLimiter) -> B:
    """`parse`, in a thread if *data* is long; *limiter* says how many of them at a time."""
    if len(data) <= AT_ONCE:
        return parse(kind, data)
    return await trio.to_thread.run_sync(parse, kind, data, limiter=limiter)


def _values(data: bytes) -> int:
    """About how many values *data* has: its commas outside strings, counted up to the limit."""
    found = place = 0
    while found <= MAX_VALUES:
        quote = data.find(b'"', place)
        if quote < 0:
            return found + data.count(b",", place)
        found += data.count(b",", place, quote)
        place = _end_of_string(data, quote + 1)
    return found


def _end_of_string(data: bytes, place: int) -> int:
    """Where the string ends that begins at *place*: after its quote, or where *data* ends."""
    while place < len(data) and data[place] != ord('"'):
        found = _IN_A_STRING.match(data, place, place + SLICE)
        end = place if found is None else found.end()
        if end == place:
            # A backslash at the very end.
            return len(data)
        place = end
    return place + 1


def _no(message: str) -> Refusal:
    return Refusal(status=400, message=message, code="invalid_value")


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
    text = _SHORT.repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."


class _Short(reprlib.Repr):
    """A `repr` that writes no more of a value than is shown of it."""

    maxstring = maxother = MAX_SHOWN_CHARACTERS

    def repr_str(self, x: str, level: int) -> str:
        return repr(x[: MAX_SHOWN_CHARACTERS + 1])

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write numbers of more than 4300 digits.
        return repr(x) if abs(x) < 1 << 256 else "a very long number"


_SHORT = _Short()


def _worst(errors: Sequence[Any]) -> Any:
    """The error to report: the deepest, since the others may only be its consequences."""
    return max(errors, key=lambda error: len(error["loc"]))


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
        rule = str(error["ctx"]["error"])
        return f"{place}: {rule}" if place else rule
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        rule = "Input should be text or a list"
    value = f"{place or 'the body'} is {shown(error['input'])}"
    must = rule.removeprefix("Input should ")
    return f"{value}; {rule[0].lower()}{rule[1:]}" if must == rule else f"{value}; it must {must}"
