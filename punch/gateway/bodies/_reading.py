"""Reads a JSON body into one of our models, and says in one error all that is wrong with it.

Which fields a body has is left to the dialects, and the words for one fault to `_words`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import attrs
import trio
from pydantic import ValidationError
from pydantic_core import from_json

from .._errors import Refusal
from ._body import Body, Notes, Refused
from ._words import place_of, sentence

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

CODES = {
    "extra_forbidden": "unknown_parameter",
    "refused": "unsupported_parameter",
    "missing": "missing_required_parameter",
    "json_invalid": "invalid_json",
}
"""OpenAI's `code` for kinds of faults; of all others it is ``invalid_value``."""

B = TypeVar("B", bound=Body)


@attrs.frozen(kw_only=True)
class Reading(Generic[B]):
    """A body that was read."""

    body: B
    """The body."""

    taken: tuple[str, ...] = ()
    """Fields that were taken and change nothing: ``messages[].name``."""


def read(kind: type[B], data: bytes) -> Reading[B]:
    """*data* as a body of this *kind*, and what of it changes nothing.

    Raises:
      Refusal: naming each field that is refused, and the rule that a value breaks, or the line and
        column where *data* is no JSON.

    """
    if data.count(b",") > MAX_VALUES and _values(data) > MAX_VALUES:
        raise _no(f"the body has more than {MAX_VALUES} values in it: send less at a time")
    try:
        # Windows' programs write a mark in front of UTF-8, which may be passed over (RFC 8259).
        raw = from_json(data.removeprefix(codecs.BOM_UTF8) or b" ", allow_inf_nan=False)
    except ValueError as raised:
        message = f"the body is not valid JSON: {raised}"
        raise Refusal(status=400, message=message, code=CODES["json_invalid"]) from None
    notes = Notes()
    body, errors, faults = None, [], 0
    try:
        body = kind.model_validate(raw, context=notes)
    except ValidationError as raised:
        faults = raised.error_count()
        if faults + notes.refusals <= MAX_FAULTS:
            errors = list(raised.errors(include_url=False, include_context=True))
    if body is None or notes.refusals:
        raise _refusal(raw, notes, errors, faults)
    if not notes.taken:
        return Reading(body=body)
    places = _places(raw, {holder for holder, _ in notes.taken})
    # Of a field that each of a hundred messages has one word is enough.
    taken = [re.sub(r"\[\d+\]", "[]", _join(places, *field)) for field in notes.taken]
    return Reading(body=body, taken=tuple(dict.fromkeys(taken)))


def parse(kind: type[B], data: bytes) -> B:
    """The body of `read`, for whom it is no matter what was taken."""
    return read(kind, data).body


async def read_aside(kind: type[B], data: bytes, limiter: trio.CapacityLimiter) -> Reading[B]:
    """`read`, in a thread if *data* is long; *limiter* says how many of them at a time."""
    if len(data) <= AT_ONCE:
        return read(kind, data)
    return await trio.to_thread.run_sync(partial(read, kind, data), limiter=limiter)


async def parse_aside(kind: type[B], data: bytes, limiter: trio.CapacityLimiter) -> B:
    """`parse`, in a thread if *data* is long."""
    return (await read_aside(kind, data, limiter)).body


def _refusal(raw: Any, notes: Notes, errors: Sequence[Any], faults: int) -> Refusal:
    """One refusal for all that was noted, and for the one of the *errors* that matters most."""
    if faults + notes.refusals > MAX_FAULTS:
        count = faults + notes.refusals
        return _no(f"{count} values in the body break rules; /openapi.json has them")
    places = _places(raw, {holder for holder, _ in notes.refused})
    # What else an object of a wrong type has is no fault of its own.
    untold = {place_of(error["loc"][:-1]) for error in errors if error["loc"][-1:] == ("type",)}
    found = []
    for (holder, name), (mark, value) in notes.refused.items():
        place = _join(places, holder, name)
        if mark is not None:
            found.append((place, CODES["refused"], _refused(place, mark, value)))
        elif places.get(holder, "") not in untold:
            found.append((place, CODES["extra_forbidden"], _unknown(place)))
    # What was dropped since it is refused is not missing.
    refused = {place for place, _, _ in found}
    errors = [error for error in errors if place_of(error["loc"]) not in refused]
    if errors:
        error = _worst(errors)
        place = place_of(error["loc"])
        found.append((place, CODES.get(error["type"], "invalid_value"), sentence(error, place)))
    return Refusal(
        status=400,
        # A reason may speak for several fields, such as all tools of one kind.
        message="\n".join(dict.fromkeys(words for _, _, words in found)),
        code=found[0][1],
        param=found[0][0] or None,
    )


def _unknown(place: str) -> str:
    return f"{place} is not a parameter that can be honoured here; leave it out"


def _refused(place: str, mark: Refused, value: Any) -> str:
    return f"{place} cannot be honoured: {mark.reason(value)}"


def _join(places: dict[int, str], holder: int, name: str) -> str:
    where = places.get(holder, "")
    own = place_of([name])
    return f"{where}.{own}" if where else own


def _places(raw: Any, wanted: set[int]) -> dict[int, str]:
    """Where in *raw* the objects of these `id`s stand."""
    found: dict[int, str] = {}
    # A way is a chain of steps: texts of all ways together could be far longer than the body.
    todo: list[tuple[Any, Any]] = [(raw, None)]
    while todo and len(found) < len(wanted):
        value, way = todo.pop()
        if id(value) in wanted:
            found[id(value)] = _spelled(way)
        if isinstance(value, dict | list):
            steps = value.items() if isinstance(value, dict) else enumerate(value)
            todo += [(item, (way, step)) for step, item in steps if isinstance(item, dict | list)]
    return found


def _spelled(way: Any) -> str:
    steps = []
    while way is not None:
        way, step = way
        steps.append(step)
    return place_of(steps[::-1])


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


def _worst(errors: Sequence[Any]) -> Any:
    """The error to report: the deepest, since the others may only be its consequences."""
    return max(errors, key=lambda error: len(error["loc"]))
