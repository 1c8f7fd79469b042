"""A body as a model of its fields: each is honoured, taken or refused, and says so where it stands.

An ordinary field is honoured. One annotated with `Taken` changes nothing, one with `Refused` may
only ask for nothing. Before its fields are checked a `Body` drops what is null, so that null is as
good as left out, and what is taken or refused, and notes that. What is wrong with
honoured fields is left to pydantic, and how all that is said to `_reading`.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

# Fields that are noted of one body: those taken are named in a header, those refused in an error.
MAX_NOTES = 64

# Where JSON has one kind of number, some clients write every number with a point. A float holds
# all whole numbers up to this one.
MAX_WHOLE = float(1 << 53)


# Not equal to another: `Annotated` keeps one of two equal marks, and to Python 0 equals False.
@attrs.frozen(eq=False)
class Taken:
    """Marks a field that may have any value and changes nothing: ``Annotated[Any, Taken(...)]``."""

    why: str
    """Why it may change nothing."""

    kept: bool = attrs.field(default=False, kw_only=True)
    """Something reads it all the same, to say it back for one; else no body has its value."""

    @property
    def json_schema(self) -> JsonSchemaValue:
        """Any value, with the reason."""
        return {"description": f"Taken, and changes nothing: {self.why}."}


@attrs.frozen(eq=False)
class Refused:
    """Marks a field that cannot be honoured: ``Annotated[Any, Refused(...)]``.

    Values that ask for nothing are taken: null, an empty text, list or object, and *nothing*.
    """

    why: str | Callable[[Any], str]
    """Why it cannot be honoured, and what to do; or a function of the value that says so."""

    nothing: tuple[Any, ...] = attrs.field(default=(), kw_only=True)
    """Further values that ask for nothing, such as its default."""

    empty: bool = attrs.field(default=True, kw_only=True)
    """What is empty asks for nothing; else null alone does."""

    def is_nothing(self, value: Any) -> bool:
        """Whether *value* asks for nothing."""
        if value is None or (self.empty and is_empty(value)):
            return True
        return any(_is_same(value, each) for each in self.nothing)

    def reason(self, value: Any) -> str:
        """Why *value* cannot be honoured."""
        return self.why if isinstance(self.why, str) else self.why(value)

    @property
    def json_schema(self) -> JsonSchemaValue:
        """The values that ask for nothing, with the reason."""
        why = f" {self.why}." if isinstance(self.why, str) else ""
        taken = [None, *(["", [], {}] if self.empty else []), *self.nothing]
        return {"enum": taken, "description": f"Not honoured:{why}"}


def is_empty(value: Any) -> bool:
    """Whether *value* asks for nothing whatever the field is: null, or empty."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def _is_same(one: Any, other: Any) -> bool:
    # To Python true equals 1. To JSON and to us 1.0 does, and true does not.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


@attrs.define
class Notes:
    """What was found while a body was read, besides the faults that pydantic tells.

    An object is known by its `id` here: a model does not know where in a body it stands.
    """

    taken: dict[tuple[int, str], None] = attrs.field(factory=dict)
    """Object and name of the fields that were taken and changed nothing, in order."""

    refused: dict[tuple[int, str], tuple[Refused | None, Any]] = attrs.field(factory=dict)
    """Object and name of the fields that are refused, with their mark (none: unknown) and value."""

    refusals: int = 0
    """How many were refused, noted or not."""

    def take(self, holder: Any, name: str) -> None:
        """Note that the field *name* of the object *holder* changes nothing."""
        if len(self.taken) < MAX_NOTES:
            self.taken[id(holder), name] = None

    def refuse(self, holder: Any, name: str, mark: Refused | None, value: Any) -> None:
        """Note that the field *name* of the object *holder* cannot be honoured."""
        self.refusals += 1
        if len(self.refused) < MAX_NOTES:
            self.refused[id(holder), name] = (mark, value)


def mark_of(field: FieldInfo) -> Taken | Refused | None:
    """The mark of a field; `None` if it is honoured."""
    return next((each for each in field.metadata if isinstance(each, Taken | Refused)), None)


def names_of(key: str, field: FieldInfo) -> list[str]:
    """The names under which clients write the field that is *key* to us, the usual one first."""
    given = field.validation_alias
    if isinstance(given, AliasChoices):
        return [each for each in given.choices if isinstance(each, str)]
    return [given if isinstance(given, str) else key]


