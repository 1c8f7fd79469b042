"""Turns frozen values into plain data and back, by the annotations of their fields. No I/O."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union

import attrs

from ..capability import Capability

T = TypeVar("T")

Reader = Callable[[Any], Any]

# JSON has no word for these numbers, and a record may have them (a rest without end, say).
_NOT_NUMBERS = frozenset({"inf", "-inf", "nan"})

# JSON takes only texts as keys: the empty one, which is no name of ours, stands for `None`.
_NOBODY = ""

# What JSON has just so: most of all that is written.
_PLAIN = frozenset({str, bool, int, type(None)})

# Fields of a capability that said of the whole peer what lanes say now.
_OF_ITS_LANE = ("backend", "simulated", "load", "threads")


def to_plain(value: Any) -> Any:
    """*value* as numbers, texts, lists and dictionaries, as JSON has them.

    A field that has its default is left out, which makes a line several times shorter.
    """
    # To mypy a class is not surely hashable.
    kind: Any = type(value)
    return _writer(kind)(value)


@cache
def _writer(kind: Any) -> Callable[[Any], Any]:
    """A function that makes plain data of values of *kind*: to find out what it is, is slow."""
    if issubclass(kind, str | int | None):
        return lambda value: value
    if issubclass(kind, float):
        return _finite
    if attrs.has(kind):
        return _attrs_writer(kind)
    if issubclass(kind, Mapping):
        return _dictionary
    if issubclass(kind, frozenset | set):
        return lambda value: sorted(to_plain(item) for item in value)
    assert issubclass(kind, Sequence), f"{kind} has no plain form"
    return lambda value: [to_plain(item) for item in value]


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _dictionary(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {_NOBODY if key is None else str(key): to_plain(item) for key, item in value.items()}


def _attrs_writer(kind: type[Any]) -> Callable[[Any], dict[str, Any]]:
    fields = [(field.name, _default(field)) for field in _given_fields(kind)]

    def write(value: Any) -> dict[str, Any]:
        # Most fields have their default, and most of these the very object.
        return {
            name: item if type(item) in _PLAIN else to_plain(item)
            for name, default in fields
            if (item := getattr(value, name)) is not default
            and (item != default or type(item) is not type(default))
        }

    return write


def _default(field: Any) -> Any:
    """The value that the field has if none is given; `attrs.NOTHING` if that depends on others."""
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, says attrs
        return attrs.NOTHING if default.takes_self else default.factory()
    return default


def _given_fields(kind: Any) -> list[Any]:
    return [field for field in attrs.fields(kind) if field.init]


def from_plain(kind: type[T], data: object) -> T:
    """The value that `to_plain` made *data* of.

    Fields that *kind* does not have are ignored, and those that *data* lacks have their default:
    lines of other versions can be read as far as the versions agree.

    Raises:
      ValueError: naming the field that is not what it should be.

    """
    shape: Any = kind
    value: T = _reader(shape)(data)
    return value


@cache
def _reader(kind: Any) -> Reader:
    """A function that reads plain data into a value of *kind*, a type as it is annotated."""
    if kind is Any:
        return lambda data: data
    if kind is float:
        return _float
    if kind in (str, int, bool):
        return _exactly(kind)
    if kind is type(None):
        return _exactly(type(None))
    if isinstance(kind, typing.NewType):
        return _reader(kind.__supertype__)
    if isinstance(kind, type) and attrs.has(kind):
        return _attrs_reader(kind)
    return _generic_reader(typing.get_origin(kind), typing.get_args(kind), kind)


def _generic_reader(origin: Any, arguments: tuple[Any, ...], kind: Any) -> Reader:
    if origin is Literal:
        return _one_of(arguments)
    if origin in (Union, types.UnionType):
        return _first_of([_reader(argument) for argument in arguments])
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return _many(tuple, _reader(arguments[0]))
    if origin is tuple:
        return _fixed([_reader(argument) for argument in arguments])
    if origin is frozenset:
        return _many(frozenset, _reader(arguments[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_reader(arguments[0]), _reader(arguments[1]))
    raise TypeError(f"no reader for {kind}")


def _exactly(kind: type[Any]) -> Reader:
    def read(data: Any) -> Any:
        if type(data) is not kind:
            raise ValueError(f"expected {kind.__name__}, found {type(data).__name__}")
        return data

    return read


def _float(data: Any) -> float:
    number = type(data) in (int, float) or (type(data) is str and data in _NOT_NUMBERS)
    if not number:
        raise ValueError(f"expected float, found {type(data).__name__}")
    try:
        return float(data)
    except OverflowError:
        raise ValueError("the number is too large") from None


def _one_of(words: tuple[Any, ...]) -> Reader:
    def read(data: Any) -> Any:
        if data not in words:
            raise ValueError(f"expected one of {', '.join(map(str, words))}")
        return data

    return read


def _first_of(readers: Sequence[Reader]) -> Reader:
    def read(data: Any) -> Any:
        problem: ValueError | None = None
        for reader in readers:
            try:
                return reader(data)
            except ValueError as error:
                # Of "a text, or nothing" the text is what was meant.
                problem = problem or error
        assert problem is not None
        raise problem

    return read


def _many(make: Callable[[Any], Any], item: Reader) -> Reader:
    def read(data: Any) -> Any:
        if type(data) is not list:
            raise ValueError(f"expected a list, found {type(data).__name__}")
        return make([item(part) for part in data])

    return read


def _fixed(readers: Sequence[Reader]) -> Reader:
    def read(data: Any) -> Any:
        if type(data) is not list or len(data) != len(readers):
            raise ValueError(f"expected a list of {len(readers)}")
        return tuple([reader(part) for reader, part in zip(readers, data, strict=True)])

    return read


def _mapping(key: Reader, item: Reader) -> Reader:
    def read_key(name: str) -> Any:
        try:
            return key(None) if name == _NOBODY else key(name)
        except ValueError:
            return key(name)

    def read(data: Any) -> Any:
        if type(data) is not dict:
            raise ValueError(f"expected an object, found {type(data).__name__}")
        return types.MappingProxyType({read_key(name): item(part) for name, part in data.items()})

    return read


def _attrs_reader(kind: type[Any]) -> Reader:
    attrs.resolve_types(kind)
    readers = {field.name: _reader(field.type) for field in _given_fields(kind)}

    def read(data: Any) -> Any:
        if type(data) is not dict:
            raise ValueError(f"expected an object, found {type(data).__name__}")
        if kind is Capability and "backend" in data:
            data = {**data, "lanes": [{n: data[n] for n in _OF_ITS_LANE if n in data}]}
        found = {}
        for name, reader in readers.items():
            if name not in data:
                continue
            try:
                found[name] = reader(data[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        try:
            return kind(**found)
        except TypeError:
            missing = [
                field.name
                for field in _given_fields(kind)
                if field.default is attrs.NOTHING and field.name not in found
            ]
            raise ValueError(f"{', '.join(missing)}: missing") from None

    return read