class Body(BaseModel):
    """A JSON object of known fields, whose values are never converted to another type.

    With ``model_config = ConfigDict(extra="ignore")`` unknown fields are taken, not refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _sift(cls, value: Any, info: ValidationInfo) -> Any:
        """Drop null, what is taken and refused, and note it; spell 42.0 as 42 where it is whole."""
        if type(value) is not dict:
            return value
        plan = _plan_of(cls)
        changed: dict[str, Any] = {}
        dropped = set()
        for name, item in value.items():
            mark = plan.get(name)
            if item is None:
                dropped.add(name)
            elif mark == "honoured":
                continue
            elif mark == "whole":
                if type(item) is float and item.is_integer() and abs(item) <= MAX_WHOLE:
                    changed[name] = int(item)
            elif isinstance(mark, Taken) and mark.kept:
                _notes_in(info).take(value, name)
            elif mark is not None or cls.model_config["extra"] != "allow":
                dropped.add(name)
                is_ignored = mark is None and cls.model_config["extra"] == "ignore"
                if is_ignored or isinstance(mark, Taken) or (mark and mark.is_nothing(item)):
                    _notes_in(info).take(value, name)
                else:
                    _notes_in(info).refuse(value, name, mark, item)
        if not changed and not dropped:
            return value
        return {name: changed.get(name, value[name]) for name in value if name not in dropped}

    if not typing.TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The default of a field that `_sift` drops, which no body has that was read."""
            field = type(self).model_fields.get(name)
            return super().__getattr__(name) if field is None else field.default

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Without what `_sift` drops: in a chat a hundred fields, for which pydantic would look."""
        schema = handler(source)
        inner: Any = handler.resolve_ref_schema(schema)
        while inner["type"] != "model-fields":
            inner = inner["schema"]
        for name, field in cls.model_fields.items():
            # That one is missing which must be there, pydantic has to find.
            if _is_dropped(mark_of(field)) and not field.is_required():
                inner["fields"].pop(name, None)
        return schema

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Of all fields; null may stand for each that may be left out."""
        described = handler.resolve_ref_schema(handler(schema))
        required = described.get("required", ())
        properties = described.setdefault("properties", {})
        for name, field in properties.items():
            if name not in required and not _takes_null(field):
                properties[name] = {"anyOf": [field, {"type": "null"}]}
        for key, field in cls.model_fields.items():
            if (mark := mark_of(field)) is not None:
                properties |= dict.fromkeys(names_of(key, field), mark.json_schema)
        if cls.model_config["extra"] == "forbid":
            described["additionalProperties"] = {"type": "null"}
        return described


def _is_dropped(mark: Taken | Refused | None) -> bool:
    return mark is not None and not (isinstance(mark, Taken) and mark.kept)


def _notes_in(info: ValidationInfo) -> Notes:
    if isinstance(info.context, Notes):
        return info.context
    # Only `read` can say what is refused where it stands.
    raise PydanticCustomError("unread", "a body is made by `read` alone")


def _takes_null(field: Mapping[str, Any]) -> bool:
    """Whether a JSON schema of ours accepts null; one without a type accepts all."""
    if not field.keys() & {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}:
        return True
    if field.get("type") == "null" or None in field.get("enum", ()):
        return True
    return any(_takes_null(each) for each in field.get("anyOf", ()))


Mark = Taken | Refused | Literal["honoured", "whole"]
"""What becomes of a field; a whole number is honoured, too."""


@functools.cache
def _plan_of(kind: type[Body]) -> Mapping[str, Mark]:
    """The names of a body's fields, as clients write them, and what becomes of each."""
    plan: dict[str, Mark] = {}
    for key, field in kind.model_fields.items():
        mark: Mark = mark_of(field) or ("whole" if _is_whole(field.annotation) else "honoured")
        plan.update(dict.fromkeys(names_of(key, field), mark))
    return plan


def _is_whole(annotation: Any) -> bool:
    """Whether the only numbers that *annotation* knows are whole."""
    found: set[Any] = set()

    def look(kind: Any) -> None:
        origin = typing.get_origin(kind)
        if origin is typing.Annotated:
            look(typing.get_args(kind)[0])
        elif origin in (typing.Union, types.UnionType):
            for each in typing.get_args(kind):
                look(each)
        else:
            found.add(kind)

    look(annotation)
    return int in found and float not in found
